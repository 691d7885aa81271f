//! docs/openapi.yaml matches the route table and the local server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pennon_core::http::{Authorization, ENDPOINTS};
use pennon_tests::TIME_LIMIT;
use pennon_tests::clients::tools;
use pennon_tests::local::{ADMIN_TOKEN, API_KEY, Local};
use pennon_tests::process::output_within;
use serde_json::{Value, json};

/// Fixed, so that failures are reproducible; `PENNON_SEED` sets another one.
const SEED: &str = "20261121";

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.yaml")
}

/// The document as JSON. The Python environment of schemathesis converts the document.
fn parsed() -> Value {
    let program =
        "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    // `scripts/tools` installs it.
    let mut python = Command::new(tools().join("schemathesis/bin/python"));
    let output = output_within(python.args(["-c", program]).arg(document()), 3 * TIME_LIMIT);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// All operations: method, path, and whether an admin token is required.
fn operations(document: &Value) -> BTreeSet<(String, String, bool)> {
    let methods = ["get", "put", "post", "patch", "delete", "options", "head"];
    let paths = document["paths"].as_object().expect("paths");
    let mut found = BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            if methods.contains(&method.as_str()) {
                let admin = operation["security"][0].get("adminToken").is_some();
                found.insert((method.to_uppercase(), path.clone(), admin));
            }
        }
    }
    found
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let described = operations(&parsed());
    let served: BTreeSet<_> = ENDPOINTS
        .iter()
        .map(|route| {
            (
                route.method.to_owned(),
                route.path.to_owned(),
                route.is_admin(),
            )
        })
        .collect();
    let missing: Vec<_> = served.difference(&described).collect();
    assert!(missing.is_empty(), "not described: {missing:?}");
    let unserved: Vec<_> = described.difference(&served).collect();
    assert!(
        unserved.is_empty(),
        "described and not served: {unserved:?}"
    );
}

#[test]
fn every_operation_has_the_summary_of_the_route_table() {
    let document = parsed();
    for route in ENDPOINTS {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        assert_eq!(
            operation["summary"], route.summary,
            "{} {}",
            route.method, route.path
        );
    }
}

#[test]
fn every_operation_names_the_role_of_the_route_table() {
    let document = parsed();
    for route in ENDPOINTS {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        let role = match route.authorization {
            Authorization::Viewer => json!("viewer"),
            Authorization::Editor => json!("editor"),
            Authorization::Admin => json!("admin"),
            Authorization::Anyone
            | Authorization::PublicConfig
            | Authorization::ApiKey
            | Authorization::SyncKey => Value::Null,
        };
        let place = format!("{} {}", route.method, route.path);
        assert_eq!(operation["x-role"], role, "{place}");
    }
}

#[test]
fn every_operation_has_a_unique_name_and_its_error_responses() {
    let document = parsed();
    assert_eq!(document["openapi"], "3.1.0");
    let mut names = BTreeSet::new();
    for (method, path, admin) in operations(&document) {
        let operation = &document["paths"][&path][method.to_lowercase()];
        let name = operation["operationId"].as_str().expect("an operationId");
        assert!(names.insert(name.to_owned()), "{name} twice");
        assert!(operation["summary"].is_string(), "{method} {path}");
        let responses = operation["responses"].as_object().expect("responses");
        let needed: &[&str] = if admin { &["401", "403"] } else { &[] };
        for status in needed {
            assert!(
                responses.contains_key(*status),
                "{method} {path} lacks {status}"
            );
        }
        for brace in path.split('{').skip(1) {
            let parameter = brace.split('}').next().expect("a name");
            assert!(
                operation["parameters"].to_string().contains(parameter),
                "{method} {path} lacks the parameter {parameter}"
            );
        }
    }
}

#[tokio::test]
async fn schemathesis_finds_no_deviation_from_the_document() {
    let local = Local::start(&[]).await;
    let seed = std::env::var("PENNON_SEED").unwrap_or_else(|_| SEED.to_owned());
    println!("seed {seed}; PENNON_SEED=… tries another");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis.toml");
    let mut command = tokio::process::Command::new(tools().join("bin/schemathesis"));
    command
        .arg("--config-file")
        .arg(config)
        .arg("run")
        .arg(document())
        .args(["--url", local.base(), "--seed", &seed, "--no-color"])
        .env("PENNON_ADMIN_TOKEN", ADMIN_TOKEN)
        .env("PENNON_API_KEY", API_KEY)
        .current_dir(local.folder())
        .kill_on_drop(true);
    let within = std::time::Duration::from_mins(5);
    let output = tokio::time::timeout(within, command.output())
        .await
        .expect("schemathesis ends")
        .expect("schemathesis of .tools; `scripts/tools` installs it");
    assert!(
        output.status.success(),
        "seed {seed}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        local.get("/health/live").await.status,
        200,
        "schemathesis stopped the server"
    );
}
