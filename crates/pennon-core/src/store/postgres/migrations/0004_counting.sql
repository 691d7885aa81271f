-- Batches of evaluation counts that were added, so that a batch that is delivered twice is added once.
create table pennon_counted_batches (
  id text primary key,
  counted_at timestamptz not null default now()
);
create index pennon_counted_batches_time_idx on pennon_counted_batches (counted_at);
