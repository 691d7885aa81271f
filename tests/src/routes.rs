//! Requests to the routes of the route table.

use pennon_core::http::Endpoint;

use crate::local::{ADMIN_TOKEN, API_KEY};

/// The path of a route for this flag. Other parameters have fixed values: user `u`, schedule `i`, key `k`, webhook `w`,
/// environment `production`.
pub fn path_for(template: &str, flag: &str) -> String {
    template
        .replace("{flagKey}", flag)
        .replace("{userId}", "u")
        .replace("{id}", "i")
        .replace("{keyId}", "k")
        .replace("{webhookId}", "w")
        .replace("{environment}", "production")
}

/// The paths of a route for this flag, with and without `/api`.
pub fn paths_for(endpoint: &Endpoint, flag: &str) -> Vec<String> {
    let paths = endpoint.paths();
    paths.map(|path| path_for(&path, flag)).collect()
}

/// The status of a `GET` of a route for a flag without a ramp.
pub fn read_status(endpoint: &Endpoint) -> u16 {
    if endpoint.path.ends_with("/ramp") {
        404
    } else {
        200
    }
}

/// An `Authorization` header with which the local server serves this route: the admin's token or the API key. Routes
/// that are open to anyone do not need it; with it, the two under `/api/config` also return server-only flags.
pub fn authorization_for(endpoint: &Endpoint) -> String {
    let token = if endpoint.is_admin() {
        ADMIN_TOKEN
    } else {
        API_KEY
    };
    format!("Bearer {token}")
}
