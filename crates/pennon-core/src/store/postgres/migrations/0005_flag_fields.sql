-- Fields of a flag in an imported file that mean nothing to Pennon, kept for the export. Evaluation does not
-- read them. The old service, and the version before, leave them alone.

-- While this waits, everybody else waits behind it, so it does not wait for long; whoever runs this tries
-- again.
set local lock_timeout = '2s';

-- `json` keeps a text as it came: 2.0 stays 2.0, and the order of fields stays.
alter table feature_flags add column other json;
