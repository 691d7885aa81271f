//! `POST /ofrep/v1/evaluate/flags/{flagKey}`: evaluates one flag for an OpenFeature SDK.

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use pennon_core::ofrep;

/// Returns the value of the flag for the context in the body, or the reason why there is none.
///
/// # Errors
/// Those of [`ofrep::admit`].
pub async fn handle(app: Arc<App>, request: Request) -> Result<Response, Error> {
    let caller = ofrep::admit(&app, &request).await?;
    let key = request.evaluated_flag();
    let trace = &request.context().trace;
    trace.flag_key(&key);
    let outcome = ofrep::parse(request.body()).and_then(|context| {
        let item = caller.evaluate(&key, &context)?;
        let response = item.answer()?;
        app.tally.add(&caller.environment, [item.served()]);
        Ok(response)
    });
    let response = match outcome {
        Ok(response) => response,
        Err(failure) => {
            trace.failed(failure.kind());
            failure.answer(Some(&key))
        }
    };
    Ok(http::with_cache_headers(response, &caller.reading))
}
