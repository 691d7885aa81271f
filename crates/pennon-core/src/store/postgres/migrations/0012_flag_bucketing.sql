-- The hash that orders the users of one simple flag. NULL selects that of the environment, so this step changes the
-- value of no flag for any user. An existing service and the previous version do not change the column.

-- Other statements queue behind a waiting lock, so the timeout is short; `migrate` retries.
set local lock_timeout = '2s';

alter table feature_flags add column bucketing text
  constraint pennon_flag_bucketing_check check (bucketing in ('sha256', 'fractional'));
