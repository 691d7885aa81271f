//! API Gateway's events: the files in `events/`, and variations of them.

use pennon_core::http::{Match, find};
use serde_json::{Value, json};

/// Every file of a request in `events/`: its name, the function it is for, and the status of the answer
/// where there is a flag `new-checkout`.
pub const REQUEST_FILES: [(&str, &str, u16); 18] = [
    ("list-flags", "list-flags", 200),
    ("get-flag", "get-flag", 200),
    ("update-flag", "update-flag", 200),
    ("update-flag-post", "update-flag", 200),
    ("update-flag-unauthenticated", "update-flag", 401),
    ("overrides", "overrides", 201),
    ("overrides-list", "overrides", 200),
    ("overrides-remove", "overrides", 204),
    ("manage-flags", "manage-flags", 200),
    ("manage-flags-create", "manage-flags", 201),
    ("manage-flags-read", "manage-flags", 200),
    ("manage-environments", "manage-environments", 200),
    ("manage-environments-export", "manage-environments", 200),
    ("manage-environments-purge", "manage-environments", 200),
    ("health", "health", 200),
    ("health-live", "health", 200),
    ("health-ready", "health", 200),
    ("not-found", "not-found", 404),
];

/// An event that a test can vary.
#[derive(Debug, Clone)]
pub struct Event(Value);

impl Event {
    /// The event in `events/<name>.json`.
    pub fn load(name: &str) -> Self {
        let path = format!("{}/../events/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    /// `GET /api/config/flags`.
    pub fn list() -> Self {
        Self::load("list-flags")
    }

    /// `GET /api/config/flags/{key}`.
    pub fn get(key: &str) -> Self {
        Self::load("get-flag").path(&format!("/api/config/flags/{key}"), Some(key))
    }

    /// `PATCH /api/admin/flags/{key}` by an admin.
    pub fn update(key: &str, body: &Value) -> Self {
        Self::update_text(key, &body.to_string())
    }

    /// The same with a body that need not be JSON.
    pub fn update_text(key: &str, body: &str) -> Self {
        let mut event =
            Self::load("update-flag").path(&format!("/api/admin/flags/{key}"), Some(key));
        event.0["body"] = json!(body);
        event
    }

    /// Any admin route, by an admin. `path` is as in a URL; the gateway's part is done here.
    pub fn admin(method: &str, path: &str, body: &str) -> Self {
        let Match::Found(endpoint, parameters) = find(method, path) else {
            panic!("no route {method} {path}");
        };
        let mut event = Self::load("update-flag");
        let decoded: serde_json::Map<String, Value> = parameters
            .into_iter()
            .map(|(name, text)| {
                let value = percent_encoding::percent_decode_str(&text).decode_utf8_lossy();
                (name.to_owned(), json!(value))
            })
            .collect();
        let route = format!("{method} {}", endpoint.path);
        event.0["pathParameters"] = json!(decoded);
        event.0["rawPath"] = json!(path);
        event.0["routeKey"] = json!(route);
        event.0["requestContext"]["routeKey"] = json!(route);
        event.0["requestContext"]["http"]["path"] = json!(path);
        event.0["requestContext"]["http"]["method"] = json!(method);
        event.0["body"] = json!(body);
        event
    }

    /// With another path, and what the gateway found in the place of `{flagKey}`.
    pub fn path(mut self, path: &str, key: Option<&str>) -> Self {
        self.0["rawPath"] = json!(path);
        self.0["requestContext"]["http"]["path"] = json!(path);
        match key {
            Some(key) => self.0["pathParameters"] = json!({ "flagKey": key }),
            None => {
                self.0
                    .as_object_mut()
                    .expect("an object")
                    .remove("pathParameters");
            }
        }
        self
    }

    /// With a query, as it stands in a URL.
    pub fn query(mut self, query: &str) -> Self {
        self.0["rawQueryString"] = json!(query);
        self
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0["headers"][name] = json!(value);
        self
    }

    /// By a user with these groups, as the gateway's JWT authorizer writes it.
    pub fn user(mut self, id: &str, groups: &str) -> Self {
        self.0["requestContext"]["authorizer"] =
            json!({ "jwt": { "claims": { "sub": id, "cognito:groups": groups }, "scopes": null } });
        self
    }

    /// Without any identity.
    pub fn anonymous(mut self) -> Self {
        let context = self.0["requestContext"].as_object_mut().expect("an object");
        context.remove("authorizer");
        self
    }

    /// As JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }
}
