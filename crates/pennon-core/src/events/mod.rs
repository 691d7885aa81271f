//! Change events: messages about committed changes, for other systems.
//!
//! The transaction of a change writes a row per event and destination into the outbox: for the event bus and for each
//! webhook. `service/deliver` sends those of webhooks. For the event bus, the request sends waiting events after its
//! commit, within a small time limit, and `reconcile` sends the remaining ones every minute. A row is deleted in the
//! transaction that claimed it, after the bus accepted the event: if the process ends in between, the event is sent
//! again. So delivery is at least once, and in order per flag, because only the first undelivered event of a flag can
//! be claimed.

mod bus;

use std::time::SystemTime;

use serde_json::{Value, json};

pub use bus::{Delivery, EventBus, MAX_ENTRIES};

use crate::timestamp::timestamp;

/// The largest event, in bytes of JSON. EventBridge accepts 256 KiB, and adds its envelope to the event that a target
/// receives.
pub const MAX_EVENT_SIZE: usize = 250_000;

/// The state before or after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct EventState {
    /// The SHA-256 of its JSON text in the audit, in hexadecimal.
    pub sha256: String,
    /// The state, unless its text alone exceeds [`MAX_EVENT_SIZE`].
    pub json: Option<Value>,
}

/// A committed change.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeEvent {
    /// The position of its row in the outbox.
    pub position: i64,
    /// The id of its audit entry, which identifies the event.
    pub audit_id: i64,
    /// The environment.
    pub environment: String,
    /// The flag; `None` for a change of the environment itself.
    pub flag_key: Option<String>,
    /// The number of this event among those of its flag, from 1.
    pub sequence: i64,
    /// The name of the audited action.
    pub action: String,
    /// Who made the change.
    pub actor: String,
    /// The time of the audit entry.
    pub at: SystemTime,
    /// The revision of the environment that contains the change.
    pub revision: i64,
    /// The state before the change, if there was one.
    pub before: Option<EventState>,
    /// The state after the change, if there is one.
    pub after: Option<EventState>,
}

impl EventState {
    fn to_json(&self, audit_id: &str) -> Value {
        match &self.json {
            Some(json) => json.clone(),
            None => json!({ "sha256": self.sha256, "auditId": audit_id }),
        }
    }
}

impl ChangeEvent {
    /// The event on the wire. While it exceeds [`MAX_EVENT_SIZE`], a state is replaced by its hash, the larger one
    /// first.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let id = self.audit_id.to_string();
        let state = |state: &Option<EventState>| state.as_ref().map(|state| state.to_json(&id));
        let (before, after) = (state(&self.before), state(&self.after));
        let mut event = json!({
            "id": id,
            "environment": self.environment,
            "flagKey": self.flag_key,
            "sequence": self.sequence,
            "action": self.action,
            "actor": self.actor,
            "at": timestamp(self.at),
            "revision": self.revision,
            "before": before,
            "after": after,
        });
        let mut sides = [("before", &self.before), ("after", &self.after)];
        sides.sort_by_key(|(name, _)| std::cmp::Reverse(event[name].to_string().len()));
        for (name, state) in sides {
            if let Some(state) = state
                && event.to_string().len() > MAX_EVENT_SIZE
            {
                let hash = EventState {
                    sha256: state.sha256.clone(),
                    json: None,
                };
                event[name] = hash.to_json(&id);
            }
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(letter: &str, length: usize) -> EventState {
        EventState {
            sha256: letter.to_owned(),
            json: Some(Value::from(letter.repeat(length))),
        }
    }

    fn event(before: Option<EventState>, after: Option<EventState>) -> ChangeEvent {
        ChangeEvent {
            position: 1,
            audit_id: 7,
            environment: "production".to_owned(),
            flag_key: Some("checkout".to_owned()),
            sequence: 3,
            action: "flag.update".to_owned(),
            actor: "ada".to_owned(),
            at: SystemTime::UNIX_EPOCH,
            revision: 12,
            before,
            after,
        }
    }

    #[test]
    fn an_event_names_its_change() {
        let wire = event(None, Some(state("a", 3))).to_json();
        let wanted = json!({
            "id": "7", "environment": "production", "flagKey": "checkout", "sequence": 3,
            "action": "flag.update", "actor": "ada", "at": "1970-01-01T00:00:00.000Z", "revision": 12,
            "before": null, "after": "aaa",
        });
        assert_eq!(wire, wanted);
    }

    #[test]
    fn states_are_replaced_by_hashes_only_until_the_event_fits() {
        let hash = |letter: &str| json!({"sha256": letter, "auditId": "7"});
        for (before, after, replaced) in [
            (100_000, 100_000, [false, false]),
            (100_000, 200_000, [false, true]),
            (200_000, 100_000, [true, false]),
            (MAX_EVENT_SIZE, MAX_EVENT_SIZE, [true, true]),
        ] {
            let wire = event(Some(state("b", before)), Some(state("a", after))).to_json();
            let found = [wire["before"] == hash("b"), wire["after"] == hash("a")];
            assert_eq!(found, replaced, "{before} {after}");
            assert!(wire.to_string().len() <= MAX_EVENT_SIZE);
        }
    }
}
