//! The tests: one binary, so that the servers behind it start once.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

mod audit;
mod cache;
mod cold_start;
mod concurrency;
mod conformance;
#[cfg(target_os = "linux")]
mod emulator;
mod faults;
mod invalidation;
mod local_server;
mod manage_environments;
mod manage_flags;
mod migrations;
mod overrides;
mod pre_traffic;
mod routes;
mod template;
mod tidy;
mod tls;
mod tokens;
