//! The tests: one binary, so that the servers behind it start once.

mod cache;
mod cold_start;
mod concurrency;
mod faults;
mod invalidation;
mod local_server;
mod migrations;
mod routes;
mod tidy;
