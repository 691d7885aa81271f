//! Runs a handler on AWS Lambda.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use lambda_http::{lambda_runtime, service_fn};
use serde_json::Value;

use crate::app::App;
use crate::error::Error;
use crate::http::{self, Request, Response};

/// What `main` returns when the Lambda runtime itself cannot go on.
pub use lambda_http::Error as RuntimeError;

/// Answers API Gateway's requests with this handler: one at a time on classic Lambda, several where
/// `AWS_LAMBDA_MAX_CONCURRENCY` says so.
///
/// # Errors
/// When the runtime API goes away, which ends the instance.
pub async fn serve<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response, Error>> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |request: lambda_http::Request| {
        let (app, handle) = (app.clone(), handle.clone());
        async move { Ok::<_, Infallible>(http::answer(app, handle, request).await) }
    });
    lambda_http::run_concurrent(service).await
}

/// Answers plain events (a schedule, an invocation by hand) with this handler. An error becomes the
/// invocation's error.
///
/// # Errors
/// When the runtime API goes away, which ends the instance.
pub async fn serve_events<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    serve_messages(move |app, _event| handle(app)).await
}

/// Answers events that carry something (a batch of log lines) with this handler. An error becomes the
/// invocation's error.
///
/// # Errors
/// When the runtime API goes away, which ends the instance.
pub async fn serve_messages<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>, Value) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: lambda_runtime::LambdaEvent<Value>| {
        let (app, handle) = (app.clone(), handle.clone());
        async move {
            // Boxed: the types of all that is nested in here are too deep for the compiler.
            let outcome = Box::pin(handle(app, event.payload)).await;
            if let Err(error) = &outcome {
                tracing::error!(domain = "config", error = %error, "the event failed");
            }
            outcome.map_err(|error| error.to_string())
        }
    });
    lambda_runtime::run_concurrent(service).await
}
