-- Ramps, and counts of evaluations by the hour, which ramps compare with their required number of evaluations.

-- `flag_key` is not a foreign key, because ramps are kept after the deletion of their flag. `ramp` is JSON in the format of
-- `pennon_core::ramp::Ramp`; the other columns repeat parts of it, so that queries can filter and sort by them.
create table pennon_ramps (
  id text primary key,
  environment text not null,
  flag_key text not null,
  watched boolean not null,
  open boolean not null,
  checked_at timestamptz,
  alarms text[] not null default '{}',
  ramp json not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
-- A flag has at most one open ramp: live, or rolled back and not acknowledged.
create unique index pennon_ramps_open_idx on pennon_ramps (environment, flag_key) where open;
create index pennon_ramps_flag_idx on pennon_ramps (environment, flag_key, created_at);
-- `watched` is true while a ramp bakes or holds a step; `reconcile` checks these ramps.
create index pennon_ramps_watched_idx on pennon_ramps (checked_at) where watched;

create table pennon_evaluation_hours (
  environment text not null,
  flag_key text not null,
  variant text not null,
  hour timestamptz not null,
  count bigint not null,
  primary key (environment, flag_key, variant, hour)
);
create index pennon_evaluation_hours_hour_idx on pennon_evaluation_hours (hour);
