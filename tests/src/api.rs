//! Every route of Pennon in one process, on a database with a cache, or on a file.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::local::{ADMIN_TOKEN, HttpClient, Local};
use crate::process::new_folder;
use crate::response::Response;
use crate::stack::Stack;

/// A server, by default with the flags `checkout` (on, 50 %), `search` (on, 100 %) and `export` (off).
pub struct Api {
    /// The kind of store, for failure messages.
    pub store: &'static str,
    local: Local,
    /// Redis and PostgreSQL, if this value owns them. `None` on a file, and in a result of [`Self::another_instance`].
    pub stack: Option<Stack>,
}

/// A client of an admin, for another task.
#[derive(Clone)]
pub struct Admin(HttpClient);

impl Api {
    /// A server on PostgreSQL and Redis, and one on a file. Both must behave the same.
    pub async fn of_both_kinds() -> [Self; 2] {
        Self::of_both_kinds_with_variables(&[]).await
    }

    /// The same two servers, with more environment variables.
    pub async fn of_both_kinds_with_variables(more: &[(&str, &str)]) -> [Self; 2] {
        let stack = Stack::start().await;
        let on_postgres = Self {
            store: "PostgreSQL",
            local: instance(&stack, more).await,
            stack: Some(stack),
        };
        [
            on_postgres,
            Self::on_file_with_variables(&three_flags(), more).await,
        ]
    }

    /// Starts a server on PostgreSQL and Redis.
    pub async fn on_postgres() -> Self {
        Self::on_stack(Stack::start().await).await
    }

    /// Starts a server on the PostgreSQL and the Redis of this stack.
    pub async fn on_stack(stack: Stack) -> Self {
        Self {
            store: "PostgreSQL",
            local: instance(&stack, &[]).await,
            stack: Some(stack),
        }
    }

    /// Starts a server on a file in the format of earlier versions, which the server converts.
    pub async fn on_file() -> Self {
        Self::on_file_with(&three_flags()).await
    }

    /// Starts a server on a file with this content.
    pub async fn on_file_with(flags: &Value) -> Self {
        Self::on_file_with_variables(flags, &[]).await
    }

    async fn on_file_with_variables(flags: &Value, more: &[(&str, &str)]) -> Self {
        let folder = new_folder("api");
        std::fs::write(folder.join("flags.json"), flags.to_string()).expect("a file");
        Self {
            store: "a file",
            local: Local::start_in(folder, more).await,
            stack: None,
        }
    }

    /// The PostgreSQL and the Redis of this server.
    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("owns a stack")
    }

    /// Starts another instance on the same database and cache.
    pub async fn another_instance(&self) -> Self {
        Self {
            store: "PostgreSQL",
            local: instance(self.stack(), &[]).await,
            stack: None,
        }
    }

    /// The server process.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The server, to restart it.
    pub fn local_mut(&mut self) -> &mut Local {
        &mut self.local
    }

    /// Returns a client with its own connections, for another task.
    pub fn client(&self) -> Admin {
        Admin(self.local.clone_client())
    }

    /// Schedules a change of a flag for a few seconds from now, and returns the id of the schedule.
    pub async fn schedule_soon(&self, key: &str, updates: &Value) -> String {
        let path = format!("/api/admin/flags/{key}/schedule");
        let mut wait = Duration::from_secs(2);
        loop {
            let soon = pennon_core::http::timestamp(SystemTime::now() + wait);
            let body = json!({ "scheduledAt": soon, "updates": updates });
            let made = self.admin("POST", &path, &body).await;
            wait *= 2;
            // On a busy machine the time can be over before the request arrives.
            if made.status == 400 && wait < crate::TIME_LIMIT {
                continue;
            }
            assert_eq!(made.status, 201, "{made:?} on {}", self.store);
            return made.json()["id"].as_str().expect("an id").to_owned();
        }
    }

    /// Sends a `GET` as an anonymous caller.
    pub async fn get(&self, path: &str) -> Response {
        self.local.get(path).await
    }

    /// Sends any request as the admin.
    pub async fn admin(&self, method: &str, path: &str, body: &Value) -> Response {
        self.client().send(method, path, &[], body).await
    }

    /// Sends a `POST` with a text body as the admin, with `If-Match: *`.
    pub async fn admin_text(&self, path: &str, body: &str) -> Response {
        let authorization = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", authorization.as_str()), ("if-match", "*")];
        self.local.send("POST", path, &headers, body).await
    }

    /// Sends a request as the admin, with this tag as `If-Match`.
    pub async fn admin_if(&self, tag: &str, method: &str, path: &str, body: &Value) -> Response {
        let headers = [("if-match", tag)];
        self.client().send(method, path, &headers, body).await
    }

    /// Sends a `GET` as the admin.
    pub async fn read(&self, path: &str) -> Response {
        self.admin("GET", path, &Value::Null).await
    }
}

impl Admin {
    /// Sends any request as the admin; `null` means no body.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response {
        let authorization = format!("Bearer {ADMIN_TOKEN}");
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.0.send(method, path, &all, &body).await
    }
}

fn three_flags() -> Value {
    json!({"production": {
        "checkout": {"enabled": true, "rolloutPercentage": 50},
        "search": {"enabled": true, "rolloutPercentage": 100},
        "export": {"enabled": false, "rolloutPercentage": 100},
    }})
}

async fn instance(stack: &Stack, more: &[(&str, &str)]) -> Local {
    let environment = stack.environment();
    let environment = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let environment: Vec<(&str, &str)> = environment.chain(more.iter().copied()).collect();
    Local::start(&environment).await
}
