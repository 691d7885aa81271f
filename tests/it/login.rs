//! `pennon-local login`, which `scripts/login` calls: it gets a token for admin routes from an issuer, with a browser.
//! The test acts as the browser.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pennon_tests::binaries::binary;
use pennon_tests::eventually;
use pennon_tests::issuer::{AUDIENCE, Fault, Issuer, SigningKey};
use pennon_tests::local::HttpClient;
use pennon_tests::process::new_folder;
use pennon_tests::response::Response;
use pennon_tests::sign_in::Behaviour;
use serde_json::{Value, json};

/// A user's machine, and the issuer.
struct Machine {
    folder: PathBuf,
    issuer: Issuer,
}

/// A running login.
struct Login {
    process: Child,
    errors: PathBuf,
}

struct Outcome {
    success: bool,
    output: String,
    errors: String,
}

impl Machine {
    async fn new() -> Self {
        let key = Arc::new(SigningKey::p256());
        let issuer = Issuer::start(&[key.public("k1")]).await;
        issuer.sign_in(|it| it.set_key(key, "k1"));
        Self {
            folder: new_folder("login"),
            issuer,
        }
    }

    fn start(&self, more: &[&str]) -> Login {
        self.start_by(Command::new(binary("pennon-local")), more)
    }

    /// Starts the program by a command that takes its arguments.
    fn start_by(&self, mut command: Command, more: &[&str]) -> Login {
        let name = format!("errors-{}", more.join("").replace('/', "-"));
        let errors = self.folder.join(name);
        let written = std::fs::File::create(&errors).expect("a file");
        let process = command
            .env_clear()
            .env("HOME", &self.folder)
            .args([
                "login",
                "--issuer",
                self.issuer.name(),
                "--client-id",
                AUDIENCE,
            ])
            .args(["--no-browser", "--port", "0"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(written)
            .spawn()
            .expect("it starts");
        Login { process, errors }
    }

    /// Signs in like a user if the program requests it.
    async fn sign_in(&self, more: &[&str]) -> Outcome {
        let mut login = self.start(more);
        if let Some(url) = login.sign_in_url().await {
            visit(&go(&url).await).await;
        }
        login.finish().await
    }

    fn file(&self) -> PathBuf {
        self.folder.join(".config/pennon/default.json")
    }

    /// Signs in, and the system kills the program when it has written the first 1,024 bytes of the session.
    async fn sign_in_interrupted(&self) {
        let mut command = Command::new("bash");
        command.args(["-c", "ulimit -f 1 -c 0 && exec \"$0\" \"$@\""]);
        command.arg(binary("pennon-local"));
        let mut login = self.start_by(command, &["--new"]);
        let url = login.sign_in_url().await.expect("an address");
        visit(&go(&url).await).await;
        let outcome = login.finish().await;
        assert!(!outcome.success, "it was not killed: {}", outcome.errors);
    }

    /// The names of the files in the folder of the session.
    fn files(&self) -> Vec<String> {
        let folder = self.folder.join(".config/pennon");
        let files = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = files
            .map(|file| file.expect("a file").file_name())
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    fn session(&self) -> Value {
        let text = std::fs::read(self.file()).expect("a file");
        serde_json::from_slice(&text).expect("JSON")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}

impl Login {
    fn stderr(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// The sign-in address that the program prints; `None` if it exits without one.
    async fn sign_in_url(&mut self) -> Option<String> {
        let mut url = None;
        eventually("the program prints an address or exits", async || {
            let stderr = self.stderr();
            // The last line may be incomplete.
            let lines = stderr.split_inclusive('\n');
            let mut lines = lines.filter(|line| line.ends_with('\n')).map(str::trim);
            let line = lines.find(|it| it.starts_with("http") && it.contains("/authorize?"));
            url = line.map(str::to_owned);
            url.is_some() || self.process.try_wait().expect("a process").is_some()
        })
        .await;
        url
    }

    async fn finish(&mut self) -> Outcome {
        let mut status = None;
        eventually("the program exits", async || {
            status = self.process.try_wait().expect("a process");
            status.is_some()
        })
        .await;
        let mut output = String::new();
        let mut pipe = self.process.stdout.take().expect("piped");
        pipe.read_to_string(&mut output).expect("text");
        Outcome {
            success: status.is_some_and(|it| it.success()),
            output,
            errors: self.stderr(),
        }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// Requests the page at a URL.
async fn go(url: &str) -> Response {
    let (base, path) = split(url);
    HttpClient::of(base).get(&path).await
}

fn split(url: &str) -> (String, String) {
    let rest = url.strip_prefix("http://").expect("http");
    let at = rest.find('/').expect("a path");
    (format!("http://{}", &rest[..at]), rest[at..].to_owned())
}

/// Follows the issuer's redirect to the program.
async fn visit(answer: &Response) -> Response {
    assert_eq!(answer.status, 302, "{answer:?}");
    go(answer.header("location").expect("a location")).await
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_user_signs_in_once_and_the_session_is_used_refreshed_and_ended() {
    let machine = Machine::new().await;
    let first = machine.sign_in(&[]).await;
    assert!(first.success, "{}", first.errors);
    assert_eq!(first.output, "export PENNON_ADMIN_TOKEN='access-2'\n");
    assert_eq!(
        (mode(&machine.file()), machine.session()["subject"].as_str()),
        (0o600, Some("admin-1"))
    );
    assert_eq!(mode(machine.file().parent().expect("a folder")), 0o700);
    assert!(!first.errors.contains("access-2"), "{}", first.errors);

    // A valid token is used without a sign-in.
    let again = machine.sign_in(&["--refresh"]).await;
    assert_eq!((again.success, again.output), (true, first.output));
    let asked = machine.issuer.sign_in(|it| it.grants.clone());
    assert_eq!(asked, ["authorization_code"]);
    let id = machine.sign_in(&["--token", "id"]).await;
    assert!(
        id.output.starts_with("export PENNON_ADMIN_TOKEN='ey"),
        "{}",
        id.output
    );

    // A token that expires within a minute is refreshed, and each refresh token is used once.
    machine.issuer.sign_in(|it| it.expires_in = 59);
    assert!(machine.sign_in(&["--new"]).await.success);
    let mut before = machine.session()["refreshToken"].clone();
    for _ in 0..3 {
        let refreshed = machine.sign_in(&["--refresh"]).await;
        assert!(refreshed.success, "{}", refreshed.errors);
        let kept = machine.session();
        assert_ne!(kept["refreshToken"], before);
        let token = kept["accessToken"].as_str().expect("text");
        assert_eq!(
            refreshed.output,
            format!("export PENNON_ADMIN_TOKEN='{token}'\n")
        );
        before = kept["refreshToken"].clone();
        assert_eq!(mode(&machine.file()), 0o600);
    }
    // An unavailable issuer does not end the session.
    machine
        .issuer
        .sign_in(|it| it.behaviour = Behaviour::Failing);
    let failed = machine.sign_in(&["--refresh"]).await;
    assert!(
        !failed.success && failed.output.is_empty(),
        "{}",
        failed.errors
    );
    assert!(failed.errors.contains("500"), "{}", failed.errors);
    assert_eq!(machine.session()["refreshToken"], before);
    // Tokens of another user are rejected.
    machine
        .issuer
        .sign_in(|it| it.behaviour = Behaviour::OtherUser);
    let other = machine.sign_in(&["--refresh"]).await;
    assert!(
        !other.success && other.output.is_empty(),
        "{}",
        other.errors
    );
    machine
        .issuer
        .sign_in(|it| it.behaviour = Behaviour::Correct);
    assert!(machine.sign_in(&[]).await.success);

    // If the issuer has ended the session, --refresh reports that; without --refresh the user signs in again.
    machine
        .issuer
        .sign_in(pennon_tests::sign_in::SignIn::end_sessions);
    let over = machine.sign_in(&["--refresh"]).await;
    assert!(!over.success && over.output.is_empty());
    assert!(over.errors.contains("invalid_grant"), "{}", over.errors);
    assert!(!machine.file().exists());
    assert!(machine.sign_in(&[]).await.success);

    let token = machine.session()["refreshToken"]
        .as_str()
        .expect("text")
        .to_owned();
    let ended = machine.sign_in(&["--logout"]).await;
    assert_eq!(
        (ended.success, ended.output.as_str()),
        (true, ""),
        "{}",
        ended.errors
    );
    assert_eq!(machine.issuer.sign_in(|it| it.revoked.clone()), [token]);
    assert!(!machine.file().exists());
    let none = machine.sign_in(&["--refresh"]).await;
    assert!(
        !none.success && none.errors.contains("no session"),
        "{}",
        none.errors
    );
}

#[tokio::test]
async fn a_failed_sign_in_gives_no_token_and_stores_nothing() {
    let machine = Machine::new().await;
    for (behaviour, why) in [
        (Behaviour::Denied, "access_denied not today?[31m?"),
        (Behaviour::OldCode, "invalid_grant"),
        (Behaviour::OtherIssuer, "another issuer"),
        (Behaviour::OtherNonce, "nonce"),
        (Behaviour::OtherAudience, "audience"),
        (Behaviour::OtherKey, "signature"),
        (Behaviour::NoIdToken, "id token"),
        (Behaviour::Shell, "access token"),
        (Behaviour::Failing, "500"),
    ] {
        machine.issuer.sign_in(|it| it.behaviour = behaviour);
        let outcome = machine.sign_in(&[]).await;
        assert!(!outcome.success, "{behaviour:?}");
        assert_eq!(outcome.output, "", "{behaviour:?}");
        assert!(
            outcome.errors.contains(why),
            "{behaviour:?}: {}",
            outcome.errors
        );
        assert!(!machine.file().exists(), "{behaviour:?}");
    }
}

#[tokio::test]
async fn unrelated_requests_are_rejected_and_do_not_end_the_sign_in() {
    let machine = Machine::new().await;
    let mut login = machine.start(&[]);
    let url = login.sign_in_url().await.expect("an address");
    for behaviour in [Behaviour::OtherState, Behaviour::NoState] {
        machine.issuer.sign_in(|it| it.behaviour = behaviour);
        let refused = visit(&go(&url).await).await;
        assert_eq!(refused.status, 400, "{behaviour:?}: {refused:?}");
    }
    machine
        .issuer
        .sign_in(|it| it.behaviour = Behaviour::Correct);
    let back = go(&url).await;
    let location = back.header("location").expect("a location").to_owned();
    let (base, path) = split(&location);
    let program = HttpClient::of(base);
    let named = [("host", "login.example:80")];
    let twice = format!("{path}&state=x");
    for (method, path, headers, status) in [
        ("GET", path.as_str(), &named[..], 400),
        ("GET", "/callback", &[], 400),
        ("GET", &twice, &[], 400),
        ("POST", &path, &[], 404),
        ("GET", "/", &[], 404),
    ] {
        let refused = program.send(method, path, headers, "").await;
        assert_eq!(refused.status, status, "{method} {path}: {refused:?}");
    }
    assert!(
        machine.issuer.sign_in(|it| it.grants.is_empty()),
        "a rejected request redeemed the code"
    );
    let page = program.get(&path).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let outcome = login.finish().await;
    assert!(outcome.success, "{}", outcome.errors);
}

#[tokio::test]
async fn a_sign_in_that_is_never_completed_times_out() {
    let machine = Machine::new().await;
    let mut login = machine.start(&["--timeout", "1"]);
    let url = login.sign_in_url().await.expect("an address");
    let outcome = login.finish().await;
    assert!(!outcome.success && outcome.output.is_empty());
    assert!(outcome.errors.contains("within 1 s"), "{}", outcome.errors);
    // The port is closed.
    let back = go(&url).await;
    let (base, path) = split(back.header("location").expect("a location"));
    let late = HttpClient::of(base).try_send("GET", &path, &[], "").await;
    assert!(late.is_none());
}

#[tokio::test]
async fn two_logins_at_once_use_a_refresh_token_once() {
    let machine = Machine::new().await;
    machine.issuer.sign_in(|it| it.expires_in = 59);
    assert!(machine.sign_in(&[]).await.success);
    machine.issuer.sign_in(|it| it.expires_in = 900);
    let mut both = [
        machine.start(&["--refresh"]),
        machine.start(&["--refresh", "--token", "access"]),
    ];
    let mut tokens = Vec::new();
    for login in &mut both {
        let outcome = login.finish().await;
        assert!(outcome.success, "{}", outcome.errors);
        tokens.push(outcome.output);
    }
    assert_eq!(tokens[0], tokens[1]);
    let refreshed = machine
        .issuer
        .sign_in(|it| it.grants.iter().filter(|it| *it == "refresh_token").count());
    assert_eq!(refreshed, 1);
}

#[tokio::test]
async fn a_rotated_refresh_token_is_kept_if_the_new_id_token_cannot_be_verified() {
    let machine = Machine::new().await;
    machine.issuer.sign_in(|it| it.expires_in = 59);
    assert!(machine.sign_in(&[]).await.success);
    // The keys cannot be fetched.
    machine.issuer.set_fault(Some(Fault::TooLarge));
    let failed = machine.sign_in(&["--refresh"]).await;
    assert!(
        !failed.success && failed.output.is_empty(),
        "{}",
        failed.errors
    );
    machine.issuer.set_fault(None);
    let refreshed = machine.sign_in(&["--refresh"]).await;
    assert!(refreshed.success, "{}", refreshed.errors);
}

#[tokio::test]
async fn an_id_token_is_refreshed_when_it_expires_itself_and_never_printed_after_that() {
    let machine = Machine::new().await;
    machine.issuer.sign_in(|it| it.id_expires_in = 59);
    assert!(machine.sign_in(&[]).await.success);
    let grants = || machine.issuer.sign_in(|it| it.grants.len());
    assert!(machine.sign_in(&["--refresh"]).await.success);
    assert_eq!(grants(), 1, "a valid access token was refreshed");
    machine.issuer.sign_in(|it| it.id_expires_in = 0);
    let id = ["--refresh", "--token", "id"];
    let expired = machine.sign_in(&id).await;
    assert!(
        !expired.success && expired.output.is_empty(),
        "{}",
        expired.errors
    );
    assert_eq!(grants(), 2);
    // A response without an id token leaves the previous one, which has expired.
    machine.issuer.sign_in(|it| {
        it.id_expires_in = 900;
        it.behaviour = Behaviour::NoIdToken;
    });
    let expired = machine.sign_in(&id).await;
    assert!(
        !expired.success && expired.output.is_empty(),
        "{}",
        expired.errors
    );
    assert_eq!(grants(), 3);
    machine
        .issuer
        .sign_in(|it| it.behaviour = Behaviour::Correct);
    let valid = machine.sign_in(&id).await;
    assert!(valid.success, "{}", valid.errors);
    let id = machine.session()["idToken"].clone();
    let id = id.as_str().expect("text");
    assert_eq!(valid.output, format!("export PENNON_ADMIN_TOKEN='{id}'\n"));
}

#[tokio::test]
async fn a_logout_deletes_the_session_also_if_the_issuer_does_not_answer() {
    let machine = Machine::new().await;
    assert!(machine.sign_in(&[]).await.success);
    machine.issuer.set_fault(Some(Fault::Failing));
    let ended = machine.sign_in(&["--logout"]).await;
    assert!(!ended.success, "the failed revocation was not reported");
    assert!(ended.errors.contains("500"), "{}", ended.errors);
    assert!(!machine.file().exists());
}

#[tokio::test]
async fn a_logout_revokes_the_stored_session_also_if_it_names_another_issuer_or_client() {
    let machine = Machine::new().await;
    let other = Issuer::start(&[]).await;
    for options in [
        ["--logout", "--issuer", other.name()],
        ["--logout", "--client-id", "client-2"],
    ] {
        assert!(machine.sign_in(&[]).await.success);
        let token = machine.session()["refreshToken"].clone();
        let ended = machine.sign_in(&options).await;
        assert!(ended.success, "{options:?}: {}", ended.errors);
        assert!(
            ended.errors.contains(machine.issuer.name()),
            "{options:?}: {}",
            ended.errors
        );
        let revoked = machine.issuer.sign_in(|it| it.revoked.last().cloned());
        assert_eq!(revoked.as_deref(), token.as_str(), "{options:?}");
        assert!(!machine.file().exists(), "{options:?}");
    }
}

#[tokio::test]
async fn a_refresh_token_may_have_any_characters() {
    let machine = Machine::new().await;
    machine.issuer.sign_in(|it| {
        it.expires_in = 59;
        it.refresh_suffix = "!*$ '\"&+%=~".to_owned();
    });
    let first = machine.sign_in(&[]).await;
    assert!(first.success, "{}", first.errors);
    let refreshed = machine.sign_in(&["--refresh"]).await;
    assert!(refreshed.success, "{}", refreshed.errors);
    let token = machine.session()["refreshToken"].clone();
    assert!(machine.sign_in(&["--logout"]).await.success);
    let revoked = machine.issuer.sign_in(|it| it.revoked.clone());
    assert_eq!(json!(revoked), json!([token]));
}

#[tokio::test]
async fn a_stored_session_with_other_scopes_than_the_requested_ones_is_not_used() {
    let machine = Machine::new().await;
    let sign_ins = || machine.issuer.sign_in(|it| it.grants.len());
    assert!(machine.sign_in(&[]).await.success);
    machine.issuer.sign_in(|it| it.scope = "openid flags/admin");
    let scope = ["--scope", "openid flags/admin"];
    assert!(machine.sign_in(&scope).await.success);
    assert_eq!(sign_ins(), 2);
    for options in [&scope[..], &["--refresh"], &[]] {
        assert!(machine.sign_in(options).await.success, "{options:?}");
        assert_eq!(sign_ins(), 2, "{options:?}");
    }
    // A refresh keeps the scopes.
    machine.issuer.sign_in(|it| it.expires_in = 59);
    assert!(
        machine
            .sign_in(&["--new", "--scope", scope[1]])
            .await
            .success
    );
    assert!(machine.sign_in(&["--refresh"]).await.success);
    assert!(
        machine
            .sign_in(&["--refresh", "--scope", scope[1]])
            .await
            .success
    );
    assert_eq!(sign_ins(), 5);
}

#[tokio::test]
async fn no_tokens_of_an_interrupted_sign_in_outlast_the_next_one_or_a_logout() {
    let machine = Machine::new().await;
    machine
        .issuer
        .sign_in(|it| it.refresh_suffix = "x".repeat(2_000));
    machine.sign_in_interrupted().await;
    assert_eq!(machine.files().len(), 2, "{:?}", machine.files());
    assert!(machine.sign_in(&["--logout"]).await.success);
    assert_eq!(machine.files(), ["default.lock"]);
    machine.sign_in_interrupted().await;
    assert!(machine.sign_in(&[]).await.success);
    assert_eq!(machine.files(), ["default.json", "default.lock"]);
}

#[tokio::test]
async fn metadata_with_an_unsafe_address_or_another_issuer_is_rejected() {
    let machine = Machine::new().await;
    for (name, address) in [
        ("token_endpoint", "http://issuer.example/token"),
        (
            "authorization_endpoint",
            "http://127.0.0.1:1@issuer.example/authorize",
        ),
        ("authorization_endpoint", "file:///etc/passwd"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("issuer", "https://issuer.example"),
    ] {
        let machine = Machine::new().await;
        machine.issuer.set_metadata(name, json!(address));
        let outcome = machine.sign_in(&[]).await;
        assert!(
            !outcome.success && outcome.output.is_empty(),
            "{name}: {}",
            outcome.errors
        );
        let is_named = outcome.errors.contains(name) || outcome.errors.contains("names the issuer");
        assert!(is_named, "{name}: {}", outcome.errors);
    }
    // A session of another client is not used.
    assert!(machine.sign_in(&[]).await.success);
    let other = Command::new(binary("pennon-local"))
        .env_clear()
        .env("HOME", &machine.folder)
        .args([
            "login",
            "--issuer",
            machine.issuer.name(),
            "--client-id",
            "client-2",
            "--refresh",
        ])
        .output()
        .expect("it runs");
    assert!(
        !other.status.success() && other.stdout.is_empty(),
        "{other:?}"
    );
}
