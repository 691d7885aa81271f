//! The tests: one binary, so that shared servers start once.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

/// Runs tests on every topology: one server and a cluster, unencrypted and encrypted. The compiler reports a test that
/// is not listed as an unused function.
macro_rules! on_every_redis {
    ($($test:ident),+ $(,)?) => {
        on_redis!(single Single $($test)+);
        on_redis!(cluster Cluster $($test)+);
        on_redis!(secured_single SecuredSingle $($test)+);
        on_redis!(secured_cluster SecuredCluster $($test)+);
    };
}

/// The same for tests in which a wire parses the traffic, which must be unencrypted.
macro_rules! on_readable_redis {
    ($($test:ident),+ $(,)?) => {
        on_redis!(readable_single Single $($test)+);
        on_redis!(readable_cluster Cluster $($test)+);
    };
}

macro_rules! on_redis {
    ($name:ident $topology:ident $($test:ident)+) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(pennon_tests::topology::Topology::$topology).await;
                }
            )+
        }
    };
}

mod admins;
mod audit;
mod bounded_cost;
mod cache;
mod change_events;
mod clients;
mod cluster;
mod cold_start;
mod concurrency;
mod conformance;
mod console;
mod copying;
mod cors;
mod counting;
mod database_connections;
mod database_roles;
mod deploy_command;
mod duplicate_keys;
#[cfg(target_os = "linux")]
mod emulator;
mod evaluation_defaults;
mod events;
mod existing_clients;
mod explain;
mod extension;
mod failover;
mod faults;
mod flag_overviews;
mod flagd_files;
mod flags_file;
mod forged_entries;
#[cfg(target_os = "linux")]
mod freezes;
mod import_rules;
mod installations;
mod invalidation;
mod keys;
mod large_answers;
mod leaks;
mod limits;
mod local_cluster;
mod local_server;
mod lock_order;
mod log_lines;
mod log_size;
mod login;
mod manage_environments;
mod manage_flags;
mod migrations;
mod ofrep;
mod one_shard;
mod openapi;
mod overrides;
mod poolers;
mod pre_traffic;
mod preconditions;
#[cfg(target_os = "linux")]
mod processes;
mod public_routes;
mod query_options;
mod ramps;
mod redis_budget;
mod redis_users;
mod reliability_cases;
mod requests;
mod revocation;
mod roles;
mod routes;
mod schedules;
mod secret_changes;
mod snapshots;
mod sync_flags;
mod template;
mod tidy;
mod tls;
mod tokens;
mod undoing;
mod unreadable_rows;
mod webhook_delivery;
mod webhook_routes;
mod webhooks;
