-- Change events that are not yet delivered.

-- The number of a flag's last event; the empty key counts the events of the environment itself. Rows stay when
-- their flag is deleted, so that the numbers continue if it is created again.
create table pennon_event_sequences (
  environment text not null,
  flag_key text not null,
  last bigint not null,
  primary key (environment, flag_key)
);

-- One row per event and destination, deleted when the event is delivered. The content is that of the audit entry.
-- A change holds the lock of its flag's sequence until the commit, so positions and sequence numbers of a flag rise
-- in the order of the commits. Audit ids do not: they are assigned before that lock.
create table pennon_outbox (
  destination text not null,
  position bigint generated always as identity,
  audit_id bigint not null,
  environment text not null,
  flag_key text not null,
  sequence bigint not null,
  revision bigint not null,
  created_at timestamptz not null default now(),
  attempts integer not null default 0,
  retry_at timestamptz not null default now(),
  primary key (destination, position)
);
