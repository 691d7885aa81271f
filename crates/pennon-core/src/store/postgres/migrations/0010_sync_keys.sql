-- Adds the key kind `sync`, for programs that read the rules and evaluate flags themselves: flagd, the extension.
alter table pennon_api_keys drop constraint pennon_key_kind_check;
alter table pennon_api_keys
  add constraint pennon_key_kind_check check (kind in ('server', 'client', 'sync'));
