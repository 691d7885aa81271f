-- `migrate` creates pennon_installation before the first step. This step only records in the ledger that the table
-- exists: after it, a missing table is an error and does not mean that `migrate` has not run yet.
select from pennon_installation;
