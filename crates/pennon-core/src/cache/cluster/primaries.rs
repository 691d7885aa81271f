//! The primary that last answered for each slot, to notice a failover.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::cache::address::Address;

/// The address of the last known primary, by slot.
#[derive(Default)]
pub(in crate::cache) struct Primaries(Mutex<HashMap<u16, Address>>);

impl Primaries {
    /// Records the primary of a slot. Returns whether it replaces another one.
    pub(in crate::cache) fn record(&self, slot: u16, primary: &Address) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&slot) == Some(primary) {
            return false;
        }
        known.insert(slot, primary.clone()).is_some()
    }
}
