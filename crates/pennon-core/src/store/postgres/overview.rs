//! All flags of an environment with the data of other tables that lists show.

use tokio_postgres::types::Type;

use super::PostgresStore;
use super::flags::{COLUMNS, keyed_record_of};
use super::ramps::ramp_of;
use super::statement::count;
use crate::environment::Environment;
use crate::error::Error;
use crate::snapshot::Revision;
use crate::store::{FlagOverview, FlagOverviews};

impl PostgresStore {
    pub(in crate::store) async fn flag_overviews(
        &self,
        environment: &Environment,
    ) -> Result<FlagOverviews, Error> {
        // Every joined table is read once for the whole environment. The condition for schedules is that of
        // `ScheduleRecord::is_open`, without unreadable ones.
        let statement = format!(
            "with flags as (
               select id as flag_id, {COLUMNS} from feature_flags where environment = $1
             ), overridden as (
               select flag_id, count(*) as overrides from feature_flag_user_overrides
               where flag_id in (select flag_id from flags) group by flag_id
             ), used as (
               select flag_key, max(last_at) as last_at from pennon_evaluation_counts
               where environment = $1 group by flag_key
             ), recent as (
               select flag_key, least(sum(count), 9223372036854775807)::bigint as count
               from pennon_evaluation_hours
               where environment = $1 and hour >= date_trunc('hour', now()) - interval '1 hour'
               group by flag_key
             ), ramped as (
               select flag_key, id as ramp_id, ramp::text as ramp from pennon_ramps
               where environment = $1 and open
             ), scheduled as (
               select distinct on (flag_id) flag_id, scheduled_at, updates::text as updates
               from feature_flag_schedules
               where flag_id in (select flag_id from flags)
                 and (status = 'pending'
                      or (status = 'failed' and next_retry_at is not null
                          and retry_count < max_retries))
               order by flag_id, scheduled_at, created_at nulls first, id
             )
             select known.environment_revision, flags.*, coalesce(overrides, 0) as overrides, last_at,
                    coalesce(recent.count, 0) as recent, ramp_id as id, ramp, scheduled_at, updates
             from (select (select revision from pennon_environments where environment = $1)
                     as environment_revision) as known
             left join flags on true
             left join overridden using (flag_id)
             left join used using (flag_key)
             left join recent using (flag_key)
             left join ramped using (flag_key)
             left join scheduled using (flag_id)
             order by flag_key collate \"C\""
        );
        let rows = self
            .rows(&statement, &[(&environment.as_str(), Type::TEXT)])
            .await?;
        let revision: Option<i64> = rows.first().and_then(|row| row.get("environment_revision"));
        let flags = rows.iter().filter_map(|row| {
            let (key, record) = keyed_record_of(row)?;
            let updates: Option<&str> = row.get("updates");
            let updates = updates.and_then(|text| serde_json::from_str(text).ok());
            let ramp: Option<&str> = row.get("ramp");
            Some(FlagOverview {
                key,
                record,
                overrides: count(row, "overrides"),
                last_evaluated_at: row.get("last_at"),
                recent_evaluations: count(row, "recent"),
                ramp: ramp.and_then(|_| ramp_of(row)),
                next_schedule: row.get::<_, Option<_>>("scheduled_at").zip(updates),
            })
        });
        Ok(FlagOverviews {
            revision: revision.map(Revision),
            flags: flags.collect(),
        })
    }
}
