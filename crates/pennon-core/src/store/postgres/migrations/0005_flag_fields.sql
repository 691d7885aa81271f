-- Unknown fields of flags in imported files, kept for the export. Evaluation does not read them. An existing service and
-- the previous version do not change them.

-- Other statements queue behind a waiting lock, so the timeout is short; `migrate` retries.
set local lock_timeout = '2s';

-- `json` keeps the text unchanged: 2.0 stays 2.0, and the order of fields stays.
alter table feature_flags add column other json;
