//! Environments and their settings.

use pennon_eval::{EvaluationDefaults, Settings};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::error::{Failure, unreadable};
use super::migrations::INSTALLATION;
use super::snapshot::{defaults_of, settings_of};
use super::statement::count;
use super::transaction::Transaction;
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::Revision;
use crate::store::{EnvironmentRecord, EnvironmentState, FlagRecords, SettingsRecord, Waiting};

/// Locks rows, after other transactions have released them.
const LOCK: &str = "for no key update";
/// Locks rows and leaves out those that other transactions have locked.
const LOCK_WITHOUT_WAITING: &str = "for no key update skip locked";

const SETTINGS: &str = "select coalesce(settings::text, 'null') as settings, revision
    from pennon_environment_settings where environment = $1";

impl PostgresStore {
    pub(in crate::store) async fn environments(
        &self,
    ) -> Result<Vec<(Environment, Revision)>, Error> {
        let rows = self
            .rows(
                "select environment, revision from pennon_environments order by environment",
                &[],
            )
            .await?;
        // Skips names that are invalid in a request.
        let environments = rows.iter().filter_map(|row| {
            let name = Environment::parse(row.get("environment")).ok()?;
            Some((name, Revision(row.get("revision"))))
        });
        Ok(environments.collect())
    }

    pub(in crate::store) async fn list_environments(
        &self,
    ) -> Result<Vec<EnvironmentRecord>, Error> {
        let statement = "
            select known.environment, known.revision,
                   case when own.environment is not null
                        then coalesce(own.settings::text, 'null') end as settings,
                   counted.flags, counted.archived
            from pennon_environments as known
            left join pennon_environment_settings as own
              on own.environment = known.environment
            left join lateral (
              select count(*) filter (where archived_at is null) as flags,
                     count(*) filter (where archived_at is not null) as archived
              from feature_flags as flag where flag.environment = known.environment
            ) as counted on true
            order by known.environment collate \"C\"";
        let rows = self.rows(statement, &[]).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            let Ok(environment) = Environment::parse(row.get("environment")) else {
                continue;
            };
            records.push(EnvironmentRecord {
                environment,
                revision: Revision(row.get("revision")),
                flags: count(row, "flags"),
                archived: count(row, "archived"),
                settings: settings_of(row.get("settings")),
            });
        }
        Ok(records)
    }

    /// The installation's evaluation defaults. If an earlier version has migrated the tables,
    /// [`EvaluationDefaults::Existing`] until `migrate` has stored them, so that evaluations do not change.
    pub(in crate::store) async fn evaluation_defaults(&self) -> Result<EvaluationDefaults, Error> {
        let stored = "select string_agg(distinct evaluation_defaults, ', ') as defaults
            from pennon_installation";
        self.guarded(async {
            let client = self.connections.get(Waiting::UntilTimeout).await?;
            let rows = self.query(&client, stored, &[]).await;
            let undecided = match &rows {
                Ok(_) => false,
                Err(error) => self.is_before(INSTALLATION, &client, error).await,
            };
            client.give_back();
            match rows {
                Ok(rows) => Ok(defaults_of(
                    rows.first().and_then(|row| row.get("defaults")),
                )),
                Err(_) if undecided => Ok(EvaluationDefaults::Existing),
                Err(error) => Err(Failure::of(&error)),
            }
        })
        .await
    }

    pub(in crate::store) async fn settings(
        &self,
        environment: &Environment,
    ) -> Result<SettingsRecord, Error> {
        let rows = self
            .rows(SETTINGS, &[(&environment.as_str(), Type::TEXT)])
            .await?;
        Ok(record_of(rows.first()))
    }
}

impl Transaction {
    /// A change holds the row of its flag or of the settings when a trigger locks the environment. Therefore these rows
    /// are locked first: a transaction that holds the environment and waits for one of them would deadlock.
    pub(in crate::store) async fn lock_environment(&mut self) -> Result<EnvironmentState, Error> {
        loop {
            self.rows("savepoint unlocked", &[]).await?;
            let (mut flags, mut settings, mut locked) = self.flags_and_settings(LOCK).await?;
            let revision = self.lock_revision().await?;
            let rows = self.count_flags_and_settings().await?;
            if locked != rows {
                // A flag or the settings were added after they were read. Nobody else adds any now. The environment may
                // have many flags, so the first copies are dropped before all are read again.
                drop(flags);
                (flags, settings, locked) = self.flags_and_settings(LOCK_WITHOUT_WAITING).await?;
            }
            if locked == rows {
                return Ok(EnvironmentState {
                    revision,
                    flags,
                    settings,
                });
            }
            // Another transaction is changing the new flag or settings and will need the environment: this unlocks it.
            self.rows("rollback to savepoint unlocked", &[]).await?;
        }
    }

    pub(in crate::store) async fn read_environment(&mut self) -> Result<EnvironmentState, Error> {
        let revision = self.lock_revision().await?;
        let (flags, settings, _) = self.flags_and_settings("").await?;
        Ok(EnvironmentState {
            revision,
            flags,
            settings,
        })
    }

    /// All flags, the settings, and the number of their rows. `lock` is the locking clause.
    async fn flags_and_settings(
        &mut self,
        lock: &str,
    ) -> Result<(FlagRecords, SettingsRecord, u64), Error> {
        let (flags, count) = self.all_flags(lock).await?;
        let settings = self.settings_row(lock).await?;
        let rows = count + settings.iter().len();
        Ok((flags, record_of(settings.as_ref()), rows as u64))
    }

    async fn count_flags_and_settings(&mut self) -> Result<u64, Error> {
        let statement = "select (select count(*) from feature_flags where environment = $1)
            + (select count(*) from pennon_environment_settings where environment = $1) as rows";
        let rows = self
            .rows(statement, &[(&self.environment(), Type::TEXT)])
            .await?;
        Ok(rows.first().map_or(0, |row| count(row, "rows")))
    }

    pub(in crate::store) async fn settings(&mut self) -> Result<SettingsRecord, Error> {
        Ok(record_of(self.settings_row(LOCK).await?.as_ref()))
    }

    async fn settings_row(&mut self, lock: &str) -> Result<Option<Row>, Error> {
        let statement = format!("{SETTINGS} {lock}");
        let rows = self
            .rows(&statement, &[(&self.environment(), Type::TEXT)])
            .await?;
        Ok(rows.into_iter().next())
    }

    pub(in crate::store) async fn insert_environment(
        &mut self,
        settings: &Settings,
    ) -> Result<Option<SettingsRecord>, Error> {
        if self.lock_revision().await?.is_some() {
            return Ok(None);
        }
        // An environment that does not exist cannot be locked, so a concurrent request may have found none either. The
        // later insertion waits for the commit of the first one, and then adds no row.
        let text = settings.to_stored().map_err(|error| unreadable(&error))?;
        let rows = self
            .rows(
                "insert into pennon_environment_settings (environment, settings)
                 values ($1, $2::json)
                 on conflict do nothing
                 returning settings::text as settings, revision",
                &[(&self.environment(), Type::TEXT), (&text, Type::TEXT)],
            )
            .await?;
        Ok(rows.first().map(|added| record_of(Some(added))))
    }

    pub(in crate::store) async fn write_settings(
        &mut self,
        settings: &Settings,
    ) -> Result<SettingsRecord, Error> {
        let text = settings.to_stored().map_err(|error| unreadable(&error))?;
        let rows = self
            .rows(
                "insert into pennon_environment_settings (environment, settings)
                 values ($1, $2::json)
                 on conflict (environment) do update
                   set settings = excluded.settings, updated_at = now()
                 returning settings::text as settings, revision",
                &[(&self.environment(), Type::TEXT), (&text, Type::TEXT)],
            )
            .await?;
        Ok(record_of(rows.first()))
    }

    pub(in crate::store) async fn lock_revision(&mut self) -> Result<Option<Revision>, Error> {
        let rows = self
            .rows(
                "select revision from pennon_environments where environment = $1 for update",
                &[(&self.environment(), Type::TEXT)],
            )
            .await?;
        Ok(rows.first().map(|row| Revision(row.get("revision"))))
    }

    pub(in crate::store) async fn raise_revision(&mut self) -> Result<(), Error> {
        self.rows(
            "insert into pennon_environments as known (environment, revision)
             values ($1, floor(extract(epoch from clock_timestamp()) * 1000)::bigint)
             on conflict (environment) do update
               set revision = greatest(known.revision + 1, excluded.revision), changed_at = now()",
            &[(&self.environment(), Type::TEXT)],
        )
        .await?;
        Ok(())
    }
}

fn record_of(row: Option<&Row>) -> SettingsRecord {
    match row {
        Some(row) => SettingsRecord {
            settings: settings_of(row.get("settings")),
            revision: row.get("revision"),
        },
        None => SettingsRecord::default(),
    }
}
