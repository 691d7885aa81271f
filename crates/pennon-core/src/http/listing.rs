//! Lists and their pagination.

use std::cmp::Reverse;

use serde::Serialize;
use serde_json::{Value, json};

use super::{MAX_RESPONSE_SIZE, timestamp};
use crate::store::{AuditEntry, Page, PageRequest};
use crate::wire_size::wire_size;

/// The field `pagination` of a list.
#[must_use]
pub fn pagination<T>(request: PageRequest, page: &Page<T>) -> Value {
    json!({ "page": request.number, "pageSize": request.size, "total": page.total })
}

/// The body of a list: all items, or one page of them.
#[must_use]
pub fn list_body(name: &str, all: Vec<Value>, request: Option<PageRequest>) -> Value {
    let Some(request) = request else {
        return json!({ (name): all });
    };
    let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let page = Page {
        items: request.cut(all),
        total,
    };
    json!({ (name): page.items, "pagination": pagination(request, &page) })
}

/// The body of a page of an audit. Large states are omitted if they do not fit into a response; a smaller page shows
/// them, unless a single entry exceeds the limit.
#[must_use]
pub fn audit_page(request: PageRequest, page: &Page<AuditEntry>) -> Value {
    let mut entries: Vec<Value> = page.items.iter().map(audit_entry).collect();
    omit_large_fields(&mut entries, &["before", "after"]);
    json!({ "entries": entries, "pagination": pagination(request, page) })
}

/// Makes a list fit into a response: `{"omittedBytes": …}` replaces the largest of these fields until the rest fits.
/// A list that fits is not changed.
pub fn omit_large_fields(entries: &mut [Value], fields: &[&str]) {
    /// An estimate for the response around the list.
    const OVERHEAD: usize = 500;
    let sizes = entries.iter().map(|entry| wire_size(entry) + 1);
    let size = OVERHEAD + sizes.sum::<usize>();
    if size <= MAX_RESPONSE_SIZE {
        return;
    }
    let values = entries
        .iter_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(|entry| entry.iter_mut())
        .filter(|(name, _)| fields.contains(&name.as_str()))
        .map(|(_, value)| value);
    replace_largest(size, values, |_, bytes| {
        Some(json!({ "omittedBytes": bytes }))
    });
}

/// Replaces the largest of these values until a response of this size fits. Keeps those whose replacement would not be
/// smaller. Returns those replaced, with their sizes. `replacement` gets a value and its size in the response; `None`
/// keeps it.
pub(crate) fn replace_largest<'a, T: Serialize + 'a>(
    mut size: usize,
    values: impl Iterator<Item = &'a mut T>,
    replacement: impl Fn(&T, usize) -> Option<T>,
) -> Vec<(T, usize)> {
    let mut largest: Vec<(&mut T, usize)> = values
        .map(|value| {
            let bytes = wire_size(value);
            (value, bytes)
        })
        .collect();
    largest.sort_by_key(|(_, bytes)| Reverse(*bytes));
    let mut replaced = Vec::new();
    for (value, bytes) in largest {
        if size <= MAX_RESPONSE_SIZE {
            break;
        }
        let Some(smaller) = replacement(value, bytes) else {
            continue;
        };
        let saved = bytes.saturating_sub(wire_size(&smaller));
        if saved == 0 {
            continue;
        }
        size -= saved;
        replaced.push((std::mem::replace(value, smaller), bytes));
    }
    replaced
}

/// Takes the leading entries that fit into a response together with `overhead` other bytes. Returns them and the number
/// of omitted ones.
#[must_use]
pub fn take_fitting(mut entries: Vec<Value>, overhead: usize) -> (Vec<Value>, usize) {
    let mut size = overhead;
    let fits = |entry: &Value| {
        size = size.saturating_add(wire_size(entry) + 1);
        size <= MAX_RESPONSE_SIZE
    };
    let kept = entries.iter().map(fits).take_while(|fits| *fits).count();
    let omitted = entries.len() - kept;
    entries.truncate(kept);
    (entries, omitted)
}

fn audit_entry(entry: &AuditEntry) -> Value {
    let mut body = json!({
        "id": entry.id,
        "environment": entry.environment,
        "flagKey": entry.flag_key,
        "action": entry.action,
        "actor": entry.actor,
        "at": timestamp(entry.at),
        "before": entry.before,
        "after": entry.after,
    });
    if let Some(reason) = &entry.unreadable {
        body["broken"] = json!({ "reason": reason });
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shortened_exactly_when_it_exceeds_the_limit() {
        let entry = |length: usize| json!({"name": "x", "text": "t".repeat(length)});
        let frame = wire_size(&entry(0)) + 1;
        let (half, overhead) = (MAX_RESPONSE_SIZE / 2, MAX_RESPONSE_SIZE % 2);
        let (kept, omitted) =
            take_fitting(vec![entry(half - frame), entry(half - frame)], overhead);
        assert_eq!((kept.len(), omitted), (2, 0));
        let (kept, omitted) =
            take_fitting(vec![entry(half - frame), entry(half - frame + 1)], overhead);
        assert_eq!((kept.len(), omitted), (1, 1));
        assert_eq!(take_fitting(Vec::new(), 0), (Vec::new(), 0));

        let small = entry(10);
        let mut list = vec![small.clone(), entry(1_000_000)];
        omit_large_fields(&mut list, &["text"]);
        assert_eq!(
            list[1]["text"].as_str().map(str::len),
            Some(1_000_000),
            "a list that fits was shortened"
        );
        let mut list = vec![small.clone(), entry(MAX_RESPONSE_SIZE)];
        omit_large_fields(&mut list, &["text", "none"]);
        assert_eq!(list[0], small);
        assert_eq!(list[1]["text"]["omittedBytes"], MAX_RESPONSE_SIZE + 4);
    }

    #[test]
    fn the_largest_fields_are_omitted_until_the_rest_fits() {
        let text = |length: usize| Value::from("t".repeat(length));
        let large = MAX_RESPONSE_SIZE * 2 / 3;
        let mut list = vec![json!({"before": text(large), "after": text(large)})];
        omit_large_fields(&mut list, &["before", "after"]);
        assert_eq!(list[0]["before"], json!({"omittedBytes": large + 4}));
        assert_eq!(list[0]["after"], text(large));

        let third = MAX_RESPONSE_SIZE / 3;
        let mut list = vec![json!({"text": text(third)}); 3];
        list[2] = json!({"text": text(third + 1)});
        omit_large_fields(&mut list, &["text"]);
        let omitted: Vec<bool> = list.iter().map(|entry| entry["text"].is_object()).collect();
        assert_eq!(omitted, [false, false, true]);

        let mut list = vec![json!({"before": null, "after": text(MAX_RESPONSE_SIZE)}); 2];
        omit_large_fields(&mut list, &["before", "after"]);
        assert!(list.iter().all(|entry| entry["before"].is_null()));
        assert!(list.iter().all(|entry| entry["after"].is_object()));
    }
}
