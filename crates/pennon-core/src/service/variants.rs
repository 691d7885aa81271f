//! Variants that users have by name: a definition without them would leave those users with an error.

use std::collections::BTreeMap;

use pennon_eval::{Definition, Flag, FlagKey};

use crate::error::Error;
use crate::store::Transaction;

/// As many are told of; the others come to light when these are mended.
pub(super) const MOST_TOLD: usize = 10;

/// One flag before and after a change.
pub(super) type Step<'a> = (&'a FlagKey, &'a Flag, &'a Flag);

/// Refuses changes that take away a variant which an override names.
///
/// # Errors
/// [`Error::Conflict`] that names flags and variants, and how many users have each.
pub(super) async fn must_stay_where_named(
    open: &mut Transaction,
    steps: &[Step<'_>],
) -> Result<(), Error> {
    let after: BTreeMap<&FlagKey, Option<&Definition>> = steps
        .iter()
        .filter(|(_, before, after)| loses_a_variant(before, after))
        .map(|(key, _, after)| (*key, after.definition.as_ref()))
        .collect();
    if after.is_empty() {
        return Ok(());
    }
    let keys: Vec<&FlagKey> = after.keys().copied().collect();
    let mut told = Vec::new();
    for (key, variant, users) in open.named_variants(&keys).await? {
        let kept = after.get(&key).copied().flatten();
        if kept.is_some_and(|kept| kept.variants.contains_key(&variant)) {
            continue;
        }
        let have = if users == 1 { "user has" } else { "users have" };
        told.push(format!(
            "{users} {have} the variant '{variant}' of '{key}' by an override"
        ));
    }
    if told.is_empty() {
        return Ok(());
    }
    told.truncate(MOST_TOLD);
    Err(Error::Conflict(format!(
        "{}; change or remove those overrides before the variant goes",
        told.join(", ")
    )))
}

fn loses_a_variant(before: &Flag, after: &Flag) -> bool {
    let Some(before) = &before.definition else {
        return false;
    };
    let after = after.definition.as_ref();
    // Overrides may name variants of a definition that cannot be read.
    if before.unreadable.is_some() && after.is_none_or(|after| after.unreadable.is_none()) {
        return true;
    }
    before
        .variants
        .keys()
        .any(|name| after.is_none_or(|after| !after.variants.contains_key(name)))
}
