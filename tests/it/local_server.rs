//! The local server, the first thing that a newcomer runs. Its first screen is the text that it prints at its start.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pennon_core::http::ENDPOINTS;
use pennon_tests::binaries::binary;
use pennon_tests::clients::rust_example;
use pennon_tests::local::{ADMIN_TOKEN, API_KEY, Local};
use pennon_tests::process::{find_program, new_folder, output_within};
use pennon_tests::routes::{authorization_for, paths_for, read_status};
use pennon_tests::stack::{Stack, percentage};
use pennon_tests::{TIME_LIMIT, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn the_server_creates_sample_flags_and_prints_commands_to_try() {
    let local = Local::start(&[]).await;
    let flags = local.get("/api/config/flags").await;
    assert_eq!(flags.status, 200);
    assert!(
        flags
            .json()
            .as_object()
            .is_some_and(|flags| flags.len() >= 3)
    );
    let log = local.log();
    assert!(log.contains(local.base()), "{log}");
    assert!(!log.contains('\u{1b}'), "colour codes in a file: {log:?}");
    assert!(log.contains("curl"), "{log}");
    assert!(
        !log.contains(pennon_tests::local::ADMIN_TOKEN),
        "a configured token was printed"
    );
}

#[tokio::test]
async fn changes_of_a_flag_are_written_to_the_file() {
    let local = Local::start(&[]).await;
    let url = "/api/admin/flags/new-checkout";
    assert_eq!(
        percentage(&local.patch(url, r#"{"rolloutPercentage":60}"#).await),
        60
    );
    let state = local.get("/api/config/flags/new-checkout").await;
    assert_eq!(percentage(&state), 60);
    assert_eq!(
        percentage(&local.patch(url, r#"{"rolloutPercentage":0}"#).await),
        0
    );
    let text = std::fs::read_to_string(local.folder().join("flags.json")).expect("a file");
    let file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(file["flags"]["new-checkout"]["rolloutPercentage"], 0);
}

#[tokio::test]
async fn an_edit_of_the_file_takes_effect_and_a_mistake_in_it_changes_nothing() {
    let folder = new_folder("flags");
    let path = folder.join("flags.json");
    let write = |percent: u32| {
        std::fs::write(
            &path,
            json!({"flags": {"mine": {"state": "ENABLED", "rolloutPercentage": percent}}})
                .to_string(),
        )
        .expect("writes");
    };
    write(5);
    let local = Local::start_in(folder, &[]).await;
    assert_eq!(percentage(&local.get("/api/config/flags/mine").await), 5);
    write(66);
    eventually("the edit shows", async || {
        percentage(&local.get("/api/config/flags/mine").await) == 66
    })
    .await;
    std::fs::write(&path, "{ \"flags\": { oops").expect("writes");
    let answer = local.get("/api/config/flags/mine").await;
    assert_eq!((percentage(&answer), answer.source()), (66, "stale"));
    let answer = local.patch("/api/admin/flags/mine", "{}").await;
    assert_eq!(answer.status, 503, "a file with a mistake was overwritten");
    assert!(
        local.log().contains("flags.json is invalid: "),
        "{}",
        local.log()
    );
    write(7);
    eventually("the corrected file is read", async || {
        percentage(&local.get("/api/config/flags/mine").await) == 7
    })
    .await;
}

#[tokio::test]
async fn a_file_with_a_byte_order_mark_is_read_and_written_without_it() {
    let folder = new_folder("mark");
    let path = folder.join("flags.json");
    let flags = json!({"flags": {"mine": {"state": "ENABLED", "rolloutPercentage": 5}}});
    std::fs::write(&path, format!("\u{feff}{flags}")).expect("writes");
    let local = Local::start_in(folder, &[]).await;
    assert_eq!(percentage(&local.get("/api/config/flags/mine").await), 5);
    let flags = flags.to_string().replace('5', "7");
    std::fs::write(&path, format!("\u{feff}{flags}")).expect("writes");
    eventually("the edit shows", async || {
        percentage(&local.get("/api/config/flags/mine").await) == 7
    })
    .await;
    let change = r#"{"rolloutPercentage": 8}"#;
    let answer = local.patch("/api/admin/flags/mine", change).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert!(text.starts_with('{'), "{text:?}");
    assert!(!path.with_extension("json.conflict").exists());
}

#[tokio::test]
async fn every_route_answers_with_and_without_its_prefix() {
    let local = Local::start(&[]).await;
    for endpoint in ENDPOINTS {
        let authorization = authorization_for(endpoint);
        let headers = [("authorization", authorization.as_str())];
        let mut statuses = Vec::new();
        for path in paths_for(endpoint, "dark-mode") {
            let answer = local.send(endpoint.method, &path, &headers, "{}").await;
            let place = format!("{} {path}: {answer:?}", endpoint.method);
            assert!(![401, 403, 405].contains(&answer.status), "{place}");
            assert_ne!(answer.body, r#"{"error":"Not found"}"#, "{place}");
            if endpoint.method == "GET" {
                assert_eq!(answer.status, read_status(endpoint), "{place}");
            }
            statuses.push(answer.status);
        }
        assert_eq!(statuses[0], statuses[1], "{endpoint:?}");
    }
    for (path, status) in [("/x", 404), ("/api/admin/x", 401)] {
        assert_eq!(local.get(path).await.status, status, "{path}");
    }
    let deleted = local
        .send("DELETE", "/api/config/flags/dark-mode", &[], "")
        .await;
    assert_eq!(
        (deleted.status, deleted.header("allow")),
        (405, Some("GET, HEAD, OPTIONS"))
    );
    let unknown = local.get("/x/config/flags").await;
    assert_eq!(
        (unknown.status, unknown.json()),
        (404, json!({"error": "Not found"}))
    );
}

#[tokio::test]
async fn admin_routes_reject_a_missing_or_a_wrong_token() {
    let local = Local::start(&[]).await;
    let path = "/api/admin/flags/dark-mode";
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("authorization", "Bearer ")],
        &[("authorization", pennon_tests::local::ADMIN_TOKEN)],
    ] {
        let answer = local
            .send("PATCH", path, headers, r#"{"enabled":false}"#)
            .await;
        assert_eq!(answer.status, 401, "{headers:?}");
    }
    assert_eq!(
        local.get("/api/config/flags/dark-mode").await.json()["enabled"],
        true
    );
}

#[tokio::test]
async fn the_user_id_parameter_is_accepted_and_paths_are_decoded() {
    let local = Local::start(&[]).await;
    let alice = local.get("/api/config/flags?userId=alice").await.json();
    assert_eq!(alice["beta-search"], true, "override of alice ignored");
    let nobody = local.get("/api/config/flags").await.json();
    assert_eq!(nobody["beta-search"], false);
    assert_eq!(local.get("/api/config/flags/dark%2Dmode").await.status, 200);
    assert_eq!(local.get("/api/config/flags/%00").await.status, 400);
    assert_eq!(local.get("/api/config/flags/%FF%FE").await.status, 404);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_the_server_keeps_running() {
    let local = Local::start(&[]).await;
    let answer = local
        .patch("/api/admin/flags/dark-mode", &"x".repeat(4_000_001))
        .await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("4000000 bytes"), "{}", answer.body);
    assert!(answer.header("x-request-id").is_some(), "{answer:?}");
    let answer = local
        .patch("/api/admin/flags/dark-mode", &"x".repeat(3_900_000))
        .await;
    assert_eq!(answer.status, 400, "a body below the limit was not parsed");
    assert!(answer.body.contains("line 1 column 1"), "{}", answer.body);
    assert_eq!(local.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_client_that_sends_a_large_body_before_it_reads_receives_413() {
    let local = Local::start(&[]).await;
    let address = local.base().trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).expect("a connection");
    let body = vec![b'x'; 20_000_000];
    let head = format!(
        "POST /ofrep/v1/evaluate/flags HTTP/1.1\r\nhost: {address}\r\nx-api-key: {API_KEY}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sent = connection
        .write_all(head.as_bytes())
        .and_then(|()| connection.write_all(&body));
    assert!(sent.is_ok(), "{sent:?}");
    let mut response = String::new();
    let received = connection.read_to_string(&mut response);
    assert!(received.is_ok(), "{received:?}: {response}");
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

/// Sends a request whose body breaks the rules of its chunked encoding, and returns the response.
pub(crate) fn send_malformed_body(address: &str, method_and_path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("a connection");
    let request = format!(
        "{method_and_path} HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {ADMIN_TOKEN}\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n"
    );
    connection.write_all(request.as_bytes()).expect("sent");
    let mut response = String::new();
    let received = connection.read_to_string(&mut response);
    assert!(received.is_ok(), "{received:?}: {response}");
    response
}

#[tokio::test]
async fn a_malformed_chunked_body_is_400() {
    let local = Local::start(&[]).await;
    let address = local.base().trim_start_matches("http://");
    let response = send_malformed_body(address, "PATCH /api/admin/flags/dark-mode");
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(response.contains("Validation failed"), "{response}");
}

#[tokio::test]
async fn with_urls_the_server_migrates_the_database_and_uses_the_cache() {
    let stack = Stack::start().await;
    let empty = pennon_tests::postgres::Database::create_empty().await;
    let local = Local::start(&[
        ("DATABASE_URL", &empty.url()),
        ("REDIS_URL", &stack.redis.url()),
    ])
    .await;
    assert_eq!(local.get("/api/config/flags").await.body, "{}");
    empty.add_flag("mine", true, 10).await;
    stack.redis.command(&["DEL", pennon_tests::redis::KEY]);
    let answer = local.get("/api/config/flags/mine").await;
    assert_eq!((percentage(&answer), answer.source()), (10, "database"));
    assert_eq!(local.get("/api/config/flags/mine").await.source(), "memory");
    let health = local.get("/health").await.json();
    assert_eq!(
        health["services"],
        json!({"database": "healthy", "cache": "healthy"})
    );
}

#[tokio::test]
async fn a_change_by_sql_reaches_a_local_server_with_redis_before_the_entry_expires() {
    let stack = Stack::start().await;
    let environment = stack.environment();
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let local = Local::start(&environment).await;
    let read = "/api/config/flags/checkout";
    assert_eq!(percentage(&local.get(read).await), 50);
    let change = "update feature_flags set rollout_percentage = 7 where flag_key = 'checkout'";
    stack
        .database
        .sql()
        .batch_execute(change)
        .await
        .expect(change);
    eventually("the local server has compared the entry", async || {
        percentage(&local.get(read).await) == 7
    })
    .await;
}

/// The lines of the first screen that set the token and the key in a shell.
fn exports(local: &Local) -> Vec<String> {
    let log = local.log();
    let lines = log.lines().map(str::trim);
    let exports = lines.filter(|line| line.starts_with("export PENNON_"));
    exports.map(str::to_owned).collect()
}

/// The output of a command in a shell that has run only these lines before.
fn run_in_shell(exports: &[String], command: &str) -> String {
    let script = format!("{}\n{command}", exports.join("\n"));
    let path = std::env::var("PATH").expect("a PATH");
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script]).env_clear().env("PATH", path);
    let output = output_within(&mut shell, TIME_LIMIT);
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
}

fn read_from_root(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("text")
}

/// Every `curl` command in the `console` blocks of a document, with the output that the document shows.
fn console_commands(document: &str) -> Vec<(String, String)> {
    let text = read_from_root(document);
    let blocks = text.split("```console\n").skip(1);
    let mut commands = Vec::new();
    for block in blocks {
        let block = block.split("```").next().expect("a block");
        for part in block.split("$ ").filter(|part| part.starts_with("curl")) {
            let mut lines = part.lines();
            let mut command = String::new();
            for line in lines.by_ref() {
                command.push_str(line);
                command.push('\n');
                if !line.ends_with('\\') {
                    break;
                }
            }
            commands.push((command, lines.collect::<Vec<_>>().join("\n")));
        }
    }
    commands
}

/// Hides what differs from run to run.
fn masked(value: &Value) -> Value {
    const DIFFER: [&str; 7] = [
        "id",
        "createdAt",
        "updatedAt",
        "archivedAt",
        "timestamp",
        "revision",
        "version",
    ];
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let differs = DIFFER.contains(&name.as_str()) && !value.is_null();
                let value = if differs { json!("...") } else { masked(value) };
                (name.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[tokio::test]
async fn every_command_of_the_documents_works_after_the_two_lines_that_the_server_prints() {
    for (document, at_least) in [("README.md", 4), ("docs/managing-flags.md", 11)] {
        let local = Local::start_without_credentials(new_folder("documents"), &[]).await;
        let exports = exports(&local);
        assert_eq!(exports.len(), 2, "{}", local.log());
        let commands = console_commands(document);
        assert!(commands.len() >= at_least, "{document}: {commands:?}");
        for (command, printed) in commands {
            let here = command.replace("http://127.0.0.1:9000", local.base());
            assert_ne!(here, command, "{document}: {command}");
            let answer = run_in_shell(&exports, &here.replace("curl", "curl -s"));
            let read = |text: &str| -> Value {
                serde_json::from_str(text)
                    .unwrap_or_else(|error| panic!("{document}: {error}: {command}{text}"))
            };
            let wanted = masked(&read(&printed));
            assert_eq!(masked(&read(&answer)), wanted, "{document}: {command}");
        }
    }
}

/// The output of a program that reads the flags of this server.
fn run_client(local: &Local, program: &mut Command) -> String {
    let output = output_within(
        program
            .env("PENNON_URL", local.base())
            .env("PENNON_API_KEY", pennon_tests::local::API_KEY),
        TIME_LIMIT,
    );
    assert!(output.status.success(), "{program:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Node: the one that `scripts/tools` has installed, if there is one, otherwise the one in PATH.
fn node() -> Command {
    let bin = root().join(".tools/bin");
    let folders = [bin.to_str().expect("text")];
    Command::new(find_program(
        "node",
        &folders,
        "`scripts/tools` installs it",
    ))
}

/// A folder in which Node finds the published OpenFeature clients.
fn folder_with_node_clients() -> PathBuf {
    let folder = new_folder("node");
    let modules = root().join(".tools/openfeature-node/node_modules");
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link");
    folder
}

#[tokio::test]
async fn the_snippet_of_the_readme_prints_the_documented_value() {
    let readme = read_from_root("README.md");
    let snippet = readme.split("cat >flag.mjs <<'END'\n").nth(1);
    let (code, rest) = snippet.and_then(|it| it.split_once("END\n")).expect("code");
    let printed = rest.split("prints `").nth(1).expect("what it prints");
    let printed = printed.split('`').next().expect("what it prints");

    let local = Local::start(&[]).await;
    let url = "/api/admin/flags/new-checkout";
    local.patch(url, r#"{"rolloutPercentage":100}"#).await;
    let folder = folder_with_node_clients();
    std::fs::write(folder.join("flag.mjs"), code).expect("writes");
    let mut node = node();
    node.arg("flag.mjs").current_dir(&folder);
    assert_eq!(run_client(&local, &mut node).trim(), printed);
}

#[tokio::test]
async fn every_example_reads_the_flag_before_and_after_a_change() {
    let local = Local::start(&[]).await;
    let url = "/api/admin/flags/new-checkout";
    let folder = folder_with_node_clients();
    let rust = rust_example();
    let script = root().join("examples/node/index.mjs");
    std::fs::copy(script, folder.join("index.mjs")).expect("copies");
    for (percentage, wanted) in [(0, "off"), (100, "on")] {
        let body = json!({ "rolloutPercentage": percentage }).to_string();
        assert_eq!(local.patch(url, &body).await.status, 200);
        let mut node = node();
        node.args(["index.mjs", "alice"]).current_dir(&folder);
        let mut python = Command::new(root().join(".tools/openfeature-python/bin/python"));
        python
            .args(["examples/python/main.py", "alice"])
            .current_dir(root());
        let mut shell = Command::new("sh");
        shell
            .args(["examples/flags.sh", "alice"])
            .current_dir(root())
            .env_remove("PENNON_ADMIN_TOKEN");
        let mut rust = Command::new(&rust);
        rust.arg("alice");
        for program in [&mut node, &mut python, &mut rust, &mut shell] {
            let printed = run_client(&local, program);
            assert_eq!(printed.trim(), wanted, "{program:?}");
        }
    }
    let mut shell = Command::new("sh");
    shell
        .args(["examples/flags.sh", "alice"])
        .current_dir(root())
        .env("PENNON_ADMIN_TOKEN", pennon_tests::local::ADMIN_TOKEN);
    local.patch(url, r#"{"rolloutPercentage":0}"#).await;
    assert_eq!(run_client(&local, &mut shell), "off\non\n");
}

#[tokio::test]
async fn the_shell_example_takes_any_user_and_shows_the_errors_of_the_service() {
    let local = Local::start(&[]).await;
    let run = |user: &str, key: &str, token: &str| {
        let mut shell = Command::new("sh");
        let shell = shell.args(["examples/flags.sh", user]).current_dir(root());
        shell.env("PENNON_URL", local.base());
        shell.env("PENNON_API_KEY", key);
        shell.env("PENNON_ADMIN_TOKEN", token);
        output_within(shell, TIME_LIMIT)
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let include = json!({"userId": r#"a"b\c"#, "overrideType": "include"}).to_string();
    let users = "/api/admin/flags/new-checkout/users";
    let token = format!("Bearer {ADMIN_TOKEN}");
    let headers = [("authorization", token.as_str())];
    assert_eq!(
        local.send("POST", users, &headers, &include).await.status,
        201
    );
    let done = run(r#"a"b\c"#, API_KEY, "");
    assert_eq!(
        (text(&done.stdout).trim(), done.status.success()),
        ("on", true),
        "{done:?}"
    );

    for (key, token, message) in [("wrong", "", "API key"), (API_KEY, "wrong", "Unauthorized")] {
        let failed = run("alice", key, token);
        assert!(!failed.status.success(), "{failed:?}");
        assert!(text(&failed.stderr).contains(message), "{failed:?}");
    }
}

#[tokio::test]
async fn the_token_and_the_key_survive_a_restart_on_both_kinds_of_store() {
    let empty = pennon_tests::postgres::Database::create_empty().await;
    for environment in [&[][..], &[("DATABASE_URL", &*empty.url())]] {
        let mut local = Local::start_without_credentials(new_folder("restart"), environment).await;
        let before = exports(&local);
        assert_eq!(before.len(), 2);
        local.restart().await;
        assert_eq!(exports(&local), before);
        let secrets = local.folder().join("flags.json.secrets");
        let mode = secrets.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let check = format!(
            "curl -sf {}/api/admin/flags -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\"",
            local.base()
        );
        run_in_shell(&before, &check);
        let sourced = [format!(". {}", secrets.display())];
        run_in_shell(&sourced, &check);
    }
}

/// Runs every command that the server has printed, each of which must succeed.
fn run_commands_of_first_screen(local: &Local) {
    let log = local.log();
    let commands: Vec<&str> = log.split("\n    curl ").skip(1).collect();
    assert!(commands.len() >= 5, "{log}");
    for command in commands {
        let mut whole = String::from("curl -sf ");
        // The command continues after a backslash.
        for line in command.lines() {
            whole.push_str(line);
            whole.push('\n');
            if !line.ends_with('\\') {
                break;
            }
        }
        run_in_shell(&exports(local), &whole);
    }
}

#[tokio::test]
async fn the_commands_of_the_first_screen_work_with_every_setting_of_the_public_routes() {
    for routes in ["open", "key", "off"] {
        let environment = [("PUBLIC_CONFIG_ROUTES", routes)];
        let local = Local::start_without_credentials(new_folder("routes"), &environment).await;
        run_commands_of_first_screen(&local);
        let public = local.get("/api/config/flags").await.status;
        let expected = if routes == "open" {
            200
        } else if routes == "key" {
            401
        } else {
            404
        };
        assert_eq!(public, expected, "{routes}");
    }
}

#[tokio::test]
async fn the_commands_of_the_first_screen_name_a_flag_of_the_file() {
    let folder = new_folder("other");
    let flags = json!({"flags": {
        "my.flag": {"state": "ENABLED", "rolloutPercentage": 5},
        "typed": {"state": "ENABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a"},
    }});
    std::fs::write(folder.join("flags.json"), flags.to_string()).expect("writes");
    let local = Local::start_without_credentials(folder, &[]).await;
    assert!(!local.log().contains("new-checkout"), "{}", local.log());
    run_commands_of_first_screen(&local);
    let flag = local.get("/api/config/flags/my.flag").await;
    assert_eq!(percentage(&flag), 50, "no command raised the percentage");
}

#[tokio::test]
async fn the_commands_of_the_first_screen_work_for_flags_with_variants_and_unusual_keys() {
    for (key, created) in [("typed", false), ("it's new", true)] {
        let folder = new_folder("typed");
        let typed =
            json!({"state": "DISABLED", "variants": {"a": 1, "b": 2}, "defaultVariant": "a"});
        let flags = json!({"flags": {key: typed}});
        std::fs::write(folder.join("flags.json"), flags.to_string()).expect("writes");
        let local = Local::start_without_credentials(folder, &[]).await;
        run_commands_of_first_screen(&local);
        let flag = local.get("/api/config/flags/new-checkout").await;
        assert_eq!(flag.status == 200, created, "{key}");
        if !created {
            let flag = local.get("/api/config/flags/typed").await;
            assert_eq!(flag.json()["enabled"], true);
        }
    }
}

#[tokio::test]
async fn the_commands_of_the_first_screen_create_a_flag_with_an_unused_key_if_all_are_archived() {
    let folder = new_folder("archived");
    let flags = json!({"flags": {
        "new-checkout": {"state": "ENABLED", "rolloutPercentage": 5},
        "new-checkout-2": {"state": "ENABLED", "rolloutPercentage": 5},
    }});
    std::fs::write(folder.join("flags.json"), flags.to_string()).expect("writes");
    let mut local = Local::start_without_credentials(folder, &[]).await;
    for key in ["new-checkout", "new-checkout-2"] {
        let archive = format!(
            "curl -sf -X DELETE {}/api/admin/flags/{key} -H 'If-Match: *' \
             -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\"",
            local.base()
        );
        run_in_shell(&exports(&local), &archive);
    }
    local.restart().await;
    run_commands_of_first_screen(&local);
    let flag = local.get("/api/config/flags/new-checkout-3").await;
    assert_eq!(percentage(&flag), 50, "the commands did not set 50 %");
}

/// The output of a server that must fail to start.
fn failure_of(server: &mut Command) -> String {
    let output = output_within(server, TIME_LIMIT);
    let message = [output.stdout, output.stderr].concat();
    let message = String::from_utf8_lossy(&message).into_owned();
    assert!(!output.status.success(), "{message}");
    message
}

#[tokio::test]
async fn a_database_without_tls_is_reported_with_a_remedy() {
    let database = pennon_tests::postgres::Database::create_empty().await;
    let url = database.url().replace("?sslmode=disable", "");
    let mut server = Command::new(binary("pennon-local"));
    server
        .current_dir(new_folder("clear"))
        .env("PENNON_LISTEN", "127.0.0.1:0")
        .env("DATABASE_URL", url);
    let message = failure_of(&mut server);
    assert!(
        message.contains("sslmode=disable") && message.contains("does not support TLS"),
        "{message}"
    );
}

#[test]
fn an_api_key_that_cannot_evaluate_flags_is_rejected_at_the_start() {
    let sync = pennon_tests::event::SYNC_KEY;
    let folder = new_folder("sync-key");
    let saved = format!("export PENNON_ADMIN_TOKEN=a\nexport PENNON_API_KEY={sync}\n");
    std::fs::write(folder.join("flags.json.secrets"), saved).expect("writes");
    for key in [sync, ""] {
        let mut server = Command::new(binary("pennon-local"));
        server
            .current_dir(&folder)
            .env("PENNON_LISTEN", "127.0.0.1:0")
            .env("PENNON_API_KEY", key);
        let message = failure_of(&mut server);
        assert!(message.contains("PENNON_API_KEY"), "{message}");
        assert!(!message.contains(sync), "{message}");
    }
}

#[tokio::test]
async fn on_an_empty_database_the_first_screen_creates_a_first_flag() {
    let empty = pennon_tests::postgres::Database::create_empty().await;
    let environment = [("DATABASE_URL", &*empty.url())];
    let mut local = Local::start_without_credentials(new_folder("empty"), &environment).await;
    assert!(
        local
            .log()
            .contains("Create a flag for the commands below."),
        "{}",
        local.log()
    );
    run_commands_of_first_screen(&local);
    let flag = local.get("/api/config/flags/new-checkout").await;
    assert_eq!(percentage(&flag), 50, "the commands did not set 50 %");
    local.restart().await;
    assert!(
        !local
            .log()
            .contains("Create a flag for the commands below."),
        "{}",
        local.log()
    );
}

#[test]
fn the_command_line_is_parsed() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary("pennon-local"));
        let output = output_within(command.args(arguments).env_clear(), TIME_LIMIT);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, help, nothing) = run(&["--help"]);
    assert_eq!((code, nothing.as_str()), (Some(0), ""));
    let settings = read_from_root("crates/pennon-local/src/settings.rs");
    for name in settings
        .split('"')
        .filter(|word| word.starts_with("PENNON_"))
    {
        if name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        {
            assert!(help.contains(name), "{name} in {help}");
        }
    }
    assert_eq!(run(&["-h"]).1, help);
    let (code, version, nothing) = run(&["--version"]);
    assert_eq!((code, nothing.as_str()), (Some(0), ""));
    assert_eq!(
        version,
        format!("pennon-local {}\n", env!("CARGO_PKG_VERSION"))
    );
    for wrong in [&["--hlep"][..], &["serve"], &["--help", "--port"], &[""]] {
        let (code, nothing, message) = run(wrong);
        assert_eq!((code, nothing.as_str()), (Some(2), ""), "{wrong:?}");
        assert!(message.contains("--help"), "{message}");
        assert!(message.contains("unknown argument"), "{message}");
    }
}
