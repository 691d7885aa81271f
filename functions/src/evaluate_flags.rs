//! `POST /ofrep/v1/evaluate/flags`: all flags that the caller may see, for an OpenFeature SDK.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::ofrep;

/// Answers with an item per flag, in the order of their keys; 304 when the caller has this answer. A
/// flag that cannot be evaluated is an item that says why, and does no harm to the others.
///
/// # Errors
/// [`Error::Unauthenticated`] without a good API key, [`Error::Forbidden`] with one of another
/// environment, [`Error::Unavailable`] when flags cannot be read.
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let caller = ofrep::admit(&app, &request).await?;
    let response = match ofrep::parse(request.body()) {
        Ok(asked) => {
            let tag =
                ETag::for_context(caller.reading.snapshot.revision, caller.kind, &asked.digest);
            let rules = caller.reading.snapshot.rules();
            if !rules.look_at_the_time() && request.has(&tag) {
                http::not_modified(&tag)
            } else {
                let mut bulk = caller.evaluate_all(&asked.context);
                let response = bulk.answer();
                app.tally.add(&caller.environment, bulk.served());
                http::tagged(response, &tag, rules.look_at_the_time(), &request)
            }
        }
        Err(failure) => {
            request.scope().trace.failed(failure.kind());
            failure.answer(None)
        }
    };
    Ok(http::with_cache_headers(response, &caller.reading))
}
