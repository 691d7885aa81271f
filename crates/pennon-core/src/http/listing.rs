//! Lists that come in pages.

use serde_json::{Value, json};

use super::{LARGEST_ANSWER, timestamp};
use crate::store::{AuditEntry, Page, Paged};
use crate::wire_size::wire_size;

/// What every list says about itself.
#[must_use]
pub fn pagination<T>(page: Page, paged: &Paged<T>) -> Value {
    json!({ "page": page.number, "pageSize": page.size, "total": paged.total })
}

/// A list as a body, whole, or cut to a page where the caller wants one.
#[must_use]
pub fn listed(name: &str, all: Vec<Value>, page: Option<Page>) -> Value {
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

/// A page of an audit. When it is larger than a function may answer, large states are left out; a smaller
/// page shows them.
#[must_use]
pub fn audit_page(page: Page, paged: &Paged<AuditEntry>) -> Value {
    let mut entries: Vec<Value> = paged.items.iter().map(audit_entry).collect();
    leave_out_what_is_large(&mut entries, &["before", "after"]);
    json!({ "entries": entries, "pagination": pagination(page, paged) })
}

/// Makes a list small enough for an answer: each of these fields that takes more than an equal share gives
/// way to `{"omittedBytes": …}`. Nothing happens to a list that fits.
pub fn leave_out_what_is_large(entries: &mut [Value], fields: &[&str]) {
    /// What else stands in an entry, and around the list.
    const AROUND: usize = 500;
    let sizes = entries.iter().map(wire_size);
    if sizes.sum::<usize>() + AROUND <= LARGEST_ANSWER {
        return;
    }
    let share = LARGEST_ANSWER / (fields.len() * entries.len() + 1);
    for entry in entries {
        for field in fields {
            let Some(value) = entry.get_mut(*field) else {
                continue;
            };
            let size = wire_size(value);
            if size + AROUND > share && !value.is_null() {
                *value = json!({ "omittedBytes": size });
            }
        }
    }
}

/// The first entries of a list that fit into an answer, and how many are left over. An answer has other
/// parts beside the list; those may take `around` bytes.
#[must_use]
pub fn fitting(mut entries: Vec<Value>, around: usize) -> (Vec<Value>, usize) {
    let mut size = around;
    let fits = |entry: &Value| {
        size = size.saturating_add(wire_size(entry) + 1);
        size <= LARGEST_ANSWER
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
    fn a_list_is_cut_or_thinned_exactly_at_the_bound() {
        let entry = |length: usize| json!({"name": "x", "text": "t".repeat(length)});
        let frame = wire_size(&entry(0)) + 1;
        let (two, around) = (LARGEST_ANSWER / 2, LARGEST_ANSWER % 2);
        let (kept, omitted) = fitting(vec![entry(two - frame), entry(two - frame)], around);
        assert_eq!((kept.len(), omitted), (2, 0));
        let (kept, omitted) = fitting(vec![entry(two - frame), entry(two - frame + 1)], around);
        assert_eq!((kept.len(), omitted), (1, 1));
        assert_eq!(fitting(Vec::new(), 0), (Vec::new(), 0));

        let small = entry(10);
        let mut list = vec![small.clone(), entry(1_000_000)];
        leave_out_what_is_large(&mut list, &["text"]);
        assert_eq!(
            list[1]["text"].as_str().map(str::len),
            Some(1_000_000),
            "it fits"
        );
        let mut list = vec![small.clone(), entry(LARGEST_ANSWER)];
        leave_out_what_is_large(&mut list, &["text", "none"]);
        assert_eq!(list[0], small);
        assert_eq!(list[1]["text"]["omittedBytes"], LARGEST_ANSWER + 4);
    }
}
