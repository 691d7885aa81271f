//! Every route: the table that the local server serves, and that the template is checked against.

use crate::ofrep::Place;

/// One route, and the function that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// `GET`, `PATCH`, …
    pub method: &'static str,
    /// The canonical path; a segment in braces stands for any one segment.
    pub path: &'static str,
    /// The function's name: its folder, its package and its binary.
    pub function: &'static str,
    /// Only an admin may use it.
    pub admin: bool,
}

/// Every route.
pub const ENDPOINTS: [Endpoint; 35] = [
    Endpoint::public("GET", "/api/config/flags", "list-flags"),
    Endpoint::public("GET", "/api/config/flags/{flagKey}", "get-flag"),
    Endpoint::admin("PATCH", "/api/admin/flags/{flagKey}", "update-flag"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}", "update-flag"),
    Endpoint::admin("GET", "/api/admin/flags", "manage-flags"),
    Endpoint::admin("POST", "/api/admin/flags", "manage-flags"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}", "manage-flags"),
    Endpoint::admin("DELETE", "/api/admin/flags/{flagKey}", "manage-flags"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/restore", "manage-flags"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/revert", "manage-flags"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/audit", "manage-flags"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/users", "overrides"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/users", "overrides"),
    Endpoint::admin(
        "DELETE",
        "/api/admin/flags/{flagKey}/users/{userId}",
        "overrides",
    ),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/schedule", "schedules"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/schedule", "schedules"),
    Endpoint::admin(
        "DELETE",
        "/api/admin/flags/{flagKey}/schedule/{id}",
        "schedules",
    ),
    Endpoint::admin("GET", "/api/admin/environments", "manage-environments"),
    Endpoint::admin("POST", "/api/admin/environments", "manage-environments"),
    Endpoint::admin(
        "GET",
        "/api/admin/environments/{environment}/settings",
        "manage-environments",
    ),
    Endpoint::admin(
        "PUT",
        "/api/admin/environments/{environment}/settings",
        "manage-environments",
    ),
    Endpoint::admin(
        "GET",
        "/api/admin/environments/{environment}/export",
        "manage-environments",
    ),
    Endpoint::admin(
        "POST",
        "/api/admin/environments/{environment}/import",
        "manage-environments",
    ),
    Endpoint::admin(
        "POST",
        "/api/admin/environments/{environment}/purge",
        "manage-environments",
    ),
    Endpoint::admin(
        "GET",
        "/api/admin/environments/{environment}/audit",
        "manage-environments",
    ),
    Endpoint::admin("GET", "/api/admin/flags/stale", "report-usage"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/usage", "report-usage"),
    Endpoint::admin("POST", "/api/admin/keys", "manage-keys"),
    Endpoint::admin("GET", "/api/admin/keys", "manage-keys"),
    Endpoint::admin("DELETE", "/api/admin/keys/{keyId}", "manage-keys"),
    // Whoever has an API key.
    Endpoint::public("POST", "/ofrep/v1/evaluate/flags", "evaluate-flags"),
    Endpoint::public(
        "POST",
        "/ofrep/v1/evaluate/flags/{flagKey}",
        "evaluate-flag",
    ),
    Endpoint::public("GET", "/health", "health"),
    Endpoint::public("GET", "/health/live", "health"),
    Endpoint::public("GET", "/health/ready", "health"),
];

/// What the canonical path of a route begins with, or does not.
pub(crate) const PREFIX: &str = "/api";

impl Endpoint {
    const fn public(method: &'static str, path: &'static str, function: &'static str) -> Self {
        Self {
            method,
            path,
            function,
            admin: false,
        }
    }

    const fn admin(method: &'static str, path: &'static str, function: &'static str) -> Self {
        Self {
            method,
            path,
            function,
            admin: true,
        }
    }

    /// What the route calls the segment in braces.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        let inner = self.path.split_once('{').map_or("", |(_, rest)| rest);
        inner.split_once('}').map_or("", |(name, _)| name)
    }

    /// The same route with or without the `/api` prefix. Both are served: the proxy before the old
    /// service stripped it.
    #[must_use]
    pub fn other_path(&self) -> String {
        match self.path.strip_prefix(PREFIX) {
            Some(rest) => rest.to_owned(),
            None => format!("{PREFIX}{}", self.path),
        }
    }
}

/// A segment of a path as text. What does not decode to UTF-8 stays as it is, and names nothing.
#[must_use]
pub fn decoded(segment: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    decoded.map_or_else(|_| segment.to_owned(), std::borrow::Cow::into_owned)
}
/// What stands in a path in the place of each brace, under the name in the brace and still
/// percent-encoded.
pub type Parameters = Vec<(&'static str, String)>;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Match {
    /// A route, and what stands in the place of its braces.
    Found(&'static Endpoint, Parameters),
    /// Nothing that exists, in a place where only admins may look.
    UnknownAdmin,
    /// Nothing that exists.
    Unknown,
}

/// Finds the route of a request.
#[must_use]
pub fn find(method: &str, path: &str) -> Match {
    let canonical = if path.starts_with("/config/") || path.starts_with("/admin/") {
        format!("{PREFIX}{path}")
    } else if let Some(health) = path.strip_prefix("/api/health") {
        format!("/health{health}")
    } else {
        Place::canonical(path).unwrap_or_else(|| path.to_owned())
    };
    // A path that is written out beats one with a brace in its place.
    let fitting = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.method == method)
        .filter_map(|endpoint| Some((endpoint, fits(endpoint.path, &canonical)?)));
    if let Some((endpoint, parameters)) = fitting.min_by_key(|(_, parameters)| parameters.len()) {
        return Match::Found(endpoint, parameters);
    }
    if canonical.starts_with("/api/admin/") {
        Match::UnknownAdmin
    } else {
        Match::Unknown
    }
}

/// What stands in the place of the braces, when the path has the template's form.
fn fits(template: &'static str, path: &str) -> Option<Parameters> {
    let mut parameters = Parameters::new();
    let mut wanted = template.split('/');
    let mut given = path.split('/');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameters),
            (Some(wanted), Some(given)) => match brace(wanted) {
                Some(name) if !given.is_empty() => parameters.push((name, given.to_owned())),
                None if wanted == given => {}
                Some(_) | None => return None,
            },
            (Some(_), None) | (None, Some(_)) => return None,
        }
    }
}

/// The name in a brace.
fn brace(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(method: &str, path: &str) -> Option<&'static str> {
        match find(method, path) {
            Match::Found(endpoint, _) => Some(endpoint.function),
            Match::UnknownAdmin | Match::Unknown => None,
        }
    }

    #[test]
    fn every_route_is_found_with_and_without_its_prefix() {
        for endpoint in &ENDPOINTS {
            for path in [endpoint.path.to_owned(), endpoint.other_path()] {
                let path = path
                    .replace("{flagKey}", "a%2Fb")
                    .replace("{userId}", "u")
                    .replace("{id}", "i")
                    .replace("{environment}", "staging");
                assert_eq!(
                    function(endpoint.method, &path),
                    Some(endpoint.function),
                    "{path}"
                );
            }
        }
        assert_eq!(
            find("GET", "/config/flags/a%2Fb"),
            Match::Found(&ENDPOINTS[1], vec![("flagKey", "a%2Fb".to_owned())])
        );
        let Match::Found(endpoint, parameters) = find("DELETE", "/admin/flags/a/users/u%201")
        else {
            panic!("a route");
        };
        assert_eq!(endpoint.function, "overrides");
        assert_eq!(
            parameters,
            [("flagKey", "a".to_owned()), ("userId", "u%201".to_owned())]
        );
    }

    #[test]
    fn nothing_else_is_found() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/api/config/flags/"),
            ("GET", "/api/config/flags/a/b"),
            ("GET", "/api/api/config/flags"),
            ("DELETE", "/api/config/flags/a"),
            ("GET", "/healthy"),
            ("GET", "/api/healthy"),
            ("GET", "/health/dead"),
        ] {
            assert_eq!(find(method, path), Match::Unknown, "{method} {path}");
        }
        for path in [
            "/api/admin/flags/a/b",
            "/admin/anything",
            "/admin/flags//users",
        ] {
            assert_eq!(find("GET", path), Match::UnknownAdmin, "{path}");
        }
    }
}
