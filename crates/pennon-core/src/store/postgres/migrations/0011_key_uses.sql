-- The day (UTC) on which an API key was last used. It is not a column of the keys, because a change of a key raises the
-- revision of its environment. There is no foreign key, because a use may be recorded after SQL has deleted its key.
create table pennon_key_uses (
  key_id text primary key,
  last_used_on date not null
);
