//! Code that all functions of Pennon share.
//!
//! [`App::cold_start`](app::App::cold_start) reads the configuration and secrets and opens the cache and the
//! store, once per instance. [`service`] reads and changes flags in [`cache`] and [`store`], [`http`] parses requests
//! and writes responses, and [`lambda`] runs a handler on AWS Lambda. `pennon-eval` evaluates flags.
//!
//! These dependencies are used in one module each: fred in [`cache`], tokio-postgres in [`store`], the signature of
//! calls to AWS in [`aws`], the process environment in [`config`].

pub mod alarms;
pub mod api_key;
pub mod app;
pub mod auth;
pub mod aws;
pub mod breaker;
pub mod budget;
pub mod cache;
pub mod config;
pub mod counts;
pub mod environment;
pub mod error;
pub mod events;
pub mod flag_sums;
pub mod hex;
pub mod http;
pub mod https;
pub mod id;
pub mod installation;
pub mod key_kind;
pub mod key_uses;
pub mod lambda;
pub mod limits;
pub mod middleware;
pub mod moment;
pub mod ofrep;
pub mod ofrep_format;
pub mod ramp;
pub mod request_context;
mod role;
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
