//! The tests: one binary, so that the servers behind it start once.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

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
mod migrations;
mod ofrep;
mod openapi;
mod routes;
mod tidy;
mod tls;
