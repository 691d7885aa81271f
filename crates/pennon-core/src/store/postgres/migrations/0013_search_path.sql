-- The search path of the functions no longer contains the schema of the tables. A role that may create objects in that
-- schema could otherwise have its own code run with the rights of the functions' owner: for an argument of another
-- type, PostgreSQL prefers a function such as unnest(text[]), or an operator, in that schema to the one in pg_catalog.

-- %1$I is the schema of the tables. pg_catalog.format, for the same reason.
do $do$
begin
  execute pg_catalog.format($statements$
    create or replace function %1$I.pennon_raise_revisions(changed text[]) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
      insert into %1$I.pennon_environments as known (environment, revision)
      select environment, floor(extract(epoch from clock_timestamp()) * 1000)::bigint
      from (select distinct unnest(changed) as environment) as each_once
      order by environment
      on conflict (environment) do update
        set revision = greatest(known.revision + 1, excluded.revision),
            changed_at = now();
    $$;

    create or replace function %1$I.pennon_flags_inserted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(array(select environment::text from new_rows));
      return null;
    end
    $$;

    create or replace function %1$I.pennon_flags_updated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(
        array(select environment::text from old_rows union select environment::text from new_rows)
      );
      return null;
    end
    $$;

    create or replace function %1$I.pennon_flags_deleted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(array(select environment::text from old_rows));
      return null;
    end
    $$;

    create or replace function %1$I.pennon_overrides_inserted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(
        array(select environment::text from %1$I.feature_flags where id in (select flag_id from new_rows))
      );
      return null;
    end
    $$;

    create or replace function %1$I.pennon_overrides_updated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(
        array(
          select environment::text from %1$I.feature_flags
          where id in (select flag_id from old_rows union select flag_id from new_rows)
        )
      );
      return null;
    end
    $$;

    create or replace function %1$I.pennon_overrides_deleted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(
        array(select environment::text from %1$I.feature_flags where id in (select flag_id from old_rows))
      );
      return null;
    end
    $$;

    create or replace function %1$I.pennon_truncated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
    begin
      perform %1$I.pennon_raise_revisions(array(select environment from %1$I.pennon_environments));
      return null;
    end
    $$;

    alter function %1$I.pennon_touch_row() set search_path = pg_catalog, pg_temp;
  $statements$, current_schema());
end
$do$;
