//! The OpenFeature Remote Evaluation Protocol, version 0.3.0, which OpenFeature SDKs use to evaluate flags.
//! <https://github.com/open-feature/protocol>
//!
//! It has two routes: one flag, and all flags that the caller may see. This module authenticates the caller
//! (`api_client`), parses the context (`request`) and creates responses (`bulk`, `error_reply`). Their JSON is in
//! `ofrep_format`. `http::OfrepPath` recognises OFREP paths, on which every response has an OFREP body.
//!
//! Where the published clients and the specification differ, the response is one that all of them accept;
//! docs/openfeature.md describes how each client handles it.

mod api_client;
mod bulk;
mod error_reply;
mod request;

pub use api_client::{ApiClient, admit, admit_to_config_routes, admit_to_sync, key_of};
pub use request::{ContextDigest, MAX_BODY_SIZE, parse, parse_with_digest};

pub use error_reply::error_reply;
