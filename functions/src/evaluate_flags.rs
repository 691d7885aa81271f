//! `POST /ofrep/v1/evaluate/flags`: evaluates all flags that the caller may see, for an OpenFeature SDK.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::ofrep;

/// Returns an item per flag, ordered by key, or 304 if the caller has this response. If a flag cannot be evaluated,
/// its item contains the reason; other flags are not affected.
///
/// # Errors
/// Those of [`ofrep::admit`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let caller = ofrep::admit(&app, &request).await?;
    let response = match ofrep::parse_with_digest(request.body()) {
        Ok((context, digest)) => {
            let revision = caller.reading.snapshot.revision;
            let tag = ETag::for_context(revision, &caller.environment, caller.kind, &digest);
            caller.answer_all(request.incoming(), &context, &tag, &app.tally)
        }
        Err(failure) => {
            request.context().trace.failed(failure.kind());
            failure.answer(None)
        }
    };
    Ok(http::with_cache_headers(response, &caller.reading))
}
