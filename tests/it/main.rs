//! The tests: one binary, so that the servers behind it start once.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

mod audit;
mod cache;
mod clients;
mod cold_start;
mod concurrency;
mod counting;
#[cfg(target_os = "linux")]
mod emulator;
mod faults;
mod invalidation;
mod keys;
mod local_server;
mod manage_environments;
mod manage_flags;
mod migrations;
mod ofrep;
mod openapi;
mod overrides;
mod pre_traffic;
mod routes;
mod template;
mod tidy;
mod tls;
mod tokens;
