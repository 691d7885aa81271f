//! The handlers: one module per Lambda function, with the name of the function.
//!
//! All functions run the same program, so that it is compiled, linked and uploaded once. The property `Handler`
//! of a function in the template selects its module.

pub mod console;
pub mod count_evaluations;
pub mod evaluate_flag;
pub mod evaluate_flags;
pub mod get_flag;
pub mod guard;
pub mod health;
pub mod list_flags;
pub mod manage_environments;
pub mod manage_flags;
pub mod manage_keys;
pub mod migrate;
pub mod not_found;
pub mod overrides;
pub mod pre_traffic;
pub mod ramps;
pub mod reconcile;
pub mod report_usage;
pub mod schedules;
pub mod send_webhooks;
pub mod sync_flags;
pub mod update_flag;

use std::future::ready;
use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::http::{Request, Response, Routed};
use pennon_core::lambda::EventHandler;
use pennon_core::middleware::{self, Handling};

/// Runs the handler of the function with this name. Unknown names run `not-found`.
pub async fn answer(app: Arc<App>, function: &'static str, routed: Routed) -> Response {
    let handle: fn(Arc<App>, Request) -> Handling = match function {
        "console" => |app, request| Box::pin(console::handle(app, request)),
        "evaluate-flag" => |app, request| Box::pin(evaluate_flag::handle(app, request)),
        "evaluate-flags" => |app, request| Box::pin(evaluate_flags::handle(app, request)),
        "get-flag" => |app, request| Box::pin(get_flag::handle(app, request)),
        "health" => |app, request| Box::pin(health::handle(app, request)),
        "list-flags" => |app, request| Box::pin(list_flags::handle(app, request)),
        "manage-environments" => |app, request| Box::pin(manage_environments::handle(app, request)),
        "manage-flags" => |app, request| Box::pin(manage_flags::handle(app, request)),
        "manage-keys" => |app, request| Box::pin(manage_keys::handle(app, request)),
        "overrides" => |app, request| Box::pin(overrides::handle(app, request)),
        "ramps" => |app, request| Box::pin(ramps::handle(app, request)),
        "report-usage" => |app, request| Box::pin(report_usage::handle(app, request)),
        "schedules" => |app, request| Box::pin(schedules::handle(app, request)),
        "sync-flags" => |app, request| Box::pin(sync_flags::handle(app, request)),
        "update-flag" => |app, request| Box::pin(update_flag::handle(app, request)),
        _ => |_app, _request| Box::pin(ready(Ok(not_found::handle()))),
    };
    middleware::answer(app, function, handle, routed).await
}

/// The handler of the function with this name, if it handles events other than requests.
#[must_use]
pub fn event_handler(function: &str) -> Option<EventHandler> {
    Some(match function {
        "count-evaluations" => |app, event| Box::pin(count_evaluations::handle(app, event)),
        "guard" => |app, event| Box::pin(guard::handle(app, event)),
        "migrate" => |app, event| Box::pin(migrate::handle(app, event)),
        "pre-traffic" => |app, event| Box::pin(pre_traffic::handle(app, event)),
        // Its schedule sends an event without content.
        "reconcile" => |app, _event| Box::pin(reconcile::handle(app)),
        "send-webhooks" => |app, event| Box::pin(send_webhooks::handle(app, event)),
        _ => return None,
    })
}
