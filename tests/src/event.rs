//! Events of API Gateway: the files in `events/`, and variations of them.

use pennon_core::http::{Match, Query, find};
use serde_json::{Value, json};

/// The API key in the event files of evaluations. It is valid if a test has added it to the database.
pub const EXAMPLE_KEY: &str =
    "pennon_server_production_this-key-is-an-example-and-opens-nothing-00";

/// The API key in the event files of `sync-flags`. It is valid if a test has added it to the database.
pub const SYNC_KEY: &str = "pennon_sync_production_this-key-is-an-example-and-opens-nothing-00";

/// Every request file in `events/`: its name, its function, and the status of the response if the files are sent in
/// this order to a new database with the flag `new-checkout`, in which [`EXAMPLE_KEY`] and [`SYNC_KEY`] are valid for
/// production.
pub const REQUEST_FILES: [(&str, &str, u16); 58] = [
    ("list-flags", "list-flags", 200),
    ("get-flag", "get-flag", 200),
    ("ramps", "ramps", 201),
    ("ramps-read", "ramps", 200),
    ("ramps-advance", "ramps", 200),
    ("ramps-pause", "ramps", 200),
    ("ramps-resume", "ramps", 200),
    ("ramps-rollback", "ramps", 200),
    ("ramps-acknowledge", "ramps", 400),
    ("ramps-cancel", "ramps", 400),
    ("update-flag", "update-flag", 200),
    ("update-flag-post", "update-flag", 200),
    ("update-flag-unauthenticated", "update-flag", 401),
    ("evaluate-flag", "evaluate-flag", 200),
    ("evaluate-flag-unauthenticated", "evaluate-flag", 401),
    ("evaluate-flags", "evaluate-flags", 200),
    ("sync-flags", "sync-flags", 200),
    ("sync-flags-environment", "sync-flags", 200),
    ("sync-flags-counts", "sync-flags", 202),
    ("report-usage", "report-usage", 200),
    ("report-usage-flag", "report-usage", 200),
    ("manage-keys", "manage-keys", 201),
    ("manage-keys-list", "manage-keys", 200),
    ("manage-keys-revoke", "manage-keys", 404),
    ("overrides", "overrides", 201),
    ("overrides-list", "overrides", 200),
    ("overrides-put", "overrides", 200),
    ("overrides-remove", "overrides", 204),
    ("schedules", "schedules", 201),
    ("schedules-list", "schedules", 200),
    ("schedules-cancel", "schedules", 404),
    ("manage-flags", "manage-flags", 200),
    ("manage-flags-create", "manage-flags", 201),
    ("manage-flags-read", "manage-flags", 200),
    ("manage-flags-remove", "manage-flags", 200),
    ("manage-flags-explain", "manage-flags", 200),
    ("manage-flags-restore", "manage-flags", 200),
    ("manage-flags-audit", "manage-flags", 200),
    ("manage-flags-revert", "manage-flags", 404),
    ("manage-environments", "manage-environments", 200),
    ("manage-environments-create", "manage-environments", 201),
    ("manage-environments-flags", "manage-environments", 200),
    ("manage-environments-settings", "manage-environments", 200),
    ("manage-environments-set", "manage-environments", 200),
    ("manage-environments-import", "manage-environments", 200),
    ("manage-environments-copy", "manage-environments", 200),
    ("manage-environments-export", "manage-environments", 200),
    ("manage-environments-audit", "manage-environments", 200),
    ("manage-environments-purge", "manage-environments", 200),
    ("manage-keys-webhooks", "manage-keys", 200),
    // 409 without `SEND_WEBHOOKS_FUNCTION_ARN`.
    ("manage-keys-webhook-create", "manage-keys", 409),
    ("manage-keys-webhook-enable", "manage-keys", 404),
    ("manage-keys-webhook-delete", "manage-keys", 404),
    ("health", "health", 200),
    ("health-live", "health", 200),
    ("health-ready", "health", 200),
    ("not-found", "not-found", 404),
    ("console", "console", 200),
];

/// An event that a test can modify.
#[derive(Debug, Clone)]
pub struct Event(Value);

impl Event {
    /// Loads `events/<name>.json`.
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

    /// `PATCH /api/admin/flags/{key}` with any text as its body.
    pub fn update_text(key: &str, body: &str) -> Self {
        let mut event =
            Self::load("update-flag").path(&format!("/api/admin/flags/{key}"), Some(key));
        event.0["body"] = json!(body);
        event
    }

    /// `POST /ofrep/v1/evaluate/flags/{key}` with the example key.
    pub fn evaluate(key: &str, context: &Value) -> Self {
        let event =
            Self::load("evaluate-flag").path(&format!("/ofrep/v1/evaluate/flags/{key}"), Some(key));
        event.body(&json!({ "context": context }).to_string())
    }

    /// `POST /ofrep/v1/evaluate/flags` with the example key.
    pub fn evaluate_all(context: &Value) -> Self {
        Self::load("evaluate-flags").body(&json!({ "context": context }).to_string())
    }

    /// Sets the body.
    pub fn body(mut self, body: &str) -> Self {
        self.0["body"] = json!(body);
        self
    }

    /// Sets the method.
    pub fn method(mut self, method: &str) -> Self {
        self.0["requestContext"]["http"]["method"] = json!(method);
        self
    }

    /// Removes a header.
    pub fn without_header(mut self, name: &str) -> Self {
        self.0["headers"]
            .as_object_mut()
            .expect("an object")
            .remove(name);
        self
    }

    /// Sends this API key as a bearer token.
    pub fn api_key(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Sets this as the only path parameter that the gateway extracted.
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.0["pathParameters"] = json!({ name: value });
        self
    }

    /// A request by an admin to any admin route. `path` is encoded; the route and its parameters are added as the
    /// gateway does.
    pub fn admin(method: &str, path: &str, body: &str) -> Self {
        let Match::Found(endpoint, parameters) = find(method, path) else {
            panic!("no route {method} {path}");
        };
        let mut event = Self::load("update-flag");
        let decoded: serde_json::Map<String, Value> = parameters
            .into_iter()
            .map(|(name, text)| (name.to_owned(), json!(text)))
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

    /// A request through a gateway that has matched this route and decoded the path. `base` is a stage or the base path
    /// of a domain; `parameters` are the values of the placeholders.
    pub fn by_route(method: &str, template: &str, base: &str, parameters: &[(&str, &str)]) -> Self {
        let mut event = Self::load("update-flag");
        let mut path = format!("{base}{template}");
        for (name, value) in parameters {
            path = path.replace(&format!("{{{name}}}"), value);
            path = path.replace(&format!("{{{name}+}}"), value);
        }
        let route = format!("{method} {template}");
        let found: serde_json::Map<String, Value> = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        event.0["pathParameters"] = json!(found);
        event.0["rawPath"] = json!(path);
        event.0["routeKey"] = json!(route);
        event.0["requestContext"]["routeKey"] = json!(route);
        event.0["requestContext"]["http"]["path"] = json!(path);
        event.0["requestContext"]["http"]["method"] = json!(method);
        event.0["body"] = Value::Null;
        event
    }

    /// The same request at a function URL, which has one route for all paths and does not decode the path.
    pub fn at_function_url(mut self, path: &str) -> Self {
        for context in ["", "/requestContext"] {
            let context = self.0.pointer_mut(context).expect("an object");
            context["routeKey"] = json!("$default");
        }
        self.0["requestContext"]["domainName"] = json!("x.lambda-url.us-east-1.on.aws");
        self.path(path, None)
    }

    /// The same request through a named stage, with this base path.
    pub fn stage(mut self, name: &str, base: &str) -> Self {
        let path = self.0["rawPath"].as_str().expect("a path");
        self.0["rawPath"] = json!(format!("{base}{path}"));
        self.0["requestContext"]["stage"] = json!(name);
        self
    }

    /// The same request through a REST API (payload format 1.0).
    pub fn by_rest_api(&self) -> Self {
        let event = &self.0;
        let context = &event["requestContext"];
        let method = &context["http"]["method"];
        let template = event["routeKey"]
            .as_str()
            .and_then(|key| key.split_once(' '));
        let query = Query::parse(event["rawQueryString"].as_str().unwrap_or_default());
        let (mut single, mut multi) = (serde_json::Map::new(), serde_json::Map::new());
        for (name, value) in query.pairs() {
            single.insert(name.clone(), json!(value));
            let values = multi.entry(name.clone()).or_insert_with(|| json!([]));
            values.as_array_mut().expect("a list").push(json!(value));
        }
        let authorizer = &context["authorizer"]["jwt"];
        Self(json!({
            "resource": template.map_or("/{proxy+}", |(_, path)| path),
            "path": event["rawPath"],
            "httpMethod": method,
            "headers": event["headers"],
            "multiValueHeaders": event["headers"].as_object().map(|headers| {
                let headers = headers.iter();
                headers
                    .map(|(name, value)| (name.clone(), json!([value])))
                    .collect::<serde_json::Map<_, _>>()
            }),
            "queryStringParameters": single,
            "multiValueQueryStringParameters": multi,
            "pathParameters": event["pathParameters"],
            "requestContext": {
                "stage": "prod",
                "requestId": context["requestId"],
                "httpMethod": method,
                "authorizer": authorizer,
            },
            "body": event["body"],
            "isBase64Encoded": event["isBase64Encoded"],
        }))
    }

    /// Sets the path, and the `flagKey` that the gateway extracted from it.
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

    /// Sets the query, encoded as in a URL.
    pub fn query(mut self, query: &str) -> Self {
        self.0["rawQueryString"] = json!(query);
        self
    }

    /// Sets a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.0["headers"][name] = json!(value);
        self
    }

    /// Sets a user with these groups, as the gateway's JWT authorizer does.
    pub fn user(mut self, id: &str, groups: &str) -> Self {
        self.0["requestContext"]["authorizer"] =
            json!({ "jwt": { "claims": { "sub": id, "cognito:groups": groups }, "scopes": null } });
        self
    }

    /// Removes the user that the authorizer has verified. Tokens and API keys in headers stay.
    pub fn anonymous(mut self) -> Self {
        let context = self.0["requestContext"].as_object_mut().expect("an object");
        context.remove("authorizer");
        self
    }

    /// Mutable access, for changes that no gateway makes.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    /// The event as JSON.
    pub fn value(&self) -> &Value {
        &self.0
    }
}
