-- Keys of servers that read the rules of flags.
alter table pennon_api_keys drop constraint pennon_key_kind_check;
alter table pennon_api_keys
  add constraint pennon_key_kind_check check (kind in ('server', 'client', 'sync'));
