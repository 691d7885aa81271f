//! The program of every Lambda function. `_HANDLER`, which Lambda sets to the function's `Handler`, selects
//! the handler.

use pennon_core::config::process_environment;
use pennon_core::http::{ENDPOINTS, PAGES};
use pennon_core::lambda::{self, RuntimeError};
use pennon_functions::{answer, event_handler};

/// The `Handler` of a function that serves all routes: `bootstrap` is the name of this program in a deployment
/// package and the default of `cargo lambda watch`.
const EVERY_ROUTE: &str = "bootstrap";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RuntimeError> {
    let handler = process_environment("_HANDLER");
    let handler = handler.as_deref().unwrap_or(EVERY_ROUTE);
    if let Some(handle) = event_handler(handler) {
        return lambda::serve_events(handle).await;
    }
    let mut endpoints = ENDPOINTS.iter().chain(PAGES);
    let function = match endpoints.find(|endpoint| endpoint.function == handler) {
        Some(endpoint) => Some(endpoint.function),
        None if handler == EVERY_ROUTE => None,
        None => return Err(format!("the handler {handler:?} does not exist").into()),
    };
    lambda::serve_requests(move |app, routed| {
        let function = function.unwrap_or_else(|| routed.found.function());
        answer(app, function, routed)
    })
    .await
}
