-- Typed definitions, archived flags, overrides that name a variant, settings of environments, API keys, the audit, and
-- counts of evaluations. All changes are additive: an existing service and the previous version keep running during and
-- after the migration.

-- Locks both tables at once. Other statements queue behind a waiting lock, so the timeout is short; `migrate` retries.
set local lock_timeout = '2s';
lock table feature_flags, feature_flag_user_overrides in access exclusive mode;

-- `json` keeps the text unchanged: 2.0 stays 2.0, and the order of variants stays.
alter table feature_flags
  add column definition json,
  add column salt text,
  add column archived_at timestamptz,
  add column revision bigint not null default 0;

-- Applies only to an include. There is no constraint, because an existing service may change an include to an exclude.
alter table feature_flag_user_overrides
  add column variant text;

-- Settings of an environment, as JSON in the format of `pennon_eval::Settings`. Without a row, the defaults apply.
create table pennon_environment_settings (
  environment text primary key,
  settings json not null default '{}',
  revision bigint not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- Only the hash of a key is stored: the SHA-256 of the whole key, in hexadecimal.
create table pennon_api_keys (
  id uuid primary key default gen_random_uuid(),
  environment text not null,
  kind text not null constraint pennon_key_kind_check check (kind in ('server', 'client')),
  name text not null,
  hash text not null unique constraint pennon_key_hash_check check (hash ~ '^[0-9a-f]{64}$'),
  created_at timestamptz not null default now(),
  created_by text not null,
  revoked_at timestamptz,
  revoked_by text
);
create index pennon_api_keys_environment_idx on pennon_api_keys (environment);

-- Entries are written in the transaction of their change. `flag_key` is not a foreign key, because the audit of a flag is
-- kept after its deletion.
create table pennon_audit (
  id bigint generated always as identity primary key,
  environment text not null,
  flag_key text,
  action text not null,
  actor text not null,
  at timestamptz not null default clock_timestamp(),
  before json,
  after json
);
create index pennon_audit_environment_idx on pennon_audit (environment, id);
create index pennon_audit_flag_idx on pennon_audit (environment, flag_key, id);

create table pennon_evaluation_counts (
  environment text not null,
  flag_key text not null,
  variant text not null,
  day date not null,
  count bigint not null,
  last_at timestamptz not null default now(),
  primary key (environment, flag_key, variant, day)
);

-- The revision of a row, for `If-Match`. Every change of the row raises it, also by an existing service. It is the clock in
-- microseconds, so that a flag that is deleted and created again has a higher revision. Until the year 2255 it stays
-- below 2^53, which JSON readers represent exactly.
create function pennon_touch_row() returns trigger language plpgsql as $$
begin
  new.revision := floor(extract(epoch from clock_timestamp()) * 1000000)::bigint;
  if tg_op = 'UPDATE' and new.revision <= old.revision then
    new.revision := old.revision + 1;
  end if;
  return new;
end
$$;
do $$
begin
  execute format(
    'alter function pennon_touch_row() set search_path = %I, pg_temp', current_schema()
  );
  revoke execute on function pennon_touch_row() from public;
end
$$;

create trigger pennon_flags_touched before insert or update on feature_flags
  for each row execute function pennon_touch_row();
create trigger pennon_settings_touched before insert or update on pennon_environment_settings
  for each row execute function pennon_touch_row();

-- Settings and keys are part of the snapshot, so they raise the revision of the environment. The functions for flags can
-- be reused, because they only use the column `environment`.
create trigger pennon_settings_inserted after insert on pennon_environment_settings
  referencing new table as new_rows
  for each statement execute function pennon_flags_inserted();
create trigger pennon_settings_updated after update on pennon_environment_settings
  referencing old table as old_rows new table as new_rows
  for each statement execute function pennon_flags_updated();
create trigger pennon_settings_deleted after delete on pennon_environment_settings
  referencing old table as old_rows
  for each statement execute function pennon_flags_deleted();
create trigger pennon_settings_truncated after truncate on pennon_environment_settings
  for each statement execute function pennon_truncated();

create trigger pennon_keys_inserted after insert on pennon_api_keys
  referencing new table as new_rows
  for each statement execute function pennon_flags_inserted();
create trigger pennon_keys_updated after update on pennon_api_keys
  referencing old table as old_rows new table as new_rows
  for each statement execute function pennon_flags_updated();
create trigger pennon_keys_deleted after delete on pennon_api_keys
  referencing old table as old_rows
  for each statement execute function pennon_flags_deleted();
create trigger pennon_keys_truncated after truncate on pennon_api_keys
  for each statement execute function pennon_truncated();
