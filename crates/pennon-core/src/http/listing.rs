//! Lists that come in pages.

use serde_json::{Value, json};

use super::timestamp;
use crate::store::{AuditEntry, Page, Paged};

/// What every list says about itself.
#[must_use]
pub fn pagination<T>(page: Page, paged: &Paged<T>) -> Value {
    json!({ "page": page.number, "pageSize": page.size, "total": paged.total })
}

/// A page of an audit.
#[must_use]
pub fn audit_page(page: Page, paged: &Paged<AuditEntry>) -> Value {
    let entries: Vec<Value> = paged.items.iter().map(audit_entry).collect();
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
