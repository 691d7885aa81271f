//! Requests to the routes of the table.

use pennon_core::http::Endpoint;

use crate::local::{ADMIN_TOKEN, API_KEY};

/// The path of a route for this flag, with a value for every other parameter: user `u`, schedule `i`,
/// key `k`, environment `production`.
pub fn path_for(template: &str, flag: &str) -> String {
    template
        .replace("{flagKey}", flag)
        .replace("{userId}", "u")
        .replace("{id}", "i")
        .replace("{keyId}", "k")
        .replace("{environment}", "production")
}

/// Both paths of a route for this flag: with and without `/api`.
pub fn paths_for(endpoint: &Endpoint, flag: &str) -> [String; 2] {
    [
        path_for(endpoint.path, flag),
        path_for(&endpoint.other_path(), flag),
    ]
}

/// The status of a `GET` of a route for a flag that has no ramp.
pub fn read_status(endpoint: &Endpoint) -> u16 {
    if endpoint.path.ends_with("/ramp") {
        404
    } else {
        200
    }
}

/// The `Authorization` header that opens a route of the local server: the admin's token or its API key.
pub fn authorization_for(endpoint: &Endpoint) -> String {
    let token = if endpoint.is_admin() {
        ADMIN_TOKEN
    } else {
        API_KEY
    };
    format!("Bearer {token}")
}
