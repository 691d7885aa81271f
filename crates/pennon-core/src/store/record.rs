//! Records of the store, for the admin API.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pennon_eval::{Flag, FlagKey, Override, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::environment::Environment;
use crate::key_kind::KeyKind;
use crate::ramp::Ramp;
use crate::snapshot::Revision;
use crate::webhooks::{Destination, Webhook};

/// A flag as the admin API returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagRecord {
    /// The flag without its overrides, which are read separately because there may be many.
    pub flag: Flag,
    /// When it was archived.
    pub archived_at: Option<SystemTime>,
    /// Changes with every change of the flag, but not of its overrides.
    pub revision: i64,
    /// When it was created, or first read from `flags.json`. Unknown for a flag that was archived before it was read.
    pub created_at: Option<SystemTime>,
    /// When it was last changed, or a change of it was read from `flags.json`. May be unknown too.
    pub updated_at: Option<SystemTime>,
}

/// An override of a flag for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideRecord {
    /// The id of the user.
    pub user_id: String,
    /// Its effect.
    pub kind: Override,
    /// The reason, for other editors.
    pub reason: Option<String>,
    /// The editor who last set it.
    pub created_by: Option<String>,
    /// When it was first set.
    pub created_at: Option<SystemTime>,
}

/// A page of the overrides of a flag, and the revision of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverridePage {
    /// Newest first.
    pub overrides: Page<OverrideRecord>,
    /// A hash of the users, effects and reasons of all overrides of the flag.
    pub revision: i64,
}

/// The settings of an environment, and their own revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsRecord {
    /// The settings.
    pub settings: Settings,
    /// Changes with every change of the settings; 0 before the first one.
    pub revision: i64,
}

/// The flags and settings of an environment at one moment.
#[derive(Debug, Clone)]
pub struct EnvironmentState {
    /// Its revision; `None` if it does not exist.
    pub revision: Option<Revision>,
    /// All its flags, including archived ones.
    pub flags: FlagRecords,
    /// Its settings.
    pub settings: SettingsRecord,
}

/// An environment in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRecord {
    /// Its name.
    pub environment: Environment,
    /// The revision of its snapshot.
    pub revision: Revision,
    /// The number of flags in use.
    pub flags: u64,
    /// The number of archived flags.
    pub archived: u64,
    /// Its settings.
    pub settings: Settings,
}

/// An API key as the admin API returns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// The id that admins refer to; not a secret.
    pub id: String,
    /// Which kind of client uses it.
    pub kind: KeyKind,
    /// Whether its row is invalid. Such a key is rejected.
    #[serde(default, skip_serializing)]
    pub unreadable: bool,
    /// Its purpose.
    pub name: String,
    /// When it was created.
    #[serde(default, with = "crate::timestamp::optional")]
    pub created_at: Option<SystemTime>,
    /// The admin who created it.
    #[serde(default)]
    pub created_by: Option<String>,
    /// When it was revoked.
    #[serde(default, with = "crate::timestamp::optional")]
    pub revoked_at: Option<SystemTime>,
    /// The day of its last use (UTC), `YYYY-MM-DD`. Stored separately, because a change of a key
    /// would raise the revision of its environment.
    #[serde(default, skip_serializing)]
    pub last_used_on: Option<String>,
}

/// The usage of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// When it was last evaluated.
    pub last_evaluated_at: Option<SystemTime>,
    /// The number of counted evaluations.
    pub evaluations: u64,
}

/// A flag in a list of all flags, with the number of its overrides, its usage, its ramp and its next schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagOverview {
    /// The key of the flag.
    pub key: FlagKey,
    /// The flag, archived or not.
    pub record: FlagRecord,
    /// The number of its overrides.
    pub overrides: u64,
    /// When it was last evaluated.
    pub last_evaluated_at: Option<SystemTime>,
    /// The evaluations in this hour of the clock and the one before.
    pub recent_evaluations: u64,
    /// Its open ramp: live, or rolled back and not acknowledged. `None` also for an unreadable one.
    pub ramp: Option<Ramp>,
    /// Its next scheduled change: the time and the fields.
    pub next_schedule: Option<(SystemTime, Value)>,
}

/// All flags of an environment, and its revision.
#[derive(Debug, Clone, PartialEq)]
pub struct FlagOverviews {
    /// The revision of the environment; `None` if it does not exist.
    pub revision: Option<Revision>,
    /// Archived flags included, by key.
    pub flags: Vec<FlagOverview>,
}

/// Change events that wait for EventBridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Their number.
    pub events: u64,
    /// The age of the oldest one.
    pub age: Duration,
}

/// The result of adding a batch of counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedBatch {
    /// Whether the batch was new; a known batch is ignored.
    pub is_new: bool,
    /// The evaluations whose counts the store rejects, for example because of a name that it cannot store.
    pub lost: u64,
}

/// The count of a variant of a flag on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCount {
    /// `YYYY-MM-DD`, in UTC.
    pub day: String,
    /// The variant; empty for the application's own default.
    pub variant: String,
    /// The number of evaluations.
    pub count: u64,
}

/// The count of a variant of a flag in one hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourCount {
    /// The beginning of the hour.
    pub hour: SystemTime,
    /// The variant; empty for the application's own default.
    pub variant: String,
    /// The number of evaluations.
    pub count: u64,
}

/// A scheduled change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRecord {
    /// Its id.
    pub id: String,
    /// The flag that it changes.
    pub flag_key: FlagKey,
    /// When it is due.
    #[serde(with = "crate::timestamp::required")]
    pub scheduled_at: SystemTime,
    /// Its status.
    pub status: ScheduleStatus,
    /// `enabled`, `rolloutPercentage` or both.
    pub updates: Value,
    /// When it was applied.
    #[serde(default, with = "crate::timestamp::optional")]
    pub applied_at: Option<SystemTime>,
    /// Why it has failed permanently.
    #[serde(default)]
    pub error_message: Option<String>,
    /// The editor who created it.
    #[serde(default)]
    pub created_by: Option<String>,
    /// The editor who cancelled it.
    #[serde(default)]
    pub cancelled_by: Option<String>,
    /// Why the stored schedule is unreadable. It cannot be applied, only cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// When it was cancelled.
    #[serde(default, with = "crate::timestamp::optional")]
    pub cancelled_at: Option<SystemTime>,
    /// When it was created.
    #[serde(default, with = "crate::timestamp::optional")]
    pub created_at: Option<SystemTime>,
    /// The number of retries so far.
    #[serde(default)]
    pub retry_count: i32,
    /// The limit on retries.
    #[serde(default)]
    pub max_retries: i32,
    /// When the next retry is due.
    #[serde(default, with = "crate::timestamp::optional")]
    pub next_retry_at: Option<SystemTime>,
    /// The error of the last attempt.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// The status of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStatus {
    /// It is not applied yet.
    Pending,
    /// It was applied.
    Applied,
    /// It has failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// The stored status is unknown.
    #[serde(other)]
    Unreadable,
}

impl ScheduleRecord {
    /// Whether the schedule sets the rollout percentage.
    #[must_use]
    pub fn sets_rollout_percentage(&self) -> bool {
        self.updates.get("rolloutPercentage").is_some()
    }

    /// Whether it may still be applied or cancelled. A schedule that Pennon marks as failed has no retry left, but one
    /// that another service marks as failed can have retries left.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.status {
            ScheduleStatus::Pending | ScheduleStatus::Unreadable => true,
            ScheduleStatus::Failed => {
                self.next_retry_at.is_some() && self.retry_count < self.max_retries
            }
            ScheduleStatus::Applied | ScheduleStatus::Cancelled => false,
        }
    }

    /// The schedule after its cancellation by this actor, now.
    #[must_use]
    pub fn cancelled(&self, by: &str) -> Self {
        Self {
            status: ScheduleStatus::Cancelled,
            cancelled_by: Some(by.to_owned()),
            cancelled_at: Some(SystemTime::now()),
            next_retry_at: None,
            ..self.clone()
        }
    }

    /// Schedules are applied in this order: of two for the same time, the one that was created last wins.
    #[must_use]
    pub fn order(&self) -> (SystemTime, Option<SystemTime>) {
        (self.scheduled_at, self.created_at)
    }

    /// Whether it is due.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let from = self.next_retry_at.unwrap_or(self.scheduled_at);
        self.is_open()
            && self.status != ScheduleStatus::Unreadable
            && self.scheduled_at <= now
            && from <= now
    }
}

/// A reference to a due schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedule {
    /// The environment of its flag.
    pub environment: Environment,
    /// Its flag.
    pub key: FlagKey,
    /// Its id.
    pub id: String,
}

/// A webhook that one run of `reconcile` has leased: no other run sends to it until the lease ends.
#[derive(Debug)]
pub struct LeasedWebhook {
    /// Its environment.
    pub environment: Environment,
    /// The webhook.
    pub webhook: Webhook,
    /// Its URL and secret.
    pub destination: Destination,
    /// The end of the lease.
    pub until: SystemTime,
}

/// The actions that the audit records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A flag was created.
    CreateFlag,
    /// A flag was changed.
    UpdateFlag,
    /// A flag was archived.
    ArchiveFlag,
    /// A flag was restored.
    RestoreFlag,
    /// An archived flag was deleted.
    DeleteFlag,
    /// A flag was reverted to an earlier state.
    RevertFlag,
    /// A flag was changed by an import.
    ImportFlag,
    /// A flag was copied from another environment.
    CopyFlag,
    /// A schedule changed a flag.
    ScheduledUpdate,
    /// A step of a ramp changed a flag.
    RampStep,
    /// A ramp rolled a flag back.
    RampRollback,
    /// A ramp was created.
    CreateRamp,
    /// A ramp changed its state but not the flag.
    ChangeRamp,
    /// A user's override was set or replaced.
    SetOverride,
    /// A user's override was removed.
    DeleteOverride,
    /// Overrides of several users were set or replaced, and perhaps others removed, at once.
    SetOverrides,
    /// Overrides of several users were removed at once.
    DeleteOverrides,
    /// A schedule was created.
    CreateSchedule,
    /// A schedule was cancelled.
    CancelSchedule,
    /// A schedule has failed permanently.
    FailSchedule,
    /// An environment was created.
    CreateEnvironment,
    /// An environment's settings were changed.
    ChangeSettings,
    /// The cache entry of an environment was invalidated by an admin.
    Purge,
    /// An API key was created.
    CreateKey,
    /// An API key was revoked.
    RevokeKey,
    /// A webhook was created.
    CreateWebhook,
    /// A webhook was disabled after failures.
    DisableWebhook,
    /// A disabled webhook was enabled.
    EnableWebhook,
    /// A webhook was deleted.
    DeleteWebhook,
}

impl Action {
    /// Its name in the audit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateFlag => "flag.create",
            Self::UpdateFlag => "flag.update",
            Self::ArchiveFlag => "flag.archive",
            Self::RestoreFlag => "flag.restore",
            Self::DeleteFlag => "flag.delete",
            Self::RevertFlag => "flag.revert",
            Self::ImportFlag => "flag.import",
            Self::CopyFlag => "flag.copy",
            Self::ScheduledUpdate => "flag.schedule",
            Self::RampStep => "flag.ramp",
            Self::RampRollback => "flag.rollback",
            Self::CreateRamp => "ramp.create",
            Self::ChangeRamp => "ramp.change",
            Self::SetOverride => "override.set",
            Self::DeleteOverride => "override.delete",
            Self::SetOverrides => "overrides.set",
            Self::DeleteOverrides => "overrides.delete",
            Self::CreateSchedule => "schedule.create",
            Self::CancelSchedule => "schedule.cancel",
            Self::FailSchedule => "schedule.fail",
            Self::CreateEnvironment => "environment.create",
            Self::ChangeSettings => "environment.settings",
            Self::Purge => "environment.purge",
            Self::CreateKey => "key.create",
            Self::RevokeKey => "key.revoke",
            Self::CreateWebhook => "webhook.create",
            Self::DisableWebhook => "webhook.disable",
            Self::EnableWebhook => "webhook.enable",
            Self::DeleteWebhook => "webhook.delete",
        }
    }
}

/// An entry of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Rises with every entry.
    pub id: i64,
    /// The environment.
    pub environment: String,
    /// The flag; `None` for an entry about the environment.
    pub flag_key: Option<String>,
    /// The name of an [`Action`]; newer versions may have more.
    pub action: String,
    /// The actor: a token's `sub`, or the part of Pennon that made the change, such as `schedule:<id>`.
    pub actor: String,
    /// The time of the change.
    #[serde(with = "crate::timestamp::required")]
    pub at: SystemTime,
    /// The state before the change.
    pub before: Option<Value>,
    /// The state after the change.
    pub after: Option<Value>,
    /// Why a stored state is unreadable, and therefore missing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// The new state of a flag.
#[derive(Debug, Clone, Copy)]
pub struct NewState<'a> {
    /// The key of the flag.
    pub key: &'a FlagKey,
    /// The new flag. Overrides stay as they are.
    pub flag: &'a Flag,
    /// Whether it is archived.
    pub archived: bool,
}

/// A change of one flag, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedChange {
    /// The key of the flag.
    pub key: FlagKey,
    /// The state before the change.
    pub before: Option<Value>,
    /// The state after the change.
    pub after: Option<Value>,
}

/// The page of a list that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// From 1.
    pub number: u32,
    /// Entries per page.
    pub size: u32,
}

impl PageRequest {
    /// The number of entries before this page.
    #[must_use]
    pub fn offset(self) -> i64 {
        i64::from(self.number.saturating_sub(1)) * i64::from(self.size)
    }

    /// Returns the entries of a list that are on this page.
    #[must_use]
    pub fn cut<T>(self, all: Vec<T>) -> Vec<T> {
        let offset = usize::try_from(self.offset()).unwrap_or(usize::MAX);
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        all.into_iter().skip(offset).take(size).collect()
    }
}

/// A page, and the length of the whole list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries on the page.
    pub items: Vec<T>,
    /// The number of entries on all pages.
    pub total: u64,
}

/// A query for a list of flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagQuery {
    /// A part of the key or the description, ignoring case; empty for all flags.
    pub search: String,
    /// Whether to list archived flags instead of those in use.
    pub archived: bool,
    /// The page.
    pub page: PageRequest,
}

/// Flags of an environment by key.
pub type FlagRecords = BTreeMap<FlagKey, FlagRecord>;
