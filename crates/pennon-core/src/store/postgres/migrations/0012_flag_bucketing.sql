-- The hash that orders the users of one simple flag. NULL selects that of the environment, so no flag moves a user. An
-- existing service and the previous version do not change it.

-- Other statements queue behind a waiting lock, so the timeout is short; `migrate` retries.
set local lock_timeout = '2s';

alter table feature_flags add column bucketing text
  constraint pennon_flag_bucketing_check check (bucketing in ('sha256', 'fractional'));
