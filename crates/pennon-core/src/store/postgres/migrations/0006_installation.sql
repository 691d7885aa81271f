-- `migrate` creates pennon_installation before the first step. This step only records in the ledger that the
-- table exists: from here on a missing table is an error, and not a database that waits for `migrate`.
select from pennon_installation;
