//! Runs a handler on AWS Lambda.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use lambda_http::http::header::HOST;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, LambdaEvent, Service, lambda_runtime, service_fn};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use crate::app::App;
use crate::error::Error;
use crate::http::{self, Request, Response};

/// What cannot stand in the query of a URI: RFC 3986, section 3.4. A `%` stays, for what is encoded
/// already.
const NOT_IN_A_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

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
    let adapter = Adapter::from(service_fn(move |request: lambda_http::Request| {
        let (app, handle) = (app.clone(), handle.clone());
        async move { Ok::<_, Infallible>(http::answer(app, handle, request).await) }
    }));
    let service = service_fn(move |mut event: LambdaEvent<LambdaRequest>| {
        tidy(&mut event.payload);
        adapter.clone().call(event)
    });
    lambda_runtime::run_concurrent(service).await
}

/// Takes out of a request what `lambda_http` would panic on when it makes a URI of it: a host, a path
/// or a query that is none. No route looks at the host.
fn tidy(request: &mut LambdaRequest) {
    match request {
        LambdaRequest::ApiGatewayV2(request) => {
            request.headers.remove(HOST);
            request.request_context.domain_name = None;
            tidy_path(&mut request.raw_path);
            if let Some(query) = &mut request.raw_query_string {
                *query = utf8_percent_encode(query, NOT_IN_A_QUERY).to_string();
            }
        }
        LambdaRequest::ApiGatewayV1(request) => {
            request.headers.remove(HOST);
            request.request_context.domain_name = None;
            tidy_path(&mut request.path);
        }
        _ => {}
    }
}

fn tidy_path(path: &mut Option<String>) {
    if let Some(path) = path
        && !path.starts_with('/')
    {
        path.insert(0, '/');
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
            let outcome = Box::pin(handle(app, event.payload)).await;
            if let Err(error) = &outcome {
                tracing::error!(domain = "config", error = %error, "the event failed");
            }
            outcome.map_err(|error| error.to_string())
        }
    });
    lambda_runtime::run_concurrent(service).await
}
