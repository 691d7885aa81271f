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

use std::sync::Arc;

use pennon_core::app::App;
use pennon_core::http::{Response, Routed};
use pennon_core::middleware;

/// Runs the handler of the function with this name. Unknown names run `not-found`.
pub async fn answer(app: Arc<App>, function: &'static str, routed: Routed) -> Response {
    match function {
        "console" => middleware::answer(app, function, console::handle, routed).await,
        "evaluate-flag" => middleware::answer(app, function, evaluate_flag::handle, routed).await,
        "evaluate-flags" => middleware::answer(app, function, evaluate_flags::handle, routed).await,
        "get-flag" => middleware::answer(app, function, get_flag::handle, routed).await,
        "health" => middleware::answer(app, function, health::handle, routed).await,
        "list-flags" => middleware::answer(app, function, list_flags::handle, routed).await,
        "manage-environments" => {
            middleware::answer(app, function, manage_environments::handle, routed).await
        }
        "manage-flags" => middleware::answer(app, function, manage_flags::handle, routed).await,
        "manage-keys" => middleware::answer(app, function, manage_keys::handle, routed).await,
        "overrides" => middleware::answer(app, function, overrides::handle, routed).await,
        "ramps" => middleware::answer(app, function, ramps::handle, routed).await,
        "report-usage" => middleware::answer(app, function, report_usage::handle, routed).await,
        "schedules" => middleware::answer(app, function, schedules::handle, routed).await,
        "sync-flags" => middleware::answer(app, function, sync_flags::handle, routed).await,
        "update-flag" => middleware::answer(app, function, update_flag::handle, routed).await,
        _ => middleware::answer(app, "not-found", not_found::handle, routed).await,
    }
}
