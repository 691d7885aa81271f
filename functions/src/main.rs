//! The program of every Lambda function. `_HANDLER`, which Lambda sets to the function's `Handler`, selects
//! the handler.

use pennon_core::config::process_environment;
use pennon_core::http::{ENDPOINTS, PAGES};
use pennon_core::lambda::{self, RuntimeError};
use pennon_functions::{
    answer, count_evaluations, guard, migrate, pre_traffic, reconcile, send_webhooks,
};

/// The `Handler` of a function that serves all routes: `bootstrap` is the name of this program in a deployment
/// package and the default of `cargo lambda watch`.
const EVERY_ROUTE: &str = "bootstrap";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RuntimeError> {
    let handler = process_environment("_HANDLER");
    match handler.as_deref().unwrap_or(EVERY_ROUTE) {
        "count-evaluations" => lambda::serve_events(count_evaluations::handle).await,
        "guard" => lambda::serve_events(guard::handle).await,
        "migrate" => lambda::serve_events(migrate::handle).await,
        "pre-traffic" => lambda::serve_events(pre_traffic::handle).await,
        "reconcile" => lambda::serve_schedule(reconcile::handle).await,
        "send-webhooks" => lambda::serve_events(send_webhooks::handle).await,
        EVERY_ROUTE => {
            lambda::serve_requests(|app, routed| {
                let function = routed.found.function();
                answer(app, function, routed)
            })
            .await
        }
        name => match ENDPOINTS
            .iter()
            .chain(PAGES)
            .find(|endpoint| endpoint.function == name)
        {
            Some(endpoint) => {
                let function = endpoint.function;
                lambda::serve_requests(move |app, routed| answer(app, function, routed)).await
            }
            None => Err(format!("the handler {name:?} does not exist").into()),
        },
    }
}
