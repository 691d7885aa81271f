//! `GET /api/admin/me`: who the caller is, and what they may do.

use lambda_http::http::StatusCode;
use pennon_core::auth::{Actor, Role};
use pennon_core::environment::Environment;
use pennon_core::http::{self, Response};
use serde_json::{Value, json};

/// `may.edit` is `true` if the caller may change flags in every environment, otherwise the list of environments where
/// they may.
pub(crate) fn answer(actor: &Actor) -> Response {
    let roles = &actor.roles;
    let edit: Value = if roles.include(&Role::Editor) {
        true.into()
    } else {
        roles.environments().map(Environment::as_str).collect()
    };
    let names: Vec<String> = roles.iter().map(Role::to_string).collect();
    let may = json!({ "read": true, "edit": edit, "admin": roles.include(&Role::Admin) });
    let body = json!({ "actor": actor.id, "roles": names, "may": may });
    http::with_header(
        http::json(StatusCode::OK, &body),
        "cache-control",
        "no-store",
    )
}
