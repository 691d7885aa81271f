-- Every environment has a revision. Triggers raise it in the transaction of every change that evaluation depends on, so
-- changes by SQL and by an existing service are included.

-- Locks both tables together, before any change, because the existing service keeps running. `migrate` retries if
-- transactions of that service hold conflicting locks for longer than this.
set local lock_timeout = '5s';
lock table feature_flags, feature_flag_user_overrides in share row exclusive mode;

create table pennon_environments (
  environment text primary key,
  revision bigint not null,
  changed_at timestamptz not null default now()
);

-- The revision is the clock in milliseconds, or the previous revision plus one if that is higher. So the first
-- change of an environment after a restore from a backup raises its revision above those in caches.
-- The rows stay locked until the commit, so revisions become visible in the order of commits. They are locked in the
-- order of their names, so that concurrent statements cannot deadlock.
create function pennon_raise_revisions(changed text[]) returns void
language sql security definer as $$
  insert into pennon_environments as known (environment, revision)
  select environment, floor(extract(epoch from clock_timestamp()) * 1000)::bigint
  from (select distinct unnest(changed) as environment) as each_once
  order by environment
  on conflict (environment) do update
    set revision = greatest(known.revision + 1, excluded.revision),
        changed_at = now();
$$;

create function pennon_flags_inserted() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(array(select environment from new_rows));
  return null;
end
$$;

create function pennon_flags_updated() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(
    array(select environment from old_rows union select environment from new_rows)
  );
  return null;
end
$$;

create function pennon_flags_deleted() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(array(select environment from old_rows));
  return null;
end
$$;

create function pennon_overrides_inserted() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(
    array(select environment from feature_flags where id in (select flag_id from new_rows))
  );
  return null;
end
$$;

create function pennon_overrides_updated() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(
    array(
      select environment from feature_flags
      where id in (select flag_id from old_rows union select flag_id from new_rows)
    )
  );
  return null;
end
$$;

-- For an override that is deleted with its flag, this finds no flag; the trigger of the flag raises the revision.
create function pennon_overrides_deleted() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(
    array(select environment from feature_flags where id in (select flag_id from old_rows))
  );
  return null;
end
$$;

create function pennon_truncated() returns trigger language plpgsql security definer as $$
begin
  perform pennon_raise_revisions(array(select environment from pennon_environments));
  return null;
end
$$;

-- SECURITY DEFINER, so that the role of an existing service needs no privileges on `pennon_environments`. Therefore the
-- search path is fixed, so that callers cannot choose another one, and only triggers may call the functions. Step 13
-- also removes the schema of the tables from it.
do $$
declare
  function_name text;
begin
  foreach function_name in array array[
    'pennon_raise_revisions(text[])',
    'pennon_flags_inserted()', 'pennon_flags_updated()', 'pennon_flags_deleted()',
    'pennon_overrides_inserted()', 'pennon_overrides_updated()', 'pennon_overrides_deleted()',
    'pennon_truncated()'
  ] loop
    execute format(
      'alter function %s set search_path = %I, pg_temp', function_name, current_schema()
    );
    execute format('revoke execute on function %s from public', function_name);
  end loop;
end
$$;

create trigger pennon_flags_inserted after insert on feature_flags
  referencing new table as new_rows
  for each statement execute function pennon_flags_inserted();
create trigger pennon_flags_updated after update on feature_flags
  referencing old table as old_rows new table as new_rows
  for each statement execute function pennon_flags_updated();
create trigger pennon_flags_deleted after delete on feature_flags
  referencing old table as old_rows
  for each statement execute function pennon_flags_deleted();
create trigger pennon_flags_truncated after truncate on feature_flags
  for each statement execute function pennon_truncated();

create trigger pennon_overrides_inserted after insert on feature_flag_user_overrides
  referencing new table as new_rows
  for each statement execute function pennon_overrides_inserted();
create trigger pennon_overrides_updated after update on feature_flag_user_overrides
  referencing old table as old_rows new table as new_rows
  for each statement execute function pennon_overrides_updated();
create trigger pennon_overrides_deleted after delete on feature_flag_user_overrides
  referencing old table as old_rows
  for each statement execute function pennon_overrides_deleted();
create trigger pennon_overrides_truncated after truncate on feature_flag_user_overrides
  for each statement execute function pennon_truncated();

-- The environments of existing flags.
select pennon_raise_revisions(array(select environment from feature_flags));
