//! The OpenFeature Remote Evaluation Protocol, version 0.3.0: how every OpenFeature SDK asks for
//! flags. <https://github.com/open-feature/protocol>
//!
//! Two routes: one flag, and all flags that the caller may see. What they have in common is here: who
//! may ask (`api_client`), for whom (`request`), what an answer and a failure look like (`answer`,
//! `failure`), and which paths are OFREP's, whose every answer has an OFREP body (`http::OfrepPath`).
//!
//! Where the published clients and the specification differ, the answer is one that all of them
//! understand; docs/openfeature.md tells what each makes of it.

mod api_client;
mod bulk;
mod error_reply;
mod request;

pub use api_client::{ApiClient, admit, admit_to_config, presented};
pub use bulk::Bulk;
pub use error_reply::too_many;
pub use request::{EvaluationRequest, LARGEST_BODY, parse};

pub(crate) use error_reply::error_reply;
