//! Lists that come in pages.

use serde_json::{Value, json};

use super::{LARGEST_ANSWER, timestamp, wire_size};
use crate::store::{AuditEntry, Page, Paged};

/// What every list says about itself.
#[must_use]
pub fn pagination<T>(page: Page, paged: &Paged<T>) -> Value {
    json!({ "page": page.number, "pageSize": page.size, "total": paged.total })
}

/// A page of an audit. When it is larger than a function may answer, each state that takes more than an
/// equal share gives way to `{"omittedBytes": …}`; a smaller page shows it.
#[must_use]
pub fn audit_page(page: Page, paged: &Paged<AuditEntry>) -> Value {
    let mut entries: Vec<Value> = paged.items.iter().map(audit_entry).collect();
    let sizes = entries.iter().map(wire_size);
    let around = 500;
    if sizes.sum::<usize>() + around > LARGEST_ANSWER {
        // Two states, and what stands beside them.
        let share = LARGEST_ANSWER / (2 * entries.len() + 1);
        for entry in &mut entries {
            for side in ["before", "after"] {
                let size = wire_size(&entry[side]);
                if size + around > share {
                    entry[side] = json!({ "omittedBytes": size });
                }
            }
        }
    }
    json!({ "entries": entries, "pagination": pagination(page, paged) })
}

fn audit_entry(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "environment": entry.environment,
        "flagKey": entry.flag_key,
        "action": entry.action,
        "actor": entry.actor,
        "at": timestamp(entry.at),
        "before": entry.before,
        "after": entry.after,
    })
}
