//! Every route of Pennon in one process, on a database with a cache, or on a file.

use serde_json::{Value, json};

use crate::local::{ADMIN_TOKEN, HttpClient, Local};
use crate::process::new_folder;
use crate::response::Response;
use crate::stack::Stack;

/// A running Pennon with the flags `checkout` (on, 50 %), `search` (on, 100 %) and `export` (off), and
/// its admin.
pub struct Api {
    /// The kind of store, for the message of a failing test.
    pub on: &'static str,
    local: Local,
    /// Redis and PostgreSQL, where it runs on them.
    pub stack: Option<Stack>,
}

/// An admin's client, for another task.
#[derive(Clone)]
pub struct Admin(HttpClient);

impl Api {
    /// One on PostgreSQL and Redis, and one on a file. Both must behave the same.
    pub async fn of_both_kinds() -> [Self; 2] {
        Self::of_both_kinds_with(&[]).await
    }

    /// The same with more variables.
    pub async fn of_both_kinds_with(more: &[(&str, &str)]) -> [Self; 2] {
        let stack = Stack::start().await;
        let on_postgres = Self {
            on: "PostgreSQL",
            local: instance(&stack, more).await,
            stack: Some(stack),
        };
        [on_postgres, Self::on_file_in(&three_flags(), more).await]
    }

    /// On PostgreSQL and Redis.
    pub async fn on_postgres() -> Self {
        Self::on_stack(Stack::start().await).await
    }

    /// On the PostgreSQL and the Redis of this deployment.
    pub async fn on_stack(stack: Stack) -> Self {
        Self {
            on: "PostgreSQL",
            local: instance(&stack, &[]).await,
            stack: Some(stack),
        }
    }

    /// On a file in the format that holds flags only.
    pub async fn on_file() -> Self {
        Self::on_file_with(&three_flags()).await
    }

    /// On a file with this content.
    pub async fn on_file_with(flags: &Value) -> Self {
        Self::on_file_in(flags, &[]).await
    }

    async fn on_file_in(flags: &Value, more: &[(&str, &str)]) -> Self {
        let folder = new_folder("api");
        std::fs::write(folder.join("flags.json"), flags.to_string()).expect("a file");
        Self {
            on: "a file",
            local: Local::start_in(folder, more).await,
            stack: None,
        }
    }

    /// Its PostgreSQL and Redis.
    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("on PostgreSQL")
    }

    /// Another instance on the same database and cache.
    pub async fn another_instance(&self) -> Self {
        Self {
            on: "PostgreSQL",
            local: instance(self.stack(), &[]).await,
            stack: None,
        }
    }

    /// The server.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The server, to restart it.
    pub fn local_mut(&mut self) -> &mut Local {
        &mut self.local
    }

    /// A client with connections of its own, for another task.
    pub fn client(&self) -> Admin {
        Admin(self.local.clone_client())
    }

    /// `GET` by an anonymous caller.
    pub async fn get(&self, path: &str) -> Response {
        self.local.get(path).await
    }

    /// Any request by the admin.
    pub async fn admin(&self, method: &str, path: &str, body: &Value) -> Response {
        self.client().send(method, path, &[], body).await
    }

    /// `POST` of a text by the admin, for any state.
    pub async fn admin_text(&self, path: &str, body: &str) -> Response {
        let authorization = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", authorization.as_str()), ("if-match", "*")];
        self.local.send("POST", path, &headers, body).await
    }

    /// A request by the admin that names the state it wants to change.
    pub async fn admin_if(&self, tag: &str, method: &str, path: &str, body: &Value) -> Response {
        let headers = [("if-match", tag)];
        self.client().send(method, path, &headers, body).await
    }

    /// `GET` by the admin.
    pub async fn read(&self, path: &str) -> Response {
        self.admin("GET", path, &Value::Null).await
    }
}

impl Admin {
    /// Any request by the admin. No body for `null`.
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
