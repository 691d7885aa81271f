//! What all functions of Pennon share.
//!
//! [`App::cold_start`](app::App::cold_start) is the cold start: configuration, secrets, the Redis pool and the
//! store, put together once per instance. [`service`] answers questions about flags out of [`cache`]
//! and [`store`]; [`http`] turns requests into questions and answers into responses; [`lambda`] runs
//! a handler on AWS Lambda. What a flag means is decided in `pennon-eval`.
//!
//! One home per vendor: fred is used in [`cache`] only, tokio-postgres in [`store`]
//! only, the AWS SDK in [`secrets`] and [`aws`] only, the process environment in [`config`] only.

pub mod alarms;
pub mod api_key;
pub mod app;
pub mod auth;
pub mod aws;
pub mod breaker;
pub mod cache;
pub mod config;
pub mod counts;
pub mod environment;
pub mod error;
pub mod flag_sums;
pub mod hex;
pub mod http;
pub mod https;
pub mod id;
pub mod installation;
pub mod lambda;
pub mod limits;
pub mod middleware;
pub mod ofrep;
pub mod ofrep_format;
pub mod ramp;
pub mod secrets;
mod server_only;
pub mod service;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod timestamp;
mod tls;
pub mod token;
pub mod webhooks;
mod wire_size;

pub use pennon_eval as eval;
