//! Exceptions for single users.

use std::time::Duration;

use pennon_eval::{Flag, FlagKey, Override};
use serde_json::{Value, json};

use super::change::Changed;
use super::update::live;
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{Action, OverrideRecord, Transaction};
use crate::timestamp::{parse, timestamp};

/// As many overrides of one flag may be added or changed in [`WINDOW`], on all instances together.
/// Beyond it somebody is using overrides for what a rollout or a targeting rule is for. Removing one is
/// never refused and does not count.
const CHANGES: u32 = 100;
/// See [`CHANGES`].
const WINDOW: Duration = Duration::from_secs(3600);

/// What an admin wants for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOverride {
    /// For whom.
    pub user_id: String,
    /// What.
    pub kind: Override,
    /// Why.
    pub reason: Option<String>,
}

impl FlagService {
    /// Sets a user's override, or replaces it.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Invalid`] for a variant that the flag does not have;
    /// [`Error::TooMany`]; [`Error::Unavailable`].
    pub async fn set_override(
        &self,
        environment: &Environment,
        key: &FlagKey,
        wanted: NewOverride,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<OverrideRecord>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        let record = live(open.flag(key).await?, key)?;
        must_have(&record.flag, &wanted.kind)?;
        must_not_be_too_many(&mut open, key).await?;
        let before = open.find_override(key, &wanted.user_id).await?;
        let wanted = OverrideRecord {
            user_id: wanted.user_id,
            kind: wanted.kind,
            reason: wanted.reason,
            created_by: Some(admin.id.clone()),
            created_at: None,
        };
        let after = open.put_override(key, &wanted).await?;
        open.note(
            Some(key),
            Action::SetOverride,
            before.as_ref().map(override_state),
            Some(override_state(&after)),
        )
        .await?;
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed {
            value: after,
            invalidated,
        })
    }

    /// Removes a user's override.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`], [`Error::NotFound`]; [`Error::Unavailable`].
    pub async fn remove_override(
        &self,
        environment: &Environment,
        key: &FlagKey,
        user: &str,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<()>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        live(open.flag(key).await?, key)?;
        let Some(before) = open.find_override(key, user).await? else {
            return Err(Error::NotFound(format!("Override for user '{user}'")));
        };
        open.delete_override(key, user).await?;
        let before = Some(override_state(&before));
        open.note(Some(key), Action::DeleteOverride, before, None)
            .await?;
        let invalidated = self.commit(open, environment, scope).await?;
        Ok(Changed {
            value: (),
            invalidated,
        })
    }
}

/// An override in the form that clients know and the audit keeps; `variant` only where one is named.
#[must_use]
pub fn override_state(record: &OverrideRecord) -> Value {
    let mut state = json!({
        "userId": record.user_id,
        "overrideType": match record.kind {
            Override::Include | Override::Variant(_) => "include",
            Override::Exclude => "exclude",
        },
        "reason": record.reason,
        "createdBy": record.created_by,
        "createdAt": record.created_at.map(timestamp),
    });
    if let Override::Variant(variant) = &record.kind {
        state["variant"] = json!(variant);
    }
    state
}

/// The other way round.
pub(super) fn override_in(state: &Value) -> Option<OverrideRecord> {
    let text = |name: &str| state[name].as_str().map(str::to_owned);
    Some(OverrideRecord {
        user_id: text("userId")?,
        kind: match (text("variant"), state["overrideType"].as_str()) {
            (Some(variant), _) => Override::Variant(variant),
            (None, Some("include")) => Override::Include,
            (None, _) => Override::Exclude,
        },
        reason: text("reason"),
        created_by: text("createdBy"),
        created_at: text("createdAt").and_then(|text| parse(&text)),
    })
}

/// Only a variant of the flag can be given to a user.
pub(super) fn must_have(flag: &Flag, kind: &Override) -> Result<(), Error> {
    match (kind, &flag.definition) {
        (Override::Include | Override::Exclude, _) => Ok(()),
        (Override::Variant(variant), Some(definition))
            if definition.variants.contains_key(variant) =>
        {
            Ok(())
        }
        (Override::Variant(_), _) => Err(Error::invalid_field(
            "variant",
            "The flag has no such variant",
        )),
    }
}

/// The flag is locked, so nobody else can be counting at the same time.
pub(super) async fn must_not_be_too_many(
    open: &mut Transaction,
    key: &FlagKey,
) -> Result<(), Error> {
    let wait = open.wait_for_override_change(key, CHANGES, WINDOW).await?;
    match wait {
        // A little longer rather than a little too short.
        Some(wait) => Err(Error::TooMany {
            retry_after: wait.as_secs() + 1,
        }),
        None => Ok(()),
    }
}
