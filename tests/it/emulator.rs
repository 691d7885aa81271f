//! The functions in Lambda's Runtime Interface Emulator, which the SAM CLI contains.

use std::path::{Path, PathBuf};
use std::process::Command;

use pennon_tests::aws::ControlPlane;
use pennon_tests::binaries::binary;
use pennon_tests::event::{EXAMPLE_KEY, Event, REQUEST_FILES, SYNC_KEY};
use pennon_tests::eventually;
use pennon_tests::lambda::MAC_KEY;
use pennon_tests::local::HttpClient;
use pennon_tests::process::{Process, free_port, new_folder};
use pennon_tests::response::Response;
use pennon_tests::stack::Stack;

/// The emulator's binary for this machine.
fn emulator() -> PathBuf {
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "x86_64"
    };
    let name = format!("samcli/local/rapid/aws-lambda-rie-{architecture}");
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/sam/lib");
    std::fs::read_dir(&library)
        .ok()
        .and_then(|mut versions| versions.next()?.ok())
        .map(|version| version.path().join("site-packages").join(name))
        .filter(|path| path.is_file())
        .expect("the SAM CLI in .tools; `scripts/tools` installs it")
}

#[tokio::test]
async fn every_event_file_is_answered_under_lambdas_own_emulator() {
    let stack = Stack::start().await;
    stack.database.add_flag("new-checkout", true, 5).await;
    stack.database.add_key(EXAMPLE_KEY).await;
    stack.database.add_key(SYNC_KEY).await;
    for (file, function, status) in REQUEST_FILES {
        let response = invoke(&stack, function, file, &[]).await;
        let answer = Response::of_gateway(&response);
        assert_eq!(answer.status, status, "{file}: {answer:?}");
    }
    let done = invoke(&stack, "migrate", "migrate", &[]).await;
    assert_eq!(done["applied"], 0);
    let done = invoke(&stack, "reconcile", "reconcile", &[]).await;
    // Production, and the one that an event creates.
    assert_eq!(done["environments"], 2);
    let counted = invoke(&stack, "count-evaluations", "count-evaluations", &[]).await;
    assert_eq!(counted["evaluations"], 2);
    let (migrate, health) = (
        stack.function("migrate").await,
        stack.function("health").await,
    );
    let plane = ControlPlane::start(migrate, health).await;
    let done = invoke(&stack, "pre-traffic", "pre-traffic", &plane.environment()).await;
    assert_eq!(done["healthy"], true);
    assert_eq!(plane.reports()[0].body["status"], "Succeeded");
}

/// Starts the function in the emulator, sends it the event file and returns its response.
async fn invoke(
    stack: &Stack,
    function: &str,
    file: &str,
    more: &[(&str, &str)],
) -> serde_json::Value {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(emulator());
    command
        .args(["--runtime-interface-emulator-address", &address])
        .args([
            "--runtime-api-address",
            &format!("127.0.0.1:{}", free_port()),
        ])
        .args(["--log-level", "error"])
        .arg(binary("pennon-functions"))
        .arg(function)
        .env("AWS_LAMBDA_FUNCTION_NAME", function)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_REGION", "us-east-1")
        .env("REDIS_URL", stack.redis.url())
        .env("CACHE_MAC_KEY", MAC_KEY)
        .env("DATABASE_URL", stack.database.url())
        .envs(more.iter().copied());
    let folder = new_folder("emulator");
    let process = Process::start(&command, &folder.join("log"), Some(&folder));
    eventually("the emulator listens", async || {
        tokio::net::TcpStream::connect(&address).await.is_ok()
    })
    .await;
    let client = HttpClient::of(format!("http://{address}"));
    let answer = client
        .send(
            "POST",
            "/2015-03-31/functions/function/invocations",
            &[],
            &Event::load(file).value().to_string(),
        )
        .await;
    assert_eq!(answer.status, 200, "{file}: {answer:?}; {}", process.log());
    answer.json()
}
