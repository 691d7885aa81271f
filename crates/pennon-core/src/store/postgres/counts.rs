//! Counts of evaluations by flag and variant.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::FlagKey;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::statement::{Parameter, count};
use super::transaction::Transaction;
use crate::counts::{Count, Counts, MAX_VARIANT_LENGTH};
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{CountedBatch, DayCount, HourCount, Usage};

/// Records the batch and adds its counts atomically. A batch that is already recorded adds nothing. Its id is kept for
/// three days: CloudWatch delivers it again within hours, and `POST /v1/evaluation-counts` accepts counts of yesterday.
/// Rows are changed in the order of the parameters, and the counts by the hour after all others (`added` is complete
/// when its rows are counted), so that concurrent batches cannot deadlock.
const COUNT: &str = "
    with forgotten as (
      delete from pennon_counted_batches where counted_at < now() - interval '3 days'
    ), outdated as (
      delete from pennon_evaluation_hours where hour < now() - interval '14 days'
    ), fresh as (
      insert into pennon_counted_batches (id) values ($1) on conflict do nothing returning id
    ), added as (
      insert into pennon_evaluation_counts as known
        (environment, flag_key, variant, day, count, last_at)
      select given.environment, given.flag_key, given.variant, given.day::date, given.count, $7
      from fresh, unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        with ordinality as given (environment, flag_key, variant, day, count, place)
      order by given.place
      on conflict (environment, flag_key, variant, day) do update
        set count = known.count + excluded.count,
            last_at = greatest(known.last_at, excluded.last_at)
      returning 1
    ), by_the_hour as (
      insert into pennon_evaluation_hours as known (environment, flag_key, variant, hour, count)
      select given.environment, given.flag_key, given.variant, date_trunc('hour', $7),
             least(sum(given.count), 9223372036854775807)::bigint
      from fresh, unnest($2::text[], $3::text[], $4::text[], $6::bigint[])
        with ordinality as given (environment, flag_key, variant, count, place)
      where $7 >= now() - interval '14 days' and (select count(*) from added) > 0
      group by 1, 2, 3
      order by min(given.place)
      on conflict (environment, flag_key, variant, hour) do update
        set count = known.count + excluded.count
    )
    select count(*) as fresh from fresh";

/// Adds counts of a batch that the same transaction has recorded.
const ADD: &str = "
    insert into pennon_evaluation_counts as known
      (environment, flag_key, variant, day, count, last_at)
    select given.environment, given.flag_key, given.variant, given.day::date, given.count, $6
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
      with ordinality as given (environment, flag_key, variant, day, count, place)
    order by given.place
    on conflict (environment, flag_key, variant, day) do update
      set count = known.count + excluded.count,
          last_at = greatest(known.last_at, excluded.last_at)";

/// Adds the same counts by the hour.
const ADD_HOURS: &str = "
    insert into pennon_evaluation_hours as known (environment, flag_key, variant, hour, count)
    select given.environment, given.flag_key, given.variant, date_trunc('hour', $6),
           least(sum(given.count), 9223372036854775807)::bigint
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
      with ordinality as given (environment, flag_key, variant, day, count, place)
    where $6 >= now() - interval '14 days'
    group by 1, 2, 3
    order by min(given.place)
    on conflict (environment, flag_key, variant, hour) do update
      set count = known.count + excluded.count";

/// Limit on the lost entries that the log names, separately for those that [`is_countable`] and the database reject.
const MAX_NAMED: usize = 5;

/// Whether the day has the form of a date and the variant is not too long. PostgreSQL checks the date itself, but would
/// also accept `infinity`, and years that no report can contain.
fn is_countable(one: &Count<'_>) -> bool {
    let is_date = one.day.len() == 10
        && one
            .day
            .bytes()
            .enumerate()
            .all(|(place, byte)| match place {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
    is_date && one.variant.chars().count() <= MAX_VARIANT_LENGTH
}

/// Counts, as one array per column.
struct Columns<'a> {
    environments: Vec<&'a str>,
    flags: Vec<&'a str>,
    variants: Vec<&'a str>,
    days: Vec<&'a str>,
    numbers: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(counts: &[Count<'a>]) -> Self {
        let number = |one: &Count<'_>| i64::try_from(one.count).unwrap_or(i64::MAX);
        Self {
            environments: counts.iter().map(|one| one.environment).collect(),
            flags: counts.iter().map(|one| one.flag).collect(),
            variants: counts.iter().map(|one| one.variant).collect(),
            days: counts.iter().map(|one| one.day).collect(),
            numbers: counts.iter().map(number).collect(),
        }
    }

    fn parameters(&self) -> [Parameter<'_>; 5] {
        [
            (&self.environments, Type::TEXT_ARRAY),
            (&self.flags, Type::TEXT_ARRAY),
            (&self.variants, Type::TEXT_ARRAY),
            (&self.days, Type::TEXT_ARRAY),
            (&self.numbers, Type::INT8_ARRAY),
        ]
    }
}

impl PostgresStore {
    pub(in crate::store) async fn count(
        &self,
        batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<CountedBatch, Error> {
        let (mut entries, refused): (Vec<Count<'_>>, Vec<Count<'_>>) =
            counts.iter().partition(is_countable);
        // The order in which rows are locked. It is chosen here, because the parts of a rejected batch need it too, and
        // the database may compare texts by another collation.
        entries.sort_by_key(|one| (one.environment, one.flag, one.variant, one.day));
        let mut counted = self.count_batch(batch, &entries, until).await?;
        if counted.is_new {
            let why = Error::Internal(
                "its day is not a date, or the name of its variant has more than 255 characters"
                    .to_owned(),
            );
            for one in refused.iter().take(MAX_NAMED) {
                report_lost(one, &why);
            }
            let lost = refused.iter().map(|one| one.count);
            counted.lost = lost.fold(counted.lost, u64::saturating_add);
        }
        Ok(counted)
    }

    async fn count_batch(
        &self,
        batch: &str,
        entries: &[Count<'_>],
        until: SystemTime,
    ) -> Result<CountedBatch, Error> {
        let columns = Columns::of(entries);
        let mut parameters: Vec<Parameter<'_>> = vec![(&batch, Type::TEXT)];
        parameters.extend(columns.parameters());
        parameters.push((&until, Type::TIMESTAMPTZ));
        match self.rows(COUNT, &parameters).await {
            Ok(rows) => Ok(CountedBatch {
                is_new: rows.first().is_some_and(|row| count(row, "fresh") > 0),
                lost: 0,
            }),
            Err(failure @ Error::Unavailable(_)) => Err(failure),
            Err(_refused) => self.count_in_parts(batch, entries, until).await,
        }
    }

    /// Adds the counts of a batch that the database has rejected as a whole, but not the single counts that it rejects.
    /// Locks rows in the same order as [`COUNT`]. A count that is rejected only by the hour is reported as lost, too.
    async fn count_in_parts(
        &self,
        batch: &str,
        entries: &[Count<'_>],
        until: SystemTime,
    ) -> Result<CountedBatch, Error> {
        // Each count contains its environment, and no audit is written, so environment and actor are not used.
        let mut transaction = self.begin(&Environment::production(), "").await?;
        let fresh = transaction
            .rows(
                "insert into pennon_counted_batches (id) values ($1)
                 on conflict do nothing returning id",
                &[(&batch, Type::TEXT)],
            )
            .await?;
        if fresh.is_empty() {
            transaction.commit().await?;
            return Ok(CountedBatch {
                is_new: false,
                lost: 0,
            });
        }
        let mut lost = Vec::new();
        let added = transaction
            .add_in_parts(ADD, entries, until, &mut lost)
            .await?;
        transaction
            .add_in_parts(ADD_HOURS, &added, until, &mut lost)
            .await?;
        transaction.commit().await?;
        let lost = lost
            .iter()
            .fold(0_u64, |sum, one| sum.saturating_add(one.count));
        Ok(CountedBatch { is_new: true, lost })
    }

    pub(in crate::store) async fn day_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        days: u32,
    ) -> Result<Vec<DayCount>, Error> {
        // Days in UTC, independent of the time zone and date style of the session.
        let statement = "
            select to_char(day, 'YYYY-MM-DD') as day, variant, count from pennon_evaluation_counts
            where environment = $1 and flag_key = $2
              and day > (now() at time zone 'utc')::date - $3 and isfinite(day)
            order by pennon_evaluation_counts.day desc, variant";
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        let parameters: [Parameter<'_>; 3] = [
            (&environment.as_str(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&days, Type::INT4),
        ];
        let rows = self.rows(statement, &parameters).await?;
        let counts = rows.iter().map(|row| DayCount {
            day: row.get("day"),
            variant: row.get("variant"),
            count: count(row, "count"),
        });
        Ok(counts.collect())
    }

    pub(in crate::store) async fn hour_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        earlier_hours: u32,
    ) -> Result<Vec<HourCount>, Error> {
        let statement = "
            select hour, variant, count from pennon_evaluation_hours
            where environment = $1 and flag_key = $2
              and isfinite(hour) and hour >= date_trunc('hour', now()) - make_interval(hours => $3)
            order by hour desc, variant";
        let earlier_hours = i32::try_from(earlier_hours).unwrap_or(i32::MAX);
        let parameters: [Parameter<'_>; 3] = [
            (&environment.as_str(), Type::TEXT),
            (&key.as_str(), Type::TEXT),
            (&earlier_hours, Type::INT4),
        ];
        let rows = self.rows(statement, &parameters).await?;
        let counts = rows.iter().map(|row| HourCount {
            hour: row.get("hour"),
            variant: row.get("variant"),
            count: count(row, "count"),
        });
        Ok(counts.collect())
    }

    pub(in crate::store) async fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        // An overflow of one flag must not make the query fail for all flags.
        let statement = "
            select flag_key, max(last_at) as last_at,
                   least(sum(count), 9223372036854775807)::bigint as count
            from pennon_evaluation_counts where environment = $1 group by flag_key";
        let rows = self
            .rows(statement, &[(&environment.as_str(), Type::TEXT)])
            .await?;
        let usage = rows.iter().filter_map(|row| {
            let key = FlagKey::parse(row.get::<_, String>("flag_key")).ok()?;
            let usage = Usage {
                last_evaluated_at: row.get("last_at"),
                evaluations: count(row, "count"),
            };
            Some((key, usage))
        });
        Ok(usage.collect())
    }
}

impl Transaction {
    /// Adds counts by this statement, in their order: halves a rejected part until a single entry remains, which is
    /// lost. Only the database can decide what it rejects, because that depends on its encoding, its page size and the
    /// existing counts. Returns the other entries.
    async fn add_in_parts<'a>(
        &mut self,
        statement: &str,
        entries: &[Count<'a>],
        until: SystemTime,
        lost: &mut Vec<Count<'a>>,
    ) -> Result<Vec<Count<'a>>, Error> {
        let mut added = Vec::with_capacity(entries.len());
        // A stack whose top is the first part.
        let mut parts = vec![entries];
        while let Some(part) = parts.pop() {
            match self.add_counts(statement, part, until).await {
                Ok(()) => added.extend_from_slice(part),
                Err(failure @ Error::Unavailable(_)) => return Err(failure),
                Err(refused) => match part.split_at(part.len() / 2) {
                    ([], []) => {}
                    ([], [one]) => {
                        if lost.len() < MAX_NAMED {
                            report_lost(one, &refused);
                        }
                        lost.push(*one);
                    }
                    (first, rest) => parts.extend([rest, first]),
                },
            }
        }
        Ok(added)
    }

    /// Adds counts. If the database rejects them, the transaction is unchanged and can continue.
    async fn add_counts(
        &mut self,
        statement: &str,
        counts: &[Count<'_>],
        until: SystemTime,
    ) -> Result<(), Error> {
        let columns = Columns::of(counts);
        let mut parameters = columns.parameters().to_vec();
        parameters.push((&until, Type::TIMESTAMPTZ));
        self.rows("savepoint part", &[]).await?;
        let added = self.rows(statement, &parameters).await;
        if added.is_err() {
            self.rows("rollback to savepoint part", &[]).await?;
        }
        self.rows("release savepoint part", &[]).await?;
        added.map(|_no_rows| ())
    }
}

/// Logs counts that are lost. Their names come from callers and may be long or contain any character, so they are cut
/// and escaped.
fn report_lost(lost: &Count<'_>, refused: &Error) {
    let short = |name: &str| name.chars().take(64).collect::<String>();
    tracing::warn!(
        domain = "config",
        environment = ?short(lost.environment),
        flag = ?short(lost.flag),
        variant = ?short(lost.variant),
        evaluations = lost.count,
        error = ?refused,
        "a count was rejected; these evaluations are not counted"
    );
}
