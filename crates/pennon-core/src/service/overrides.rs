//! Exceptions for single users.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pennon_eval::{Flag, FlagKey, Override};
use serde_json::{Value, json};

use super::change::{Changed, Expected, OVERRIDES};
use super::update::live;
use super::{FlagService, Scope};
use crate::auth::Admin;
use crate::environment::Environment;
use crate::error::{Error, FieldErrors};
use crate::store::{Action, OverrideRecord, Transaction};
use crate::timestamp::{parse, timestamp};

/// As many overrides of one flag may be added or changed in [`WINDOW`], on all instances together.
/// Beyond it somebody is using overrides for what a rollout or a targeting rule is for. Removing one is
/// never refused and does not count.
const CHANGES: u32 = 100;
/// See [`CHANGES`].
const WINDOW: Duration = Duration::from_secs(3600);

/// About a variant that cannot be given.
const NO_SUCH_VARIANT: &str = "The flag has no such variant";
/// More than anyone would read at once.
const MOST_COMPLAINTS: usize = 50;

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
    /// [`Error::RateLimited`]; [`Error::Unavailable`].
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
        open.delete_overrides(key, &[user]).await?;
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

/// What becomes of overrides that a request does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// They are removed.
    Replace,
    /// They stay.
    Merge,
}

/// What was done to the overrides of a flag at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverridesPut {
    /// Users who had none.
    pub created: usize,
    /// Users who had another one.
    pub changed: usize,
    /// Users who have none any more.
    pub removed: usize,
    /// Users who had the same.
    pub unchanged: usize,
    /// Overrides of the flag from now on.
    pub total: usize,
    /// The state of all of them: see [`crate::store::OverridePage`].
    pub revision: i64,
}

impl FlagService {
    /// Sets the overrides of a flag for many users, each named once, as one change with one entry in the
    /// audit. It counts as one of the hundred changes of an hour, unless it only removes.
    ///
    /// # Errors
    /// [`Error::FlagNotFound`]; [`Error::Invalid`] for variants that the flag does not have, with the
    /// place of each in the list; [`Error::PreconditionFailed`] when the overrides are in another state;
    /// [`Error::RateLimited`]; [`Error::Unavailable`].
    pub async fn put_overrides(
        &self,
        environment: &Environment,
        key: &FlagKey,
        (mode, wanted): (PutMode, Vec<NewOverride>),
        expected: &Expected,
        admin: &Admin,
        scope: &Scope,
    ) -> Result<Changed<OverridesPut>, Error> {
        let mut open = self.begin(environment, &admin.id).await?;
        let record = live(open.flag(key).await?, key)?;
        must_have_all(&record.flag, &wanted)?;
        expected.check(open.overrides_revision(key).await?)?;
        let known = open.overrides(key).await?;
        let mut known: BTreeMap<&str, &OverrideRecord> = known
            .iter()
            .map(|one| (one.user_id.as_str(), one))
            .collect();
        let mut done = OverridesPut::default();
        let (mut put, mut before) = (Vec::new(), Vec::new());
        let had = known.len();
        for one in wanted {
            match known.remove(one.user_id.as_str()) {
                Some(same) if same.kind == one.kind && same.reason == one.reason => {
                    done.unchanged += 1;
                    continue;
                }
                Some(other) => {
                    done.changed += 1;
                    before.push(other.clone());
                }
                None => done.created += 1,
            }
            put.push(OverrideRecord {
                user_id: one.user_id,
                kind: one.kind,
                reason: one.reason,
                created_by: Some(admin.id.clone()),
                created_at: None,
            });
        }
        let removed: Vec<OverrideRecord> = match mode {
            PutMode::Replace => known.into_values().cloned().collect(),
            PutMode::Merge => Vec::new(),
        };
        done.removed = removed.len();
        done.total = had + done.created - done.removed;
        before.extend_from_slice(&removed);
        let users: Vec<&str> = removed.iter().map(|one| one.user_id.as_str()).collect();
        put_at_once(&mut open, key, (&put, &users), &before).await?;
        done.revision = open.overrides_revision(key).await?;
        self.finish(open, environment, done, scope).await
    }
}

/// Sets and removes overrides, and tells of it in one entry: the users whose override is another, with
/// what each had and has.
async fn put_at_once(
    open: &mut Transaction,
    key: &FlagKey,
    (put, removed): (&[OverrideRecord], &[&str]),
    before: &[OverrideRecord],
) -> Result<(), Error> {
    if put.is_empty() && removed.is_empty() {
        return Ok(());
    }
    let action = if put.is_empty() {
        Action::DeleteOverrides
    } else {
        must_not_be_too_many(open, key).await?;
        Action::SetOverrides
    };
    let mut after = Vec::new();
    if !put.is_empty() {
        after = open.put_overrides(key, put).await?;
    }
    if !removed.is_empty() {
        open.delete_overrides(key, removed).await?;
    }
    let state = |records: &[OverrideRecord]| {
        let states: Vec<Value> = records.iter().map(override_state).collect();
        json!({ (OVERRIDES): states })
    };
    let (before, after) = (state(before), state(&after));
    open.note(Some(key), action, Some(before), Some(after))
        .await
}

/// Puts the overrides that an entry of [`put_at_once`] is about back to one of its sides. Those of other
/// users stay as they are.
///
/// # Errors
/// [`Error::Invalid`] for a variant that the flag does not have any more; [`Error::RateLimited`].
pub(super) async fn put_back_at_once(
    open: &mut Transaction,
    key: &FlagKey,
    flag: &Flag,
    (wanted, other): (Option<&Value>, Option<&Value>),
) -> Result<(), Error> {
    let all = |state: Option<&Value>| -> Vec<OverrideRecord> {
        let list = state.and_then(|state| state[OVERRIDES].as_array());
        list.into_iter().flatten().filter_map(override_in).collect()
    };
    let wanted = all(wanted);
    for one in &wanted {
        must_have(flag, &one.kind)?;
    }
    let known = open.overrides(key).await?;
    let known: BTreeMap<&str, &OverrideRecord> = known
        .iter()
        .map(|one| (one.user_id.as_str(), one))
        .collect();
    let users: BTreeSet<&str> = wanted.iter().map(|one| one.user_id.as_str()).collect();
    let other = all(other);
    let gone: Vec<&str> = other
        .iter()
        .map(|one| one.user_id.as_str())
        .filter(|user| known.contains_key(user) && !users.contains(user))
        .collect();
    let touched = users.iter().chain(&gone);
    let before: Vec<OverrideRecord> = touched
        .filter_map(|user| known.get(user).copied().cloned())
        .collect();
    put_at_once(open, key, (&wanted, &gone), &before).await
}

/// Only variants of the flag can be given to users.
fn must_have_all(flag: &Flag, wanted: &[NewOverride]) -> Result<(), Error> {
    let mut complaints = FieldErrors::default();
    for (number, one) in wanted.iter().enumerate() {
        if must_have(flag, &one.kind).is_err() && complaints.fields.len() < MOST_COMPLAINTS {
            let field = format!("{OVERRIDES}/{number}/variant");
            complaints.add(&field, NO_SUCH_VARIANT);
        }
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
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
            Override::Unreadable => "unreadable",
        },
        "reason": record.reason,
        "createdBy": record.created_by,
        "createdAt": record.created_at.map(timestamp),
    });
    if let Override::Variant(variant) = &record.kind {
        state["variant"] = json!(variant);
    }
    if record.kind == Override::Unreadable {
        state["broken"] = json!("its type is neither include nor exclude");
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
            (None, Some("unreadable")) => Override::Unreadable,
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
        (Override::Unreadable, _) => Err(Error::Conflict(
            "The override of that time could not be read; set it to include or exclude".to_owned(),
        )),
        (Override::Variant(_), _) => Err(Error::invalid_field("variant", NO_SUCH_VARIANT)),
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
        Some(wait) => Err(Error::RateLimited {
            retry_after: wait.as_secs() + 1,
        }),
        None => Ok(()),
    }
}
