//! `GET /v1/flags` and `GET /v1/flags/{environment}`: all flags with their rules, for programs that evaluate flags
//! themselves. `POST /v1/evaluation-counts`: what these programs have counted.

mod counts;

use std::collections::BTreeMap;
use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::eval::document::Document;
use pennon_core::eval::{Flag, FlagKey, flagd};
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::ofrep::{self, ApiClient};
use serde_json::Value;

/// The number of flags that the response to a too large environment names.
const NAMED_FLAGS: usize = 5;

/// A format of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// For flagd and its in-process providers.
    Flagd,
    /// For programs with Pennon's engine.
    Native,
}

/// Takes counts, or returns the flags of the environment of the key, or 304 if the caller has this document. The tag
/// depends on the revision and not on the flags, so no document is written for a 304.
///
/// `If-Modified-Since` is ignored: it has whole seconds, and two changes can be in one second.
///
/// # Errors
/// Those of [`ofrep::admit_to_sync`]; [`Error::OtherEnvironment`] if the path names another environment than that of
/// the key; [`Error::ResponseTooLarge`]; those of `counts::handle`.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    if request
        .route()
        .is_some_and(|route| route.path == "/v1/evaluation-counts")
    {
        return counts::handle(app, request).await;
    }
    let ApiClient {
        environment,
        reading,
        ..
    } = ofrep::admit_to_sync(&app, &request).await?;
    let is_named = !request.parameter("environment").is_empty();
    if is_named && request.environment_in_path()? != environment {
        return Err(Error::OtherEnvironment);
    }
    let snapshot = &reading.snapshot;
    let format = format_of(&request);
    let (name, content_type) = match format {
        Format::Flagd => ("flagd", "application/json"),
        Format::Native => ("native", Document::CONTENT_TYPE),
    };
    let tag = ETag::of_document(snapshot.revision, &environment, snapshot.defaults, name);
    let common = |response: Response| {
        // A revision is the time of the change in milliseconds, or one more than the last revision if that is higher.
        let modified = http::http_date(snapshot.revision.0 / 1_000);
        let response = http::with_header(response, "last-modified", &modified);
        let response = http::with_header(response, "vary", "Accept, Authorization, X-API-Key");
        http::with_header(response, "etag", tag.as_str())
    };
    let response = if request.has_current(&tag) {
        common(http::not_modified(&tag))
    } else {
        let flags: BTreeMap<FlagKey, Flag> = snapshot
            .flags
            .iter()
            .map(|(key, flag)| (key.clone(), Flag::clone(flag)))
            .collect();
        let compressed = |document: Response| {
            let document = http::with_header(document, "content-type", content_type);
            http::compressed(common(document), &request)
        };
        match format {
            Format::Flagd => {
                let document =
                    flagd::write_for_engines(&flags, &snapshot.settings, snapshot.defaults);
                let response = compressed(http::json(StatusCode::OK, &document));
                check_size(&response, || sizes(&document["flags"]))?;
                response
            }
            Format::Native => {
                let document = Document::new(
                    snapshot.revision.0,
                    environment.as_str(),
                    &snapshot.settings,
                    snapshot.defaults,
                    &flags,
                );
                let response = compressed(http::json(StatusCode::OK, &document));
                check_size(&response, || {
                    flags
                        .iter()
                        .map(|(key, flag)| {
                            let text = serde_json::to_string(flag);
                            (key.to_string(), text.map_or(0, |text| text.len()))
                        })
                        .collect()
                })?;
                response
            }
        }
    };
    Ok(http::with_cache_headers(response, &reading))
}

/// The format that `Accept` requests: the native one if any `Accept` header names it.
fn format_of(request: &Request) -> Format {
    if request.accepts(Document::CONTENT_TYPE) {
        Format::Native
    } else {
        Format::Flagd
    }
}

/// The sizes of the flags of a flagd document, by key.
fn sizes(flags: &Value) -> Vec<(String, usize)> {
    let flags = flags.as_object().into_iter().flatten();
    flags
        .map(|(key, flag)| (key.clone(), flag.to_string().len()))
        .collect()
}

/// Fails if Lambda cannot return the document, which may be compressed. Names the largest flags, which an editor has to
/// make smaller.
fn check_size(
    response: &Response,
    sizes: impl FnOnce() -> Vec<(String, usize)>,
) -> Result<(), Error> {
    let Some(size) = http::size_above_limit(response) else {
        return Ok(());
    };
    let mut sizes = sizes();
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let largest: Vec<String> = sizes
        .iter()
        .take(NAMED_FLAGS)
        .map(|(key, size)| format!("{key} ({size})"))
        .collect();
    let limit = http::MAX_RESPONSE_SIZE;
    let what = if response.headers().contains_key("content-encoding") {
        format!(
            "The compressed document has {size} bytes in base64, more than the limit of {limit}"
        )
    } else {
        format!(
            "The document has {size} bytes, more than the limit of {limit}; accept gzip or zstd, which may suffice"
        )
    };
    Err(Error::ResponseTooLarge(format!(
        "{what}; the largest flags are {}",
        largest.join(", ")
    )))
}
