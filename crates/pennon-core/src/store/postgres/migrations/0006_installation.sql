-- `migrate` creates pennon_installation before the first step. This step only records in pennon_migrations that this
-- table exists: after it, a missing table is an error and does not mean that `migrate` has not run yet.
select from pennon_installation;
