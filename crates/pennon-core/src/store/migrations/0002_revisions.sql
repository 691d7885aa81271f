-- Every environment has a revision, raised in the transaction of every change to anything that
-- evaluation depends on, by the database itself: a change made by SQL or by the old service counts.
create table pennon_environments (
  environment text primary key,
  revision bigint not null,
  changed_at timestamptz not null default now()
);

-- The revision follows the clock in milliseconds but always rises. A database that was restored
-- from a backup goes on above every revision that a cache may have seen before.
-- The row stays locked until the commit, so revisions become visible in the order of commits.
-- SECURITY DEFINER: the old service's role needs no rights on our table.
create function pennon_raise_revision(changed_environment text) returns void
language sql security definer set search_path from current as $$
  insert into pennon_environments as known (environment, revision)
  values (changed_environment, floor(extract(epoch from clock_timestamp()) * 1000)::bigint)
  on conflict (environment) do update
    set revision = greatest(known.revision + 1, excluded.revision),
        changed_at = now();
$$;

create function pennon_flag_changed() returns trigger
language plpgsql security definer set search_path from current as $$
begin
  if tg_op <> 'INSERT' then
    perform pennon_raise_revision(old.environment);
  end if;
  if tg_op = 'INSERT' or (tg_op = 'UPDATE' and new.environment <> old.environment) then
    perform pennon_raise_revision(new.environment);
  end if;
  return null;
end
$$;

create trigger pennon_flag_changed
  after insert or update or delete on feature_flags
  for each row execute function pennon_flag_changed();

create function pennon_override_changed() returns trigger
language plpgsql security definer set search_path from current as $$
declare
  changed_environment text;
begin
  -- An override that goes with its flag finds no flag here; the flag's own trigger has counted it.
  for changed_environment in
    select distinct environment from feature_flags
    where id in (
      case when tg_op <> 'INSERT' then old.flag_id end,
      case when tg_op <> 'DELETE' then new.flag_id end
    )
    order by environment
  loop
    perform pennon_raise_revision(changed_environment);
  end loop;
  return null;
end
$$;

create trigger pennon_override_changed
  after insert or update or delete on feature_flag_user_overrides
  for each row execute function pennon_override_changed();

create function pennon_tables_truncated() returns trigger
language plpgsql security definer set search_path from current as $$
begin
  perform pennon_raise_revision(environment) from pennon_environments order by environment;
  return null;
end
$$;

create trigger pennon_flags_truncated
  after truncate on feature_flags
  for each statement execute function pennon_tables_truncated();

create trigger pennon_overrides_truncated
  after truncate on feature_flag_user_overrides
  for each statement execute function pennon_tables_truncated();

-- Flags that were there before.
insert into pennon_environments (environment, revision)
select distinct environment, floor(extract(epoch from clock_timestamp()) * 1000)::bigint
from feature_flags;
