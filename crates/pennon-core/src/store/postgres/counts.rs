//! How often which variant was given.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::FlagKey;
use tokio_postgres::types::Type;

use super::{PostgresStore, count};
use crate::counts::Counts;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::{DayCount, Usage};

/// Remembers the batch and adds its counts, both or neither. A batch that is known adds nothing.
/// Whoever hands over a batch again does so within hours, so a day is long enough to remember it.
/// Rows are touched in the order of their keys, so that two batches at once cannot stop each other.
const COUNT: &str = "
    with forgotten as (
      delete from pennon_counted_batches where counted_at < now() - interval '1 day'
    ), fresh as (
      insert into pennon_counted_batches (id) values ($1) on conflict do nothing returning id
    ), added as (
      insert into pennon_evaluation_counts as known
        (environment, flag_key, variant, day, count, last_at)
      select given.environment, given.flag_key, given.variant, given.day::date, given.count, $7
      from fresh, unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        as given (environment, flag_key, variant, day, count)
      order by 1, 2, 3, 4
      on conflict (environment, flag_key, variant, day) do update
        set count = known.count + excluded.count,
            last_at = greatest(known.last_at, excluded.last_at)
    )
    select count(*) as fresh from fresh";

impl PostgresStore {
    pub(in crate::store) async fn count(
        &self,
        batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<bool, Error> {
        let texts = |choose: fn(&crate::counts::Count<'_>) -> String| -> Vec<String> {
            counts.iter().map(|one| choose(&one)).collect()
        };
        let environments = texts(|one| one.environment.to_owned());
        let flags = texts(|one| one.flag.to_owned());
        let variants = texts(|one| one.variant.to_owned());
        let days = texts(|one| one.day.to_owned());
        let numbers: Vec<i64> = counts
            .iter()
            .map(|one| i64::try_from(one.count).unwrap_or(i64::MAX))
            .collect();
        let parameters: [super::Parameter<'_>; 7] = [
            (&batch, Type::TEXT),
            (&environments, Type::TEXT_ARRAY),
            (&flags, Type::TEXT_ARRAY),
            (&variants, Type::TEXT_ARRAY),
            (&days, Type::TEXT_ARRAY),
            (&numbers, Type::INT8_ARRAY),
            (&until, Type::TIMESTAMPTZ),
        ];
        let rows = self.rows(COUNT, &parameters).await?;
        Ok(rows.first().is_some_and(|row| count(row, "fresh") > 0))
    }

    pub(in crate::store) async fn day_counts(
        &self,
        environment: &Environment,
        key: &FlagKey,
        days: u32,
    ) -> Result<Vec<DayCount>, Error> {
        // Days are those of UTC, whatever time zone and date style the session has.
        let statement = "
            select to_char(day, 'YYYY-MM-DD') as day, variant, count from pennon_evaluation_counts
            where environment = $1 and flag_key = $2
              and day > (now() at time zone 'utc')::date - $3
            order by pennon_evaluation_counts.day desc, variant";
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        let parameters: [super::Parameter<'_>; 3] = [
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

    pub(in crate::store) async fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        let statement = "
            select flag_key, max(last_at) as last_at, sum(count)::bigint as count
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
