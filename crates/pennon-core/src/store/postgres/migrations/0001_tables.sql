-- The tables of an existing service that Pennon replaces. If they exist, this migration leaves them and their rows
-- unchanged: until the existing service is switched off, both services use them.
do $$
begin
  if to_regclass('feature_flags') is null then
    create table feature_flags (
      id uuid primary key default gen_random_uuid(),
      flag_key text not null,
      enabled boolean not null default false,
      rollout_percentage integer not null default 0
        constraint rollout_percentage_check check (rollout_percentage between 0 and 100),
      description text,
      environment text not null default 'production',
      created_at timestamp without time zone not null default (now() at time zone 'utc'),
      updated_at timestamp without time zone not null default (now() at time zone 'utc'),
      constraint feature_flags_flag_key_environment_unique unique (flag_key, environment)
    );
    create index feature_flags_flag_key_idx on feature_flags (flag_key);
    create index feature_flags_environment_idx on feature_flags (environment);
  end if;

  if to_regclass('feature_flag_user_overrides') is null then
    create table feature_flag_user_overrides (
      id uuid primary key default gen_random_uuid(),
      flag_id uuid not null references feature_flags (id) on delete cascade,
      user_id text not null,
      override_type text not null
        constraint override_type_check check (override_type in ('include', 'exclude')),
      reason text,
      created_by text,
      created_at timestamp without time zone default (now() at time zone 'utc'),
      constraint feature_flag_user_overrides_flag_id_user_id_unique unique (flag_id, user_id)
    );
    create index feature_flag_user_overrides_flag_id_idx on feature_flag_user_overrides (flag_id);
    create index feature_flag_user_overrides_user_id_idx on feature_flag_user_overrides (user_id);
  end if;

  if to_regclass('feature_flag_schedules') is null then
    create table feature_flag_schedules (
      id uuid primary key default gen_random_uuid(),
      flag_id uuid references feature_flags (id) on delete cascade,
      scheduled_at timestamptz not null,
      status text not null default 'pending'
        constraint schedule_status_check check (status in ('pending', 'applied', 'failed', 'cancelled')),
      updates jsonb not null,
      applied_at timestamptz,
      error_message text,
      created_at timestamptz default now(),
      updated_at timestamptz default now(),
      retry_count integer not null default 0,
      max_retries integer not null default 3
        constraint max_retries_check check (max_retries between 0 and 10),
      next_retry_at timestamptz,
      last_error text,
      created_by text,
      cancelled_by text,
      cancelled_at timestamptz
    );
    create index feature_flag_schedules_flag_id_idx on feature_flag_schedules (flag_id);
    create index feature_flag_schedules_scheduled_at_idx on feature_flag_schedules (scheduled_at);
    create index feature_flag_schedules_status_idx on feature_flag_schedules (status);
    create index feature_flag_schedules_next_retry_at_idx on feature_flag_schedules (next_retry_at);
  end if;
end
$$;
