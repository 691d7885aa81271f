//! What the store keeps beside what evaluation needs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::{Flag, FlagKey, Override, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::environment::Environment;
use crate::snapshot::{KeyKind, Revision};

/// A flag as admins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagRecord {
    /// The flag without its overrides, which may be many and have questions of their own.
    pub flag: Flag,
    /// Since when nobody gets it any more.
    pub archived_at: Option<SystemTime>,
    /// Raised by every change to the flag itself; overrides have no part in it.
    pub revision: i64,
    /// Unknown for a flag that somebody wrote into a file.
    pub created_at: Option<SystemTime>,
    /// Unknown for a flag that somebody wrote into a file.
    pub updated_at: Option<SystemTime>,
}

/// A flag's exception for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideRecord {
    /// Whom it is about.
    pub user_id: String,
    /// What it does.
    pub kind: Override,
    /// Why there is one.
    pub reason: Option<String>,
    /// The admin who last set it.
    pub created_by: Option<String>,
    /// When there first was one for this user.
    pub created_at: Option<SystemTime>,
}

/// A page of a flag's overrides, and the state of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverridePage {
    /// Newest first.
    pub overrides: Paged<OverrideRecord>,
    /// Another number whenever an override is another; not a time, and in no order.
    pub revision: i64,
}

/// The settings of an environment, and their own revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsRecord {
    /// The settings.
    pub settings: Settings,
    /// Raised by every change to them; 0 while nobody has made one.
    pub revision: i64,
}

/// An environment in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentRecord {
    /// Its name.
    pub environment: Environment,
    /// The revision of all that evaluation depends on.
    pub revision: Revision,
    /// Flags that are not archived.
    pub flags: u64,
    /// Flags that are.
    pub archived: u64,
    /// What holds for all of its flags.
    pub settings: Settings,
}

/// An API key as admins see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// What admins call it by; no secret.
    pub id: String,
    /// Who uses it.
    pub kind: KeyKind,
    /// Its row makes no sense, so that it opens nothing.
    #[serde(default, skip_serializing)]
    pub unreadable: bool,
    /// What for.
    pub name: String,
    /// When it came into being.
    #[serde(default, with = "crate::timestamp::optional")]
    pub created_at: Option<SystemTime>,
    /// The admin who created it.
    #[serde(default)]
    pub created_by: Option<String>,
    /// Since when it opens nothing any more.
    #[serde(default, with = "crate::timestamp::optional")]
    pub revoked_at: Option<SystemTime>,
}

/// How a flag is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// When somebody last got a value of it.
    pub last_evaluated_at: Option<SystemTime>,
    /// How often, as long as anybody counts.
    pub evaluations: u64,
}

/// What became of a batch of counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountedBatch {
    /// Whether the batch was added. One that was added before adds nothing.
    pub is_new: bool,
    /// Evaluations whose counts the store refuses, for instance because of a name that it cannot keep.
    pub lost: u64,
}

/// How often a variant of a flag was given on one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayCount {
    /// `YYYY-MM-DD`, in UTC.
    pub day: String,
    /// The variant; empty for the code's own default.
    pub variant: String,
    /// How often.
    pub count: u64,
}

/// A change that is to be made later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRecord {
    /// Names it.
    pub id: String,
    /// Of which flag.
    pub flag_key: FlagKey,
    /// When it is to be made.
    #[serde(with = "crate::timestamp::required")]
    pub scheduled_at: SystemTime,
    /// What has become of it.
    pub status: ScheduleStatus,
    /// `enabled`, `rolloutPercentage` or both.
    pub updates: Value,
    /// When it was made.
    #[serde(default, with = "crate::timestamp::optional")]
    pub applied_at: Option<SystemTime>,
    /// Why it has failed for good.
    #[serde(default)]
    pub error_message: Option<String>,
    /// The admin who planned it.
    #[serde(default)]
    pub created_by: Option<String>,
    /// The admin who called it off.
    #[serde(default)]
    pub cancelled_by: Option<String>,
    /// What is wrong with what is stored. Then the change cannot be made, only cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// When that was.
    #[serde(default, with = "crate::timestamp::optional")]
    pub cancelled_at: Option<SystemTime>,
    /// When it was planned.
    #[serde(default, with = "crate::timestamp::optional")]
    pub created_at: Option<SystemTime>,
    /// How often it was tried again.
    #[serde(default)]
    pub retry_count: i32,
    /// How often it may be.
    #[serde(default)]
    pub max_retries: i32,
    /// When it is tried again.
    #[serde(default, with = "crate::timestamp::optional")]
    pub next_retry_at: Option<SystemTime>,
    /// Why it has failed last.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// What has become of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStatus {
    /// Nothing yet.
    Pending,
    /// It was made.
    Applied,
    /// It could not be made.
    Failed,
    /// It was called off.
    Cancelled,
    /// What is stored is none of these.
    #[serde(other)]
    Unreadable,
}

impl ScheduleRecord {
    /// Whether the schedule changes the rollout percentage.
    #[must_use]
    pub fn plans_a_percentage(&self) -> bool {
        self.updates.get("rolloutPercentage").is_some()
    }

    /// Whether it may still be made, and so can be cancelled. An existing service calls one failed
    /// that it will try again.
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

    /// Whether it is to be made now.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let from = self.next_retry_at.unwrap_or(self.scheduled_at);
        self.is_open()
            && self.status != ScheduleStatus::Unreadable
            && self.scheduled_at <= now
            && from <= now
    }
}

/// Where a schedule is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedule {
    /// The environment of its flag.
    pub environment: Environment,
    /// Its flag.
    pub key: FlagKey,
    /// Its name.
    pub id: String,
}

/// What an admin can do, as the audit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A flag came into being.
    CreateFlag,
    /// A flag was changed.
    UpdateFlag,
    /// A flag was taken out of use.
    ArchiveFlag,
    /// A flag was taken back into use.
    RestoreFlag,
    /// An archived flag was removed for good.
    DeleteFlag,
    /// A flag was put back to an earlier state.
    RevertFlag,
    /// A flag was changed by an import.
    ImportFlag,
    /// A schedule changed a flag.
    ScheduledUpdate,
    /// A step of a ramp changed a flag.
    RampStep,
    /// A ramp took a flag back.
    RampRollback,
    /// A ramp was created.
    CreateRamp,
    /// A ramp changed its state and left the flag as it is.
    ChangeRamp,
    /// A user's override was set or replaced.
    SetOverride,
    /// A user's override was removed.
    DeleteOverride,
    /// Overrides of several users were set or replaced, and perhaps others removed, at once.
    SetOverrides,
    /// Overrides of several users were removed at once.
    DeleteOverrides,
    /// A change was planned.
    CreateSchedule,
    /// A planned change was called off.
    CancelSchedule,
    /// A planned change could not be made.
    FailSchedule,
    /// An environment came into being.
    CreateEnvironment,
    /// An environment's settings were changed.
    ChangeSettings,
    /// Every cached copy of an environment was made invalid.
    Purge,
    /// An API key came into being.
    CreateKey,
    /// An API key was revoked.
    RevokeKey,
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
        }
    }
}

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Rises with every entry.
    pub id: i64,
    /// Where.
    pub environment: String,
    /// Which flag, unless it is about the environment as a whole.
    pub flag_key: Option<String>,
    /// What was done, in the words of [`Action`]; a newer version may have more of them.
    pub action: String,
    /// Who: a token's `sub`, or `schedule:` and an id.
    pub actor: String,
    /// When.
    #[serde(with = "crate::timestamp::required")]
    pub at: SystemTime,
    /// What was there before.
    pub before: Option<Value>,
    /// What is there since.
    pub after: Option<Value>,
    /// What is wrong with a state that is stored, and therefore missing here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// A flag as it is to be from now on.
#[derive(Debug, Clone, Copy)]
pub struct NewState<'a> {
    /// Which.
    pub key: &'a FlagKey,
    /// What it becomes. Overrides stay as they are.
    pub flag: &'a Flag,
    /// Whether nobody gets it any more.
    pub archived: bool,
}

/// What the audit is to tell of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStep {
    /// Which.
    pub key: FlagKey,
    /// What was there before.
    pub before: Option<Value>,
    /// What is there since.
    pub after: Option<Value>,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub number: u32,
    /// Entries on each.
    pub size: u32,
}

impl Page {
    /// How many entries come before it.
    #[must_use]
    pub fn offset(self) -> i64 {
        i64::from(self.number.saturating_sub(1)) * i64::from(self.size)
    }

    /// This part of a list.
    #[must_use]
    pub fn cut<T>(self, all: Vec<T>) -> Vec<T> {
        let offset = usize::try_from(self.offset()).unwrap_or(usize::MAX);
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        all.into_iter().skip(offset).take(size).collect()
    }
}

/// A page, and how long the whole list is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    /// What is on the page.
    pub items: Vec<T>,
    /// On all pages together.
    pub total: u64,
}

/// Which flags an admin wants listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagQuery {
    /// A part of key or description, in any case; empty for all.
    pub search: String,
    /// Archived ones instead of those in use.
    pub archived: bool,
    /// Which of them.
    pub page: Page,
}

/// Every flag of an environment, archived ones included.
pub type FlagRecords = BTreeMap<FlagKey, FlagRecord>;
