//! The table of routes. The local server serves it, and `cargo xtask generate` writes the template and the
//! documents from it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use self::Authorization::{Admin, Anyone, ApiKey, Editor, PublicConfig, SyncKey, Viewer};
use crate::http::OfrepPath;

/// One route, and the function that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// `GET`, `PATCH`, …
    pub method: &'static str,
    /// The canonical path. `{name}` stands for any one segment that is not empty, `{name+}` for one or more of any
    /// kind.
    pub path: &'static str,
    /// The function's name: its `Handler`, and the module of its handler.
    pub function: &'static str,
    /// Who may call the route.
    pub authorization: Authorization,
    /// The parameters of its query.
    pub query: &'static [&'static str],
    /// How the route handles a parameter that is not in `query`.
    pub unknown_parameters: UnknownParameters,
    /// One line for the documents.
    pub summary: &'static str,
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    /// Anyone.
    Anyone,
    /// Anyone, applications with an API key, or nobody: `PUBLIC_CONFIG_ROUTES` decides.
    PublicConfig,
    /// Applications with an API key of the environment.
    ApiKey,
    /// Programs that evaluate flags themselves, with a sync key of the environment.
    SyncKey,
    /// Everyone with a role, whose token the gateway verifies.
    Viewer,
    /// Editors of the request's environment, and admins.
    Editor,
    /// Admins.
    Admin,
}

impl Authorization {
    /// The text for the table in the documents.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::PublicConfig => "anyone, unless restricted by `PUBLIC_CONFIG_ROUTES`",
            Self::ApiKey => "applications with an API key",
            Self::SyncKey => "programs with a sync key",
            Self::Viewer => "viewers",
            Self::Editor => "editors",
            Self::Admin => "admins",
        }
    }
}

/// How a route handles a parameter of the query that it does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownParameters {
    /// Ignores it and names it in `X-Ignored-Parameters`: for routes of the existing service, whose clients
    /// may send anything.
    Ignored,
    /// Rejects the request, so that a misspelled parameter, such as `?dryrun=true`, is not silently ignored.
    Rejected,
    /// Accepts it: the scripts of the console read the query of the page.
    Accepted,
}

/// Parameters of the routes of one flag: the environment, and the key for clients that cannot send it in the
/// path.
const FLAG_QUERY: &[&str] = &["environment", "flagKey"];
/// [`FLAG_QUERY`] for changes that have a dry run.
const FLAG_CHANGE_QUERY: &[&str] = &["environment", "flagKey", "dryRun"];
/// [`FLAG_QUERY`] for lists.
const FLAG_LIST_QUERY: &[&str] = &["environment", "flagKey", "page", "pageSize"];
/// Parameters of the config and OFREP routes. Only `GET /api/config/flags` uses `userId`, and only with
/// `TRUST_USER_ID_PARAMETER`.
const CALLER_QUERY: &[&str] = &["environment", "userId"];

/// Every route of the API. docs/openapi.yaml describes them all.
// rustfmt would put each argument on its own line.
#[rustfmt::skip]
pub const ENDPOINTS: &[Endpoint] = &[
    route("GET", "/", "not-found", Anyone, &["userId"],
        "The service's name, version and documentation"),
    route("GET", "/api/config/flags", "list-flags", PublicConfig, CALLER_QUERY,
        "The values of all boolean flags for the caller").existing(),
    route("GET", "/api/config/flags/{flagKey}", "get-flag", PublicConfig, CALLER_QUERY,
        "The settings of one flag").existing(),
    route("PATCH", "/api/admin/flags/{flagKey}", "update-flag", Editor, FLAG_CHANGE_QUERY,
        "Change a flag").existing(),
    route("POST", "/api/admin/flags/{flagKey}", "update-flag", Editor, FLAG_CHANGE_QUERY,
        "Change a flag, as `PATCH` does").existing(),
    route("GET", "/api/admin/flags", "manage-flags", Viewer,
        &["environment", "search", "archived", "page", "pageSize"],
        "List flags with their definitions"),
    route("POST", "/api/admin/flags", "manage-flags", Editor, &["environment"], "Create a flag"),
    route("GET", "/api/admin/flags/{flagKey}", "manage-flags", Viewer, FLAG_QUERY,
        "Read a flag with its definition, archived or not"),
    route("DELETE", "/api/admin/flags/{flagKey}", "manage-flags", Editor,
        &["environment", "flagKey", "permanently"],
        "Archive a flag, or permanently delete an archived flag"),
    route("POST", "/api/admin/flags/{flagKey}/explain", "manage-flags", Viewer, FLAG_QUERY,
        "Evaluate a flag for a context and show the steps that decided"),
    route("POST", "/api/admin/flags/{flagKey}/restore", "manage-flags", Editor, FLAG_QUERY,
        "Restore an archived flag, disabled"),
    route("POST", "/api/admin/flags/{flagKey}/revert", "manage-flags", Editor, FLAG_QUERY,
        "Revert a flag to its state before or after an earlier change"),
    route("GET", "/api/admin/flags/{flagKey}/audit", "manage-flags", Viewer, FLAG_LIST_QUERY,
        "List the changes of a flag, newest first"),
    route("GET", "/api/admin/flags/{flagKey}/users", "overrides", Viewer, FLAG_LIST_QUERY,
        "List the overrides of a flag, newest first").existing(),
    route("POST", "/api/admin/flags/{flagKey}/users", "overrides", Editor, FLAG_QUERY,
        "Set the override of one user").existing(),
    route("PUT", "/api/admin/flags/{flagKey}/users", "overrides", Editor,
        &["environment", "flagKey", "mode"], "Set the overrides of a flag, many at once"),
    route("DELETE", "/api/admin/flags/{flagKey}/users/{userId}", "overrides", Editor,
        &["environment", "flagKey", "userId"], "Remove the override of one user").existing(),
    route("GET", "/api/admin/flags/{flagKey}/schedule", "schedules", Viewer, FLAG_QUERY,
        "List scheduled changes and their results, by time").existing(),
    route("POST", "/api/admin/flags/{flagKey}/schedule", "schedules", Editor, FLAG_QUERY,
        "Schedule a change").existing(),
    route("DELETE", "/api/admin/flags/{flagKey}/schedule/{id}", "schedules", Editor, FLAG_QUERY,
        "Cancel a scheduled change").existing(),
    route("POST", "/api/admin/flags/{flagKey}/ramp", "ramps", Editor, FLAG_QUERY,
        "Start a ramp: raise the rollout step by step"),
    route("GET", "/api/admin/flags/{flagKey}/ramp", "ramps", Viewer, FLAG_QUERY,
        "Read the newest ramp of a flag, and the results of earlier ones"),
    route("POST", "/api/admin/flags/{flagKey}/ramp/pause", "ramps", Editor, FLAG_QUERY,
        "Pause a ramp"),
    route("POST", "/api/admin/flags/{flagKey}/ramp/resume", "ramps", Editor, FLAG_QUERY,
        "Resume a ramp; its step bakes again"),
    route("POST", "/api/admin/flags/{flagKey}/ramp/advance", "ramps", Editor, FLAG_QUERY,
        "Begin the next step of a ramp now, and grant its approval"),
    route("POST", "/api/admin/flags/{flagKey}/ramp/rollback", "ramps", Editor, FLAG_QUERY,
        "Roll a flag back to its state before the ramp"),
    route("POST", "/api/admin/flags/{flagKey}/ramp/acknowledge", "ramps", Editor, FLAG_QUERY,
        "Acknowledge a rollback, so that the flag can be changed again"),
    route("POST", "/api/admin/flags/{flagKey}/ramp/cancel", "ramps", Editor, FLAG_QUERY,
        "End a ramp without changing the flag"),
    route("GET", "/api/admin/me", "report-usage", Viewer, &[],
        "Read who the caller is, and what they may do"),
    route("GET", "/api/admin/environments", "manage-environments", Viewer, &["page", "pageSize"],
        "List environments"),
    route("POST", "/api/admin/environments", "manage-environments", Admin, &[],
        "Create an environment without flags"),
    route("GET", "/api/admin/environments/{environment}/flags", "manage-environments", Viewer,
        &[], "List all flags of an environment, without definitions"),
    route("GET", "/api/admin/environments/{environment}/settings", "manage-environments", Viewer,
        &[], "Read the settings of an environment"),
    route("PUT", "/api/admin/environments/{environment}/settings", "manage-environments", Admin,
        &["dryRun"], "Replace the settings of an environment"),
    route("GET", "/api/admin/environments/{environment}/export", "manage-environments", Viewer,
        &[], "Export all active flags as a flagd file"),
    route("POST", "/api/admin/environments/{environment}/import", "manage-environments", Admin,
        &["dryRun", "mode"], "Import a flagd file"),
    route("POST", "/api/admin/environments/{environment}/copy", "manage-environments", Editor,
        &["dryRun"], "Copy flags from another environment"),
    route("POST", "/api/admin/environments/{environment}/purge", "manage-environments", Admin,
        &[], "Purge an environment from the cache"),
    route("GET", "/api/admin/environments/{environment}/audit", "manage-environments", Viewer,
        &["page", "pageSize"], "List the changes of an environment, newest first"),
    route("GET", "/api/admin/webhooks", "manage-keys", Viewer, &["environment"],
        "List the webhooks of an environment and their failures, without secrets"),
    route("POST", "/api/admin/webhooks", "manage-keys", Admin, &["environment"],
        "Create a webhook and show its secret once"),
    route("POST", "/api/admin/webhooks/{webhookId}/enable", "manage-keys", Admin,
        &["environment"], "Enable a webhook that was disabled after failures"),
    route("DELETE", "/api/admin/webhooks/{webhookId}", "manage-keys", Admin,
        &["environment"], "Delete a webhook"),
    route("GET", "/api/admin/flags/stale", "report-usage", Viewer,
        &["environment", "days", "page", "pageSize"], "List flags that are no longer needed"),
    route("GET", "/api/admin/flags/{flagKey}/usage", "report-usage", Viewer,
        &["environment", "flagKey", "days"], "Count the evaluations of a flag, by day and variant"),
    route("POST", "/api/admin/keys", "manage-keys", Admin, &["environment"],
        "Create an API key and show it once"),
    route("GET", "/api/admin/keys", "manage-keys", Viewer, &["environment", "page", "pageSize"],
        "List API keys, without their values"),
    route("DELETE", "/api/admin/keys/{keyId}", "manage-keys", Admin, &["environment"],
        "Revoke an API key permanently"),
    // Clients that receive notifications of changes send the values of the notification in the query.
    route("POST", "/ofrep/v1/evaluate/flags", "evaluate-flags", ApiKey,
        &["environment", "userId", "flagConfigEtag", "flagConfigLastModified"],
        "Evaluate all flags that the caller may see"),
    route("POST", "/ofrep/v1/evaluate/flags/{flagKey}", "evaluate-flag", ApiKey, CALLER_QUERY,
        "Evaluate one flag"),
    route("GET", "/v1/flags", "sync-flags", SyncKey, &["environment"],
        "Read all flags with their rules, to evaluate them elsewhere"),
    route("GET", "/v1/flags/{environment}", "sync-flags", SyncKey, &[],
        "Read all flags with their rules, if the key belongs to this environment"),
    route("POST", "/v1/evaluation-counts", "sync-flags", SyncKey, &[],
        "Count evaluations that were made elsewhere"),
    route("GET", "/health", "health", Anyone, &["userId"],
        "Check Redis and PostgreSQL health").existing(),
    route("GET", "/health/live", "health", Anyone, &["userId"],
        "Check that the process answers").existing(),
    route("GET", "/health/ready", "health", Anyone, &["userId"],
        "Check that the service can answer requests").existing(),
];

/// The routes of the console. They are pages and files for browsers and not part of the API: docs/openapi.yaml does not
/// describe them, they have no CORS headers, and they are not served below `/api`.
pub const PAGES: &[Endpoint] = &[
    page("/console", "Open the console"),
    page(
        "/console/{proxy+}",
        "Open a page of the console, or load one of its files",
    ),
];

/// The prefix of most canonical paths. Every route of the API is served with and without it.
pub(crate) const PREFIX: &str = "/api";
/// The prefix of all admin routes, with [`PREFIX`].
const ADMIN: &str = "/api/admin/";

/// An entry of the table. A request with a parameter that `query` does not list is rejected.
const fn route(
    method: &'static str,
    path: &'static str,
    function: &'static str,
    authorization: Authorization,
    query: &'static [&'static str],
    summary: &'static str,
) -> Endpoint {
    Endpoint {
        method,
        path,
        function,
        authorization,
        query,
        unknown_parameters: UnknownParameters::Rejected,
        summary,
    }
}

/// An entry of [`PAGES`].
const fn page(path: &'static str, summary: &'static str) -> Endpoint {
    Endpoint {
        method: "GET",
        path,
        function: "console",
        authorization: Anyone,
        query: &[],
        unknown_parameters: UnknownParameters::Accepted,
        summary,
    }
}

impl Endpoint {
    /// The existing service has this route too, so unknown parameters are ignored.
    const fn existing(self) -> Self {
        Self {
            unknown_parameters: UnknownParameters::Ignored,
            ..self
        }
    }

    /// Whether this is an admin route: callers need a role.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        match self.authorization {
            Viewer | Editor | Admin => true,
            Anyone | PublicConfig | ApiKey | SyncKey => false,
        }
    }

    /// Whether the path names the environment of the request, which otherwise is in the query.
    pub(crate) fn has_environment_in_path(&self) -> bool {
        self.path.contains("/{environment}")
    }

    /// Whether this is one of [`PAGES`].
    #[must_use]
    pub fn is_page(&self) -> bool {
        PAGES.contains(self)
    }

    /// Whether the path has no route with another method.
    pub(crate) fn has_one_method(&self) -> bool {
        let mut others = ENDPOINTS.iter().chain(PAGES);
        !others.any(|other| other.path == self.path && other.method != self.method)
    }

    /// Whether this is a route of OFREP, which has its own format of errors.
    #[must_use]
    pub fn is_ofrep(&self) -> bool {
        self.path.starts_with("/ofrep/")
    }

    /// Whether this is one of the two config routes, which `PUBLIC_CONFIG_ROUTES` may restrict.
    #[must_use]
    pub fn is_public_config(&self) -> bool {
        self.authorization == Authorization::PublicConfig
    }

    /// The name of the first segment in braces.
    #[must_use]
    pub fn parameter(&self) -> &'static str {
        let inner = self.path.split_once('{').map_or("", |(_, rest)| rest);
        inner.split_once('}').map_or("", |(name, _)| name)
    }

    /// The path with the `/api` prefix removed, or added where the canonical path has none. Both are served,
    /// because the proxy in front of the existing service stripped the prefix. `None` for [`PAGES`].
    #[must_use]
    pub fn other_path(&self) -> Option<String> {
        if self.is_page() {
            return None;
        }
        Some(match self.path.strip_prefix(PREFIX) {
            Some(rest) => rest.to_owned(),
            None if self.path == "/" => PREFIX.to_owned(),
            None => format!("{PREFIX}{}", self.path),
        })
    }

    /// The paths at which the route is served.
    pub fn paths(&self) -> impl Iterator<Item = String> + use<> {
        [Some(self.path.to_owned()), self.other_path()]
            .into_iter()
            .flatten()
    }
}

/// A percent-decoded segment of a path; `None` if it does not decode to UTF-8. Taken literally, `%FF` would name the flag
/// or user whose correct path is `%25FF`.
#[must_use]
pub fn decoded(segment: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    decoded.ok().map(std::borrow::Cow::into_owned)
}

/// Replaces every segment that is not a literal of some route by `*`.
pub(super) fn mask(path: &str) -> String {
    /// More segments than any route has.
    const MAX_SEGMENTS: usize = 8;
    let is_literal = |segment: &str| {
        let mut routes = ENDPOINTS.iter().chain(PAGES);
        routes.any(|endpoint| endpoint.path.split('/').any(|literal| literal == segment))
    };
    let mut segments = path.split('/').skip(1);
    let mut masked = String::new();
    for segment in segments.by_ref().take(MAX_SEGMENTS) {
        masked.push('/');
        masked.push_str(if is_literal(segment) { segment } else { "*" });
    }
    if segments.next().is_some() {
        masked.push_str("/…");
    }
    masked
}

/// The values of the segments in braces, decoded, with the names in the braces.
pub type Parameters = Vec<(&'static str, String)>;

/// The route of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Match {
    /// A route and its parameters.
    Found(&'static Endpoint, Parameters),
    /// The path has routes, but none for this method.
    OtherMethod {
        /// One of these routes.
        endpoint: &'static Endpoint,
        /// Its parameters.
        parameters: Parameters,
        /// The value of the header `Allow`.
        allow: String,
    },
    /// No route, under the prefix of admin routes.
    UnknownAdmin,
    /// No route.
    Unknown,
}

impl Match {
    /// The function that answers: `not-found` without a route.
    #[must_use]
    pub fn function(&self) -> &'static str {
        match self {
            Self::Found(endpoint, _) => endpoint.function,
            Self::OtherMethod { .. } | Self::UnknownAdmin | Self::Unknown => "not-found",
        }
    }

    /// Whether the path is one of [`PAGES`], with any method.
    pub(crate) fn is_page(&self) -> bool {
        match self {
            Self::Found(endpoint, _) | Self::OtherMethod { endpoint, .. } => endpoint.is_page(),
            Self::UnknownAdmin | Self::Unknown => false,
        }
    }
}

/// An endpoint with the parts of its path. Every request is matched, so the paths of the table are split
/// once and not for each request.
struct Template {
    endpoint: &'static Endpoint,
    /// The segments of the path without its `/api`.
    segments: Vec<Segment>,
    /// See [`Endpoint::other_path`].
    other_path: Option<String>,
}

/// A segment of a template.
enum Segment {
    /// Matches this text.
    Literal(&'static str),
    /// Matches any text that is not empty; holds the name in the braces.
    Parameter(&'static str),
    /// `{name+}`, the last segment of a template: matches one or more segments, also empty ones; holds the name.
    Rest(&'static str),
}

impl Segment {
    fn of(text: &'static str) -> Self {
        let Some(name) = text.strip_prefix('{').and_then(|it| it.strip_suffix('}')) else {
            return Self::Literal(text);
        };
        match name.strip_suffix('+') {
            Some(name) => Self::Rest(name),
            None => Self::Parameter(name),
        }
    }

    fn fits(&self, given: &str) -> bool {
        match self {
            Self::Literal(text) => *text == given,
            Self::Parameter(_) => !given.is_empty(),
            Self::Rest(_) => true,
        }
    }

    fn parameter(&self) -> Option<&'static str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter(name) | Self::Rest(name) => Some(name),
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
        let has_length = match self.segments.last() {
            Some(Segment::Rest(_)) => path.len() >= self.segments.len(),
            Some(Segment::Literal(_) | Segment::Parameter(_)) | None => {
                path.len() == self.segments.len()
            }
        };
        has_length
            && std::iter::zip(&self.segments, path).all(|(segment, given)| segment.fits(given))
    }

    /// The parameters of a path that fits, decoded; `None` if one cannot be decoded.
    fn parameters(&self, path: &[&str]) -> Option<Parameters> {
        let segments = self.segments.iter().enumerate();
        let parameters = segments.filter_map(|(at, segment)| {
            let (name, text) = match segment {
                Segment::Literal(_) => return None,
                Segment::Parameter(name) => (*name, decoded(path.get(at)?)),
                Segment::Rest(name) => (*name, decoded(&path.get(at..)?.join("/"))),
            };
            Some(text.map(|text| (name, text)))
        });
        parameters.collect()
    }
}

/// The templates of [`ENDPOINTS`] and [`PAGES`], in the same order.
static TEMPLATES: LazyLock<Vec<Template>> =
    LazyLock::new(|| ENDPOINTS.iter().chain(PAGES).map(Template::of).collect());

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

/// Finds the route of a request by its percent-encoded path. `HEAD` uses the route of `GET`. A path that does not decode
/// to UTF-8 has no route.
#[must_use]
pub fn find(method: &str, path: &str) -> Match {
    // A base URL with a slash at its end makes an empty segment before `ofrep`.
    let canonical = OfrepPath::canonical(path);
    let path = canonical.as_deref().unwrap_or(path);
    let given = segments(path);
    let has_prefix = given.len() < path.split('/').count();
    let fitting = TEMPLATES
        .iter()
        .filter(|template| template.fits(&given) && (template.other_path.is_some() || !has_prefix));
    let fitting =
        fitting.filter_map(|template| Some((template.endpoint, template.parameters(&given)?)));
    choose(method, &fitting.collect::<Vec<_>>(), path)
}

/// Finds the route of a request by the path of the template that the gateway matched. The parameters come
/// from the gateway too.
#[must_use]
pub fn find_template(method: &str, path: &str, given: &BTreeMap<String, String>) -> Match {
    let fitting = TEMPLATES
        .iter()
        .filter(|it| it.endpoint.path == path || it.other_path.as_deref() == Some(path));
    let fitting = fitting.map(|template| {
        let names = template.segments.iter().filter_map(Segment::parameter);
        let parameters = names.filter_map(|name| Some((name, given.get(name)?.clone())));
        (template.endpoint, parameters.collect())
    });
    choose(method, &fitting.collect::<Vec<_>>(), path)
}

/// Chooses among the routes whose path matches.
fn choose(method: &str, fitting: &[(&'static Endpoint, Parameters)], path: &str) -> Match {
    // A literal segment beats one in braces.
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

/// The methods of a path, with `HEAD` where there is `GET`, and with `OPTIONS`, which every path answers.
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
            for path in endpoint.paths() {
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
            for path in endpoint.paths() {
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
    fn only_admin_paths_need_a_role_and_every_get_among_them_is_for_viewers() {
        for endpoint in ENDPOINTS {
            let is_under_admin = endpoint.path.starts_with(ADMIN);
            let place = format!("{} {}", endpoint.method, endpoint.path);
            assert_eq!(endpoint.is_admin(), is_under_admin, "{place}");
            let is_get = endpoint.method == "GET";
            match endpoint.authorization {
                Viewer => {}
                Editor => {
                    let in_query = endpoint.query.contains(&"environment");
                    assert!(!is_get, "{place}");
                    assert!(in_query != endpoint.has_environment_in_path(), "{place}");
                }
                Admin => assert!(!is_get, "{place}"),
                Anyone | PublicConfig | ApiKey | SyncKey => assert!(!is_under_admin, "{place}"),
            }
        }
    }

    #[test]
    fn pages_of_the_console_have_any_path_below_it_and_no_prefix() {
        for (path, proxy) in [
            ("/console", None),
            ("/console/", Some("")),
            ("/console/app.js", Some("app.js")),
            ("/console/staging/flags/a%2Fb", Some("staging/flags/a/b")),
            ("/console//x/", Some("/x/")),
        ] {
            let Match::Found(endpoint, parameters) = find("GET", path) else {
                panic!("{path}");
            };
            assert!(endpoint.is_page(), "{path}");
            let proxy = proxy.map(|text| ("proxy", text.to_owned()));
            assert_eq!(parameters, Vec::from_iter(proxy), "{path}");
        }
        for path in [
            "/api/console",
            "/api/console/app.js",
            "/consoles",
            "/x/console",
        ] {
            assert_eq!(find("GET", path), Match::Unknown, "{path}");
        }
        let allow = Some("GET, HEAD, OPTIONS".to_owned());
        assert_eq!(allowed("POST", "/console/staging/flags"), allow);
    }

    #[test]
    fn a_path_that_does_not_decode_to_utf_8_has_no_route() {
        for path in [
            "/api/config/flags/%FF",
            "/ofrep/v1/evaluate/flags/%FF",
            "//ofrep/v1/evaluate/flags/%FF",
            "/console/staging/flags/%FF",
        ] {
            for method in ["GET", "POST", "OPTIONS"] {
                assert_eq!(find(method, path), Match::Unknown, "{path}");
            }
        }
        for path in [
            "/api/admin/flags/a/users/%FF",
            "/admin/flags/a%20b%C3/users/u",
        ] {
            assert_eq!(find("DELETE", path), Match::UnknownAdmin, "{path}");
        }
        // The correct path of a user called `%FF`, and a `%` that begins no escape.
        for (path, user) in [("/%25FF", "%FF"), ("/100%", "100%")] {
            let path = format!("/admin/flags/a/users{path}");
            let Match::Found(_, parameters) = find("DELETE", &path) else {
                panic!("{path}");
            };
            assert_eq!(parameters[1], ("userId", user.to_owned()));
        }
    }

    #[test]
    fn head_has_the_route_of_get() {
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
    fn a_path_that_is_not_in_the_table_has_no_route() {
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
