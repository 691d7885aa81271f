-- The tables of an existing service, with rows.
create table feature_flags (
  id uuid primary key default gen_random_uuid() not null,
  flag_key text not null,
  enabled boolean default false not null,
  rollout_percentage integer default 0 not null,
  description text,
  environment text default 'production' not null,
  created_at timestamp default now() not null,
  updated_at timestamp default now() not null,
  constraint rollout_percentage_check check (rollout_percentage >= 0 and rollout_percentage <= 100)
);
create unique index feature_flags_key_env on feature_flags (flag_key, environment);
create index old_flag_key_idx on feature_flags (flag_key);
create index old_environment_idx on feature_flags (environment);
create table feature_flag_user_overrides (
  id uuid primary key default gen_random_uuid() not null,
  flag_id uuid not null references feature_flags (id) on delete cascade,
  user_id text not null,
  override_type text not null check (override_type in ('include', 'exclude')),
  reason text,
  created_by text,
  created_at timestamp default now(),
  unique (flag_id, user_id)
);
create index old_overrides_flag_idx on feature_flag_user_overrides (flag_id);
create index old_overrides_user_idx on feature_flag_user_overrides (user_id);
create table feature_flag_schedules (
  id uuid primary key default gen_random_uuid() not null,
  flag_id uuid references feature_flags (id) on delete cascade,
  scheduled_at timestamptz not null,
  status text default 'pending' not null check (status in ('pending', 'applied', 'failed', 'cancelled')),
  updates jsonb not null,
  applied_at timestamptz,
  error_message text,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  retry_count integer default 0 not null,
  max_retries integer default 3 not null check (max_retries between 0 and 10),
  next_retry_at timestamptz,
  last_error text,
  created_by text,
  cancelled_by text,
  cancelled_at timestamptz
);
create index old_schedules_flag_idx on feature_flag_schedules (flag_id);
create index old_schedules_scheduled_idx on feature_flag_schedules (scheduled_at);
create index old_schedules_status_idx on feature_flag_schedules (status);
create index old_schedules_retry_idx on feature_flag_schedules (next_retry_at);
insert into feature_flags (flag_key, enabled, rollout_percentage, environment) values
  ('old-off', false, 100, 'production'),
  ('old-rollout', true, 50, 'production'),
  ('old-rollout', true, 100, 'staging');
insert into feature_flag_user_overrides (flag_id, user_id, override_type, reason)
  select id, name, kind, 'from before'
  from feature_flags, (values ('alice', 'exclude'), ('bob', 'include')) as named (name, kind)
  where flag_key = 'old-rollout' and environment = 'production';
insert into feature_flag_schedules (flag_id, scheduled_at, updates)
  select id, now() + interval '1 day', '{"enabled": true}'
  from feature_flags where flag_key = 'old-off';
