//! Runs handlers on AWS Lambda.

mod event;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lambda_http::{Body, LambdaEvent, lambda_runtime, service_fn};
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::error::Error;
use crate::http::{Response, Routed};
use event::Event;

/// An error of the Lambda runtime itself, which ends the instance.
pub use lambda_http::Error as RuntimeError;

/// Responds to requests from API Gateway or a function URL: one at a time, or several on Lambda Managed Instances,
/// which set `AWS_LAMBDA_MAX_CONCURRENCY`.
///
/// # Errors
/// If the runtime API becomes unavailable.
pub async fn serve_requests<A, F>(answer: A) -> Result<(), RuntimeError>
where
    A: Fn(Arc<App>, Routed) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: LambdaEvent<Event>| {
        let (app, answer) = (app.clone(), answer.clone());
        async move {
            let incoming = event.payload.into_request(&event.context.request_id);
            // Boxed, because the nested types are too deep for the compiler.
            let response = Box::pin(answer(app, incoming.routed())).await;
            Ok::<_, Infallible>(GatewayResponse::of(&response))
        }
    });
    lambda_runtime::run_concurrent(service).await
}

/// A response as API Gateway expects it, in both payload formats.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GatewayResponse {
    status_code: u16,
    headers: serde_json::Map<String, Value>,
    is_base64_encoded: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    body: String,
}

impl GatewayResponse {
    /// A binary body, such as a compressed file, is encoded in base64. No header occurs twice.
    fn of(response: &Response) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = response.headers().iter();
        let is_base64_encoded = matches!(response.body(), Body::Binary(_));
        let body = if is_base64_encoded {
            STANDARD.encode(response.body())
        } else {
            text(response.body())
        };
        Self {
            status_code: response.status().as_u16(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value.as_bytes()).into()))
                .collect(),
            is_base64_encoded,
            body,
        }
    }
}

/// Runs a handler that ignores its event, such as that of a schedule. An error of the handler becomes the error of the
/// invocation.
///
/// # Errors
/// If the runtime API becomes unavailable.
pub async fn serve_schedule<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    serve_events(move |app, _event| handle(app)).await
}

/// Runs a handler of events other than requests, such as batches of log lines. An error of the handler becomes the
/// error of the invocation.
///
/// # Errors
/// If the runtime API becomes unavailable.
pub async fn serve_events<H, F>(handle: H) -> Result<(), RuntimeError>
where
    H: Fn(Arc<App>, Value) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let app = Arc::new(Box::pin(App::cold_start()).await);
    let service = service_fn(move |event: LambdaEvent<Value>| {
        let (app, handle) = (app.clone(), handle.clone());
        async move {
            // Boxed, because the nested types are too deep for the compiler.
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
