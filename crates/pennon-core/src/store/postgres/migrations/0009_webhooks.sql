-- Webhooks. `webhook` is JSON in the form of `pennon_core::webhooks::Webhook`; `enabled` repeats a part of it for
-- statements.
create table pennon_webhooks (
  id text primary key,
  environment text not null,
  enabled boolean not null,
  webhook json not null,
  created_at timestamptz not null default now(),
  -- When the next request may be sent. A run that sends moves it ahead first, so that no other run sends then.
  due_at timestamptz not null default now()
);
create index pennon_webhooks_environment_idx on pennon_webhooks (environment, created_at);

-- URLs and signing keys, apart from the webhooks so that a query that lists webhooks shows no secret.
create table pennon_webhook_destinations (
  webhook_id text primary key references pennon_webhooks (id) on delete cascade,
  url text not null,
  secret text not null
);
