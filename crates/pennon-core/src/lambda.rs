//! Runs a handler on AWS Lambda.

mod event;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use lambda_http::{LambdaEvent, lambda_runtime, service_fn};
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::error::Error;
use crate::http::{Incoming, Response};
use event::Event;

/// What `main` returns when the Lambda runtime itself cannot go on.
pub use lambda_http::Error as RuntimeError;

/// Answers requests of API Gateway, or of a function URL, this way: one at a time on classic Lambda,
/// several where `AWS_LAMBDA_MAX_CONCURRENCY` says so.
///
/// # Errors
/// When the runtime API goes away, which ends the instance.
pub async fn serve<A, F>(answer: A) -> Result<(), RuntimeError>
where
    A: Fn(Arc<App>, Incoming) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: LambdaEvent<Event>| {
        let (app, answer) = (app.clone(), answer.clone());
        async move {
            let incoming = event.payload.into_request(&event.context.request_id);
            // Boxed: the types of all that is nested in here are too deep for the compiler.
            let response = Box::pin(answer(app, incoming)).await;
            Ok::<_, Infallible>(Written::of(&response))
        }
    });
    lambda_runtime::run_concurrent(service).await
}

/// A response in the form that API Gateway takes from a function, in both of its formats.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    status_code: u16,
    headers: serde_json::Map<String, Value>,
    is_base64_encoded: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    body: String,
}

impl Written {
    /// Every body of ours is text, and no header of ours comes twice.
    fn of(response: &Response) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = response.headers().iter();
        Self {
            status_code: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value.as_bytes()).into()))
                .collect(),
            is_base64_encoded: false,
            body: text(response.body()),
        }
    }
}

/// Answers plain events (a schedule, an invocation by hand) with this handler, which needs nothing
/// of what they say. An error becomes the invocation's error.
///
/// # Errors
/// When the runtime API goes away, which ends the instance.
pub async fn serve_events<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    serve_calls(move |app, _event| handle(app)).await
}

/// The same for a handler that reads its event (a batch of log lines, a deployment's hook).
///
/// # Errors
/// When the runtime API goes away, which ends the instance.
pub async fn serve_calls<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>, Value) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: lambda_runtime::LambdaEvent<Value>| {
        let (app, handle) = (app.clone(), handle.clone());
        async move {
            // Boxed: the types of all that is nested in here are too deep for the compiler.
            let outcome = Box::pin(handle(app.clone(), event.payload)).await;
            app.service.store().end_of_request().await;
            if let Err(error) = &outcome {
                tracing::error!(domain = "config", error = %error, "the event failed");
            }
            outcome.map_err(|error| error.to_string())
        }
    });
    lambda_runtime::run_concurrent(service).await
}
