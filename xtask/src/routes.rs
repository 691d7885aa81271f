//! The routes of the gateway, from the route table.

use pennon_core::http::{ENDPOINTS, Endpoint, PAGES};

use crate::functions::camel;

/// The function for paths without a route.
const FALLBACK: &str = "not-found";

/// One route of the gateway: an event of a function.
pub(crate) struct Event {
    /// The name in the template, unique in its function. The name of the permission of the gateway to invoke the
    /// function contains it, so renaming an event replaces the permission.
    pub(crate) name: String,
    /// `None` for the route `$default`, which has no path either.
    pub(crate) method: Option<&'static str>,
    pub(crate) path: Option<String>,
    pub(crate) admin: bool,
}

/// Names of events that existed before the rule in [`name_of`].
const OLDER_NAMES: [(&str, &str, &str); 16] = [
    ("GET", "/", "Root"),
    ("GET", "/api/config/flags", "List"),
    ("GET", "/api/config/flags/{flagKey}", "Get"),
    ("PATCH", "/api/admin/flags/{flagKey}", "Patch"),
    ("POST", "/api/admin/flags/{flagKey}", "Post"),
    ("GET", "/api/admin/flags/stale", "Stale"),
    ("GET", "/api/admin/flags/{flagKey}/usage", "Usage"),
    ("POST", "/api/admin/keys", "Create"),
    ("GET", "/api/admin/keys", "List"),
    ("DELETE", "/api/admin/keys/{keyId}", "Revoke"),
    ("POST", "/ofrep/v1/evaluate/flags", "EvaluateAll"),
    ("POST", "/ofrep/v1/evaluate/flags/{flagKey}", "Evaluate"),
    ("GET", "/health", "Health"),
    ("GET", "/health/live", "Live"),
    ("GET", "/health/ready", "Ready"),
    ("OPTIONS", "/api/admin/{proxy+}", "AdminPreflight"),
];

/// The name of an event, such as `PostFlagsFlagKeyRestore` for `POST /api/admin/flags/{flagKey}/restore`.
fn name_of(method: &str, path: &str) -> String {
    let older = OLDER_NAMES
        .iter()
        .find(|(m, p, _)| (*m, *p) == (method, path));
    if let Some((.., name)) = older {
        return (*name).to_owned();
    }
    let rest = path.trim_start_matches("/api").trim_start_matches("/admin");
    let words = rest.replace(['{', '}', '+'], "").replace('/', "-");
    camel(&method.to_lowercase()) + &camel(&words)
}

/// The events of a function.
pub(crate) fn events(function: &str) -> Vec<Event> {
    let endpoints = ENDPOINTS
        .iter()
        .chain(PAGES)
        .filter(|endpoint| endpoint.function == function);
    let mut events: Vec<_> = endpoints.flat_map(events_of).collect();
    if function == FALLBACK {
        events.push(Event {
            name: "Default".to_owned(),
            method: None,
            path: None,
            admin: false,
        });
        // A preflight request has no token, so its route must not have an authorizer.
        for (path, suffix) in [
            ("/api/admin/{proxy+}", ""),
            ("/admin/{proxy+}", "WithoutPrefix"),
        ] {
            events.push(Event {
                name: format!("AdminPreflight{suffix}"),
                method: Some("OPTIONS"),
                path: Some(path.to_owned()),
                admin: false,
            });
        }
    }
    events
}

/// The events of a route. A public path has one event for all methods, so that its function answers `HEAD`, and other
/// methods with 405. An admin path has an event per method: an event for all methods would send preflight requests
/// to the authorizer, which rejects them.
fn events_of(endpoint: &'static Endpoint) -> Vec<Event> {
    let methods: &[(&str, &str)] = match (endpoint.is_admin(), endpoint.method) {
        (false, _) => &[("ANY", "")],
        (true, "GET") => &[("GET", ""), ("HEAD", "Head")],
        (true, method) => &[(method, "")],
    };
    let other = if endpoint.path.starts_with("/api/") {
        "WithoutPrefix"
    } else {
        "WithPrefix"
    };
    let paths = std::iter::zip(endpoint.paths(), ["", other]);
    let name = name_of(endpoint.method, endpoint.path);
    let mut events = Vec::new();
    for (path, form) in paths {
        for (method, suffix) in methods {
            events.push(Event {
                name: format!("{name}{form}{suffix}"),
                method: Some(method),
                path: Some(path.clone()),
                admin: endpoint.is_admin(),
            });
        }
    }
    events
}

/// The throttling limits of the admin routes, lower than the limit for all routes.
pub(crate) fn settings() -> Vec<String> {
    let admin = ENDPOINTS.iter().filter(|endpoint| endpoint.is_admin());
    let mut lines = Vec::new();
    for event in admin.flat_map(events_of) {
        if let (Some(method), Some(path)) = (event.method, event.path) {
            lines.push(format!(
                "\"{method} {path}\": {{ThrottlingRateLimit: 20, ThrottlingBurstLimit: 40}}"
            ));
        }
    }
    lines
}
