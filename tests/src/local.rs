//! The local server as a process, and an HTTP client for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::binaries::binary;
use crate::lambda::{INSTALLATION, MAC_KEY};
use crate::process::{Process, coverage, free_port, new_folder, output_within};
use crate::response::{Response, decoded};
use crate::{TIME_LIMIT, eventually};

/// The token of the admin.
pub const ADMIN_TOKEN: &str = "local-test-token";

/// The API key of the server.
pub const API_KEY: &str = crate::event::EXAMPLE_KEY;

/// A running local server.
pub struct Local {
    command: Command,
    process: Process,
    client: HttpClient,
    folder: PathBuf,
}

/// A client of one server. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    pub(crate) base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Local {
    /// Starts a server with these variables in an empty folder, and waits until it responds.
    pub async fn start(environment: &[(&str, &str)]) -> Self {
        let folder = new_folder("local");
        Self::start_in(folder, environment).await
    }

    /// Starts a server in this folder, which may contain a `flags.json`.
    pub async fn start_in(folder: PathBuf, environment: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let flags = folder.join("flags.json");
        let mut command = Command::new("env");
        command
            .arg("-i")
            .arg(format!("PENNON_LISTEN={address}"))
            .arg(format!("PENNON_ADMIN_TOKEN={ADMIN_TOKEN}"))
            .arg(format!("PENNON_API_KEY={API_KEY}"))
            .arg(format!("PENNON_FLAGS_FILE={}", flags.display()))
            .args(coverage().map(|(name, value)| format!("{name}={value}")))
            .arg(format!("INSTALLATION_ID={INSTALLATION}"))
            .arg(format!("CACHE_MAC_KEY={MAC_KEY}"))
            .args(
                environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}")),
            )
            .arg(binary("pennon-local"));
        let local = Self {
            process: Process::start(&command, &folder.join("log"), None),
            command,
            client: HttpClient::of(format!("http://{address}")),
            folder,
        };
        local.wait().await;
        local
    }

    /// Starts a server in this folder without a token or an API key, so that it generates them.
    pub async fn start_without_credentials(folder: PathBuf, environment: &[(&str, &str)]) -> Self {
        // An empty value counts as unset.
        let mut all = vec![("PENNON_ADMIN_TOKEN", ""), ("PENNON_API_KEY", "")];
        all.extend_from_slice(environment);
        Self::start_in(folder, &all).await
    }

    /// Kills the process and starts it again on the same files, with an empty log.
    pub async fn restart(&mut self) {
        self.kill();
        self.process = Process::start(&self.command, &self.folder.join("log"), None);
        self.wait().await;
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    async fn wait(&self) {
        let address = self.base().trim_start_matches("http://").to_owned();
        eventually("the local server answers", async || {
            let connected = tokio::net::TcpStream::connect(&address).await.is_ok();
            connected && self.log().contains("Pennon ")
        })
        .await;
    }

    /// Returns a client for another task.
    pub fn clone_client(&self) -> HttpClient {
        self.client.clone()
    }

    /// Sends a `GET`.
    pub async fn get(&self, path: &str) -> Response {
        self.client.get(path).await
    }

    /// Sends a `PATCH` as the admin.
    pub async fn patch(&self, path: &str, body: &str) -> Response {
        self.admin("PATCH", path, body).await
    }

    /// Sends any request as the admin.
    pub async fn admin(&self, method: &str, path: &str, body: &str) -> Response {
        let authorization = format!("Bearer {ADMIN_TOKEN}");
        self.send(method, path, &[("authorization", &authorization)], body)
            .await
    }

    /// The token of a role, as `pennon-local token` prints it.
    pub fn token_of(&self, role: &str) -> String {
        let mut command = Command::new(binary("pennon-local"));
        let command = command
            .args(["token", "--role", role])
            .env("PENNON_ADMIN_TOKEN", ADMIN_TOKEN);
        let output = output_within(command, TIME_LIMIT);
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).expect("a token");
        token.trim_end().to_owned()
    }

    /// Sends an evaluation with this API key.
    pub async fn evaluate(&self, path: &str, key: &str, body: &str) -> Response {
        let authorization = format!("Bearer {key}");
        self.send("POST", path, &[("authorization", &authorization)], body)
            .await
    }

    /// Sends any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        self.client.send(method, path, headers, body).await
    }

    /// Its base URL.
    pub fn base(&self) -> &str {
        &self.client.base
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The folder of its flags.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.process.kill();
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}

impl HttpClient {
    /// A client of the server with this base URL.
    pub fn of(base: String) -> Self {
        Self {
            base,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Sends a `GET`.
    pub async fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], "").await
    }

    /// Sends any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let answer = self.try_send(method, path, headers, body).await;
        answer.expect("a response")
    }

    /// Sends a request to a server that may be killed before it responds; `None` if it was.
    ///
    /// # Panics
    /// If the server runs and does not respond.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Response> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::from(body.to_owned()))
            .expect("a request");
        let request = self.client.request(request);
        let response = tokio::time::timeout(3 * TIME_LIMIT, request)
            .await
            .unwrap_or_else(|_elapsed| panic!("no answer in time to {method} {path}"))
            .ok()?;
        let status = response.status().as_u16();
        let mut seen = BTreeMap::new();
        for (name, value) in response.headers() {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            seen.insert(name.as_str().to_owned(), value);
        }
        let body = response.into_body().collect().await.ok()?;
        Some(Response {
            status,
            body: decoded(&body.to_bytes(), seen.get("content-encoding")),
            headers: seen,
        })
    }
}
