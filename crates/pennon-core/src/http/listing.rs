//! Lists and their pagination.

use serde_json::{Value, json};

use super::{MAX_RESPONSE_SIZE, timestamp};
use crate::store::{AuditEntry, Page, Paged};
use crate::wire_size::wire_size;

/// The field `pagination` of a list.
#[must_use]
pub fn pagination<T>(page: Page, paged: &Paged<T>) -> Value {
    json!({ "page": page.number, "pageSize": page.size, "total": paged.total })
}

/// The body of a list: all items, or one page of them.
#[must_use]
pub fn list_body(name: &str, all: Vec<Value>, page: Option<Page>) -> Value {
    let Some(page) = page else {
        return json!({ (name): all });
    };
    let total = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let paged = Paged {
        items: page.cut(all),
        total,
    };
    json!({ (name): paged.items, "pagination": pagination(page, &paged) })
}

/// The body of a page of an audit. Large states are omitted if they do not fit into a response; a smaller page shows
/// them.
#[must_use]
pub fn audit_page(page: Page, paged: &Paged<AuditEntry>) -> Value {
    let mut entries: Vec<Value> = paged.items.iter().map(audit_entry).collect();
    omit_large_fields(&mut entries, &["before", "after"]);
    json!({ "entries": entries, "pagination": pagination(page, paged) })
}

/// Makes a list fit into a response: `{"omittedBytes": …}` replaces each of these fields that takes more than an
/// equal share. A list that fits is not changed.
pub fn omit_large_fields(entries: &mut [Value], fields: &[&str]) {
    /// An estimate for the other fields of an entry, and for the response around the list.
    const OVERHEAD: usize = 500;
    let sizes = entries.iter().map(wire_size);
    if sizes.sum::<usize>() + OVERHEAD <= MAX_RESPONSE_SIZE {
        return;
    }
    let share = MAX_RESPONSE_SIZE / (fields.len() * entries.len() + 1);
    for entry in entries {
        for field in fields {
            let Some(value) = entry.get_mut(*field) else {
                continue;
            };
            let size = wire_size(value);
            if size + OVERHEAD > share && !value.is_null() {
                *value = json!({ "omittedBytes": size });
            }
        }
    }
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
            "it fits"
        );
        let mut list = vec![small.clone(), entry(MAX_RESPONSE_SIZE)];
        omit_large_fields(&mut list, &["text", "none"]);
        assert_eq!(list[0], small);
        assert_eq!(list[1]["text"]["omittedBytes"], MAX_RESPONSE_SIZE + 4);
    }
}
