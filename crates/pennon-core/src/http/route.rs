//! Every route: the table that the local server serves, and that the template is checked against.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::http::OfrepPath;

/// One route, and the function that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// `GET`, `PATCH`, …
    pub method: &'static str,
    /// The canonical path; a segment in braces stands for any one segment.
    pub path: &'static str,
    /// The function's name: its `Handler`, and the module of its handler.
    pub function: &'static str,
    /// Who may use it.
    pub authorization: Authorization,
    /// The parameters of its query.
    pub query: &'static [&'static str],
    /// What the route makes of a parameter that it does not know.
    pub unknown_parameters: UnknownParameters,
    /// What it does, in one line of the documents.
    pub summary: &'static str,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Anyone.
    Anyone,
    /// Anyone, an API key, or nobody, as `PUBLIC_CONFIG_ROUTES` says.
    PublicConfig,
    /// Whoever sends an API key of the environment.
    ApiKey,
    /// Admins, whose tokens the gateway verifies.
    Admin,
}

impl Authorization {
    /// Who may use the route, in the table of the documents.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::PublicConfig => "anyone, unless `PUBLIC_CONFIG_ROUTES` says otherwise",
            Self::ApiKey => "applications with an API key",
            Self::Admin => "admins",
        }
    }
}

/// What a route makes of a parameter of the query that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownParameters {
    /// Ignores it and names it in `X-Ignored-Parameters`: a route of the existing service, whose clients
    /// may send anything.
    Ignored,
    /// Refuses the request: a typing error, as in `?dryrun=true`, must not be a silent one.
    Refused,
}

/// What the routes of one flag take: the environment, and the key where no path leads to it.
const FLAG: &[&str] = &["environment", "flagKey"];
/// The same for lists.
const FLAG_LIST: &[&str] = &["environment", "flagKey", "page", "pageSize"];
/// What a public route takes; `userId` is believed where the settings say so.
const CALLER: &[&str] = &["environment", "userId"];

/// Every route. The template, the local server and the documents have no other.
// One route to a line or two is easier to read than the seven that rustfmt makes.
#[rustfmt::skip]
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint::anyone("GET", "/", "not-found", &["userId"],
        "The service's name, version and documentation"),
    Endpoint::config("GET", "/api/config/flags", "list-flags", CALLER,
        "The state of every flag for the caller").existing(),
    Endpoint::config("GET", "/api/config/flags/{flagKey}", "get-flag", CALLER,
        "The settings of one flag").existing(),
    Endpoint::admin("PATCH", "/api/admin/flags/{flagKey}", "update-flag", FLAG,
        "Change a flag").existing(),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}", "update-flag", FLAG,
        "Change a flag, as `PATCH` does").existing(),
    Endpoint::admin("GET", "/api/admin/flags", "manage-flags",
        &["environment", "search", "archived", "page", "pageSize"],
        "List flags with their definitions"),
    Endpoint::admin("POST", "/api/admin/flags", "manage-flags", &["environment"], "Create a flag"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}", "manage-flags", FLAG,
        "Read a flag with its definition, archived or not"),
    Endpoint::admin("DELETE", "/api/admin/flags/{flagKey}", "manage-flags",
        &["environment", "flagKey", "permanently"],
        "Archive a flag, or delete an archived flag for good"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/restore", "manage-flags", FLAG,
        "Restore an archived flag, disabled"),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/revert", "manage-flags", FLAG,
        "Revert a flag to its state before or after an earlier change"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/audit", "manage-flags", FLAG_LIST,
        "List the changes of a flag, newest first"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/users", "overrides", FLAG_LIST,
        "List the overrides of a flag, newest first").existing(),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/users", "overrides", FLAG,
        "Set the override of one user").existing(),
    Endpoint::admin("PUT", "/api/admin/flags/{flagKey}/users", "overrides",
        &["environment", "flagKey", "mode"], "Set the overrides of a flag, many at once"),
    Endpoint::admin("DELETE", "/api/admin/flags/{flagKey}/users/{userId}", "overrides",
        &["environment", "flagKey", "userId"], "Remove the override of one user").existing(),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/schedule", "schedules", FLAG,
        "List scheduled changes and their results, by time").existing(),
    Endpoint::admin("POST", "/api/admin/flags/{flagKey}/schedule", "schedules", FLAG,
        "Schedule a change").existing(),
    Endpoint::admin("DELETE", "/api/admin/flags/{flagKey}/schedule/{id}", "schedules", FLAG,
        "Cancel a scheduled change").existing(),
    Endpoint::admin("GET", "/api/admin/environments", "manage-environments", &[],
        "List environments"),
    Endpoint::admin("POST", "/api/admin/environments", "manage-environments", &[],
        "Create an environment without flags"),
    Endpoint::admin("GET", "/api/admin/environments/{environment}/settings", "manage-environments",
        &[], "Read the settings of an environment"),
    Endpoint::admin("PUT", "/api/admin/environments/{environment}/settings", "manage-environments",
        &[], "Replace the settings of an environment"),
    Endpoint::admin("GET", "/api/admin/environments/{environment}/export", "manage-environments",
        &[], "Export the flags in use as a file for flagd"),
    Endpoint::admin("POST", "/api/admin/environments/{environment}/import", "manage-environments",
        &["dryRun", "mode"], "Import a file for flagd"),
    Endpoint::admin("POST", "/api/admin/environments/{environment}/purge", "manage-environments",
        &[], "Purge an environment from the cache"),
    Endpoint::admin("GET", "/api/admin/environments/{environment}/audit", "manage-environments",
        &["page", "pageSize"], "List the changes of an environment, newest first"),
    Endpoint::admin("GET", "/api/admin/flags/stale", "report-usage",
        &["environment", "days", "page", "pageSize"], "List flags that are no longer needed"),
    Endpoint::admin("GET", "/api/admin/flags/{flagKey}/usage", "report-usage",
        &["environment", "flagKey", "days"], "Count the evaluations of a flag, by day and variant"),
    Endpoint::admin("POST", "/api/admin/keys", "manage-keys", &["environment"],
        "Create an API key and show it once"),
    Endpoint::admin("GET", "/api/admin/keys", "manage-keys", &["environment", "page", "pageSize"],
        "List API keys, without their values"),
    Endpoint::admin("DELETE", "/api/admin/keys/{keyId}", "manage-keys", &["environment"],
        "Revoke an API key for good"),
    // Clients that are told of changes name in the query what they were told.
    Endpoint::key("POST", "/ofrep/v1/evaluate/flags", "evaluate-flags",
        &["environment", "userId", "flagConfigEtag", "flagConfigLastModified"],
        "Evaluate all flags that the caller may see"),
    Endpoint::key("POST", "/ofrep/v1/evaluate/flags/{flagKey}", "evaluate-flag", CALLER,
        "Evaluate one flag"),
    Endpoint::anyone("GET", "/health", "health", &["userId"],
        "Check Redis and PostgreSQL health").existing(),
    Endpoint::anyone("GET", "/health/live", "health", &["userId"],
        "Check that the process answers").existing(),
    Endpoint::anyone("GET", "/health/ready", "health", &["userId"],
        "Check that the service can answer requests").existing(),
];

/// What the canonical path of a route begins with, or does not.
pub(crate) const PREFIX: &str = "/api";
/// What every path begins with where only admins may look, with the prefix.
const ADMIN: &str = "/api/admin/";

impl Endpoint {
    const fn anyone(
        method: &'static str,
        path: &'static str,
        function: &'static str,
        query: &'static [&'static str],
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            function,
            authorization: Authorization::Anyone,
            query,
            unknown_parameters: UnknownParameters::Refused,
            summary,
        }
    }

    const fn config(
        method: &'static str,
        path: &'static str,
        function: &'static str,
        query: &'static [&'static str],
        summary: &'static str,
    ) -> Self {
        Self {
            authorization: Authorization::PublicConfig,
            ..Self::anyone(method, path, function, query, summary)
        }
    }

    const fn key(
        method: &'static str,
        path: &'static str,
        function: &'static str,
        query: &'static [&'static str],
        summary: &'static str,
    ) -> Self {
        Self {
            authorization: Authorization::ApiKey,
            ..Self::anyone(method, path, function, query, summary)
        }
    }

    const fn admin(
        method: &'static str,
        path: &'static str,
        function: &'static str,
        query: &'static [&'static str],
        summary: &'static str,
    ) -> Self {
        Self {
            authorization: Authorization::Admin,
            ..Self::anyone(method, path, function, query, summary)
        }
    }

    /// A route that the existing service has as well.
    const fn existing(self) -> Self {
        Self {
            unknown_parameters: UnknownParameters::Ignored,
            ..self
        }
    }

    /// Whether only admins may use it.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.authorization == Authorization::Admin
    }

    /// Whether its path has no other method.
    pub(super) fn is_alone(&self) -> bool {
        let mut others = ENDPOINTS.iter();
        !others.any(|other| other.path == self.path && other.method != self.method)
    }

    /// Whether this is one of OFREP's routes, which answer in that protocol's words.
    #[must_use]
    pub fn is_ofrep(&self) -> bool {
        self.path.starts_with("/ofrep/")
    }

    /// Whether this is one of the two routes that an existing service serves to anyone.
    #[must_use]
    pub fn is_public_config(&self) -> bool {
        self.authorization == Authorization::PublicConfig
    }

    /// What the route calls the segment in braces.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        let inner = self.path.split_once('{').map_or("", |(_, rest)| rest);
        inner.split_once('}').map_or("", |(name, _)| name)
    }

    /// The same route with or without the `/api` prefix. Both are served: the proxy before the existing
    /// service stripped it.
    #[must_use]
    pub fn other_path(&self) -> String {
        match self.path.strip_prefix(PREFIX) {
            Some(rest) => rest.to_owned(),
            None if self.path == "/" => PREFIX.to_owned(),
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

/// What stands in a path in the place of each brace, decoded, under the name in the brace.
pub type Parameters = Vec<(&'static str, String)>;

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Match {
    /// A route, and what stands in the place of its braces.
    Found(&'static Endpoint, Parameters),
    /// A path that has routes, none of them for this method.
    OtherMethod {
        /// One of these routes.
        endpoint: &'static Endpoint,
        /// What stands in the place of its braces.
        parameters: Parameters,
        /// The methods that the path has, as the header `Allow` names them.
        allow: String,
    },
    /// Nothing that exists, in a place where only admins may look.
    UnknownAdmin,
    /// Nothing that exists.
    Unknown,
}

impl Match {
    /// The function that answers, which is `not-found` where there is no route.
    #[must_use]
    pub fn function(&self) -> &'static str {
        match self {
            Self::Found(endpoint, _) => endpoint.function,
            Self::OtherMethod { .. } | Self::UnknownAdmin | Self::Unknown => "not-found",
        }
    }
}

/// An endpoint with what matching needs of its path. Every request is matched, so the paths of the table
/// are taken apart once and not for each request.
struct Template {
    endpoint: &'static Endpoint,
    /// The segments of the path without its `/api`.
    segments: Vec<Segment>,
    /// See [`Endpoint::other_path`].
    other_path: String,
}

/// A segment of a template.
enum Segment {
    /// A request has this text in its place.
    Literal(&'static str),
    /// A request has any text that is not empty in its place; this is the name in the braces.
    Parameter(&'static str),
}

impl Segment {
    fn of(text: &'static str) -> Self {
        match text.strip_prefix('{').and_then(|it| it.strip_suffix('}')) {
            Some(name) => Self::Parameter(name),
            None => Self::Literal(text),
        }
    }

    fn fits(&self, given: &str) -> bool {
        match self {
            Self::Literal(text) => *text == given,
            Self::Parameter(_) => !given.is_empty(),
        }
    }

    fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter(name) => Some(name),
        }
    }
}

impl Template {
    fn of(endpoint: &'static Endpoint) -> Self {
        let segments = segments(endpoint.path).into_iter().map(Segment::of);
        Self {
            endpoint,
            segments: segments.collect(),
            other_path: endpoint.other_path(),
        }
    }

    fn fits(&self, path: &[&str]) -> bool {
        self.segments.len() == path.len()
            && std::iter::zip(&self.segments, path).all(|(segment, given)| segment.fits(given))
    }
}

/// The templates of [`ENDPOINTS`], in the same order.
static TEMPLATES: LazyLock<Vec<Template>> =
    LazyLock::new(|| ENDPOINTS.iter().map(Template::of).collect());

/// The segments of a path without its `/api`: a route is served with and without the prefix.
fn segments(path: &str) -> Vec<&str> {
    let mut segments: Vec<&str> = path.split('/').collect();
    if segments.get(1) == Some(&&PREFIX[1..]) {
        segments.remove(1);
        if segments.len() == 1 {
            segments.push("");
        }
    }
    segments
}

/// Finds the route of a request by its path, percent-encoded. `HEAD` leads where `GET` does.
#[must_use]
pub fn find(method: &str, path: &str) -> Match {
    // A base URL with a slash at its end makes an empty segment before `ofrep`.
    let canonical = OfrepPath::canonical(path);
    let path = canonical.as_deref().unwrap_or(path);
    let given = segments(path);
    let fitting = TEMPLATES.iter().filter(|template| template.fits(&given));
    let fitting = fitting.map(|template| {
        let parameters = std::iter::zip(&template.segments, &given)
            .filter_map(|(segment, text)| Some((segment.parameter()?, decoded(text))));
        (template.endpoint, parameters.collect())
    });
    choose(method, &fitting.collect::<Vec<_>>(), path)
}

/// Finds the route of a request that the gateway has matched with this path of the template, and takes
/// its parameters from the gateway too.
#[must_use]
pub fn find_template(method: &str, path: &str, given: &BTreeMap<String, String>) -> Match {
    let fitting = TEMPLATES
        .iter()
        .filter(|template| template.endpoint.path == path || template.other_path == path);
    let fitting = fitting.map(|template| {
        let names = template.segments.iter().filter_map(Segment::parameter);
        let parameters = names.filter_map(|name| Some((name, given.get(name)?.clone())));
        (template.endpoint, parameters.collect())
    });
    choose(method, &fitting.collect::<Vec<_>>(), path)
}

/// Chooses among the routes that have the path.
fn choose(method: &str, fitting: &[(&'static Endpoint, Parameters)], path: &str) -> Match {
    // A path that is written out beats one with a brace in its place.
    let best = |(at, (_, parameters)): &(usize, &(&Endpoint, Parameters))| (parameters.len(), *at);
    let method = if method == "HEAD" { "GET" } else { method };
    let same_method = fitting.iter().enumerate();
    let same_method = same_method.filter(|(_, (endpoint, _))| endpoint.method == method);
    if let Some((_, (endpoint, parameters))) = same_method.min_by_key(best) {
        return Match::Found(endpoint, parameters.clone());
    }
    if let Some((_, (endpoint, parameters))) = fitting.iter().enumerate().min_by_key(best) {
        let same_path = fitting
            .iter()
            .filter(|(other, _)| other.path == endpoint.path);
        return Match::OtherMethod {
            endpoint,
            parameters: parameters.clone(),
            allow: allow(same_path.map(|(endpoint, _)| endpoint.method)),
        };
    }
    if [ADMIN, &ADMIN[PREFIX.len()..]]
        .iter()
        .any(|start| path.starts_with(start))
    {
        Match::UnknownAdmin
    } else {
        Match::Unknown
    }
}

/// The methods of a path: `HEAD` beside `GET`, and `OPTIONS`, which is answered everywhere.
fn allow(methods: impl Iterator<Item = &'static str>) -> String {
    let mut named: Vec<&str> = Vec::new();
    for method in methods {
        let with_head = if method == "GET" { Some("HEAD") } else { None };
        for method in [Some(method), with_head].into_iter().flatten() {
            if !named.contains(&method) {
                named.push(method);
            }
        }
    }
    named.push("OPTIONS");
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(method: &str, path: &str) -> Option<&'static str> {
        match find(method, path) {
            Match::Found(endpoint, _) => Some(endpoint.function),
            Match::OtherMethod { .. } | Match::UnknownAdmin | Match::Unknown => None,
        }
    }

    fn allowed(method: &str, path: &str) -> Option<String> {
        match find(method, path) {
            Match::OtherMethod { allow, .. } => Some(allow),
            Match::Found(..) | Match::UnknownAdmin | Match::Unknown => None,
        }
    }

    #[test]
    fn every_route_is_found_with_and_without_its_prefix() {
        for endpoint in ENDPOINTS {
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
            Match::Found(&ENDPOINTS[2], vec![("flagKey", "a/b".to_owned())])
        );
        let Match::Found(endpoint, parameters) = find("DELETE", "/admin/flags/a/users/u%201")
        else {
            panic!("a route");
        };
        assert_eq!(endpoint.function, "overrides");
        assert_eq!(
            parameters,
            [("flagKey", "a".to_owned()), ("userId", "u 1".to_owned())]
        );
    }

    #[test]
    fn the_gateways_choice_is_taken_with_and_without_the_prefix_whatever_the_values() {
        let given = BTreeMap::from([
            ("flagKey".to_owned(), "a/b?c#d%2F".to_owned()),
            ("proxy".to_owned(), "x".to_owned()),
        ]);
        for endpoint in ENDPOINTS {
            for path in [endpoint.path.to_owned(), endpoint.other_path()] {
                let Match::Found(found, parameters) = find_template(endpoint.method, &path, &given)
                else {
                    panic!("{path}");
                };
                assert_eq!(found, endpoint);
                let wanted = endpoint.path.contains("{flagKey}");
                let wanted = wanted.then(|| ("flagKey", given["flagKey"].clone()));
                assert_eq!(parameters, Vec::from_iter(wanted), "{path}");
            }
        }
        for template in ["/x", "/flags/{flagKey}", "/ofrep/{proxy}"] {
            assert_eq!(find_template("GET", template, &given), Match::Unknown);
        }
    }

    #[test]
    fn head_leads_where_get_does() {
        for path in ["/health", "/config/flags", "/api/admin/flags/stale"] {
            assert_eq!(find("HEAD", path), find("GET", path), "{path}");
        }
        assert_eq!(function("HEAD", "/ofrep/v1/evaluate/flags"), None);
    }

    #[test]
    fn a_path_with_other_methods_names_them() {
        for (method, path, allow) in [
            ("DELETE", "/api/config/flags/a", "GET, HEAD, OPTIONS"),
            (
                "PUT",
                "/admin/flags/a",
                "PATCH, POST, GET, HEAD, DELETE, OPTIONS",
            ),
            // The path that is written out, not that of a flag called `stale`.
            ("PUT", "/admin/flags/stale", "GET, HEAD, OPTIONS"),
            ("GET", "/ofrep/v1/evaluate/flags", "POST, OPTIONS"),
            ("OPTIONS", "/health/live", "GET, HEAD, OPTIONS"),
            ("get", "/health/live", "GET, HEAD, OPTIONS"),
        ] {
            assert_eq!(
                allowed(method, path).as_deref(),
                Some(allow),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn nothing_else_is_found() {
        for (method, path) in [
            ("GET", ""),
            ("GET", "/api/config/flags/"),
            ("GET", "/api/config/flags/a/b"),
            ("GET", "/api/api/config/flags"),
            ("GET", "/x/config/flags"),
            ("POST", "/x/ofrep/v1/evaluate/flags"),
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
