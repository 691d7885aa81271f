//! The function that decides whether a new version gets traffic.

use pennon_tests::aws::ControlPlane;
use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::Database;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

/// A control plane whose functions use the stack's wires.
async fn plane(stack: &Stack) -> ControlPlane {
    let migrate = stack.function("migrate").await;
    ControlPlane::start(migrate, stack.function("health").await).await
}

/// Runs the hook once, and returns the function and its response.
async fn run(plane: &ControlPlane, more: &[(&str, &str)]) -> (Function, Result<Value, Value>) {
    let mut environment = plane.environment();
    environment.push(("PRE_TRAFFIC_RETRY_LIMIT_MS", "0"));
    environment.extend_from_slice(more);
    let hook = Function::start("pre-traffic", &environment).await;
    let outcome = hook.invoke(Event::load("pre-traffic").value()).await;
    (hook, outcome)
}

fn reported_statuses(plane: &ControlPlane) -> Vec<Value> {
    let reports = plane.reports();
    reports.iter().map(|it| it.body["status"].clone()).collect()
}

#[tokio::test]
async fn codedeploy_gets_success_when_the_new_health_function_reaches_redis_and_postgresql() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    let (_hook, outcome) = run(&plane, &[]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], true);

    let invocations = plane.invocations();
    let paths: Vec<&str> = invocations.iter().map(|it| it.path.as_str()).collect();
    let wanted = [
        "/2015-03-31/functions/pennon-migrate/invocations?Qualifier=4",
        "/2015-03-31/functions/pennon-health/invocations?Qualifier=7",
    ];
    assert_eq!(paths, wanted);
    assert_eq!(
        invocations[1].header("x-amz-invocation-type"),
        "RequestResponse"
    );
    assert_eq!(invocations[1].body["rawPath"], "/health");

    let reports = plane.reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(
        reports[0].body,
        json!({
            "deploymentId": "d-7PEXAMPLE",
            "lifecycleEventHookExecutionId": "eyJlbmNyeXB0ZWQiOiJleGFtcGxlIn0",
            "status": "Succeeded",
        })
    );
    let target = "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus";
    assert_eq!(reports[0].header("x-amz-target"), target);
    assert_eq!(
        reports[0].header("content-type"),
        "application/x-amz-json-1.1"
    );
    for call in [&invocations[0], &invocations[1], &reports[0]] {
        assert!(call.is_signed(plane.address()), "{call:?}");
        assert_eq!(call.header("x-amz-security-token"), "test-session");
        let signed = call.header("authorization");
        for name in ["host", "x-amz-date", "x-amz-security-token"] {
            assert!(signed.contains(name), "{name} is not signed: {signed}");
        }
    }
}

#[tokio::test]
async fn codedeploy_gets_failure_when_redis_does_not_answer_the_new_version() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    stack.redis.set(Mode::Refuse).await;
    let (hook, outcome) = run(&plane, &[]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(reported_statuses(&plane), ["Failed"]);
    assert!(hook.has_logged("the new version gets no traffic"));
}

#[tokio::test]
async fn codedeploy_gets_failure_when_postgresql_does_not_answer_the_new_version() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    stack.database_wire.set(Mode::Refuse).await;
    let (_hook, outcome) = run(&plane, &[]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(reported_statuses(&plane), ["Failed"]);
}

#[tokio::test]
async fn the_check_of_a_version_that_is_not_ready_is_retried() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    plane.reject_once("pennon-health", 409);
    let (_hook, outcome) = run(&plane, &[("PRE_TRAFFIC_RETRY_LIMIT_MS", "20000")]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], true);
    assert_eq!(plane.invocations().len(), 3);
    assert_eq!(reported_statuses(&plane), ["Succeeded"]);
}

#[tokio::test]
async fn a_migration_that_lambda_cannot_start_yet_is_retried() {
    let stack = Stack::start().await;
    for status in [429, 503, 409] {
        let plane = plane(&stack).await;
        plane.reject_once("pennon-migrate", status);
        let (hook, outcome) = run(&plane, &[("PRE_TRAFFIC_RETRY_LIMIT_MS", "20000")]).await;
        assert_eq!(outcome.expect("an answer")["healthy"], true, "{status}");
        assert_eq!(plane.invocations().len(), 3, "{status}");
        assert!(hook.has_logged("not migrated yet"));
    }
}

#[tokio::test]
async fn an_unreachable_lambda_is_retried_until_the_time_limit() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    let nowhere = [
        ("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:1"),
        ("PRE_TRAFFIC_RETRY_LIMIT_MS", "3000"),
    ];
    let (hook, outcome) = run(&plane, &nowhere).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert!(hook.has_logged("not migrated yet"));
    assert_eq!(reported_statuses(&plane), ["Failed"]);
}

#[tokio::test]
async fn a_migration_is_not_retried_if_the_permission_to_invoke_it_is_missing() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    plane.reject_once("pennon-migrate", 403);
    let (_hook, outcome) = run(&plane, &[("PRE_TRAFFIC_RETRY_LIMIT_MS", "20000")]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(plane.invocations().len(), 1);
    assert_eq!(reported_statuses(&plane), ["Failed"]);
}

#[tokio::test]
async fn a_health_function_arn_without_a_version_fails_the_deployment() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    let unversioned = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health";
    let (_hook, outcome) = run(&plane, &[("HEALTH_FUNCTION_ARN", unversioned)]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(plane.invocations().len(), 1);
    assert_eq!(reported_statuses(&plane), ["Failed"]);
}

#[tokio::test]
async fn a_new_version_gets_traffic_only_if_the_migration_of_its_database_succeeds() {
    let (empty, broken) = (
        Database::create_empty().await,
        Database::create_empty().await,
    );
    // A view has the name of a table.
    let view = "create view feature_flags as select 1 as one";
    broken.sql().batch_execute(view).await.expect("a view");
    for (database, word) in [(&empty, "Succeeded"), (&broken, "Failed")] {
        let url = database.url();
        let url = [("DATABASE_URL", url.as_str())];
        let (migrate, health) = (
            Function::start("migrate", &url).await,
            Function::start("health", &url).await,
        );
        let plane = ControlPlane::start(migrate, health).await;
        let (_hook, outcome) = run(&plane, &[("PRE_TRAFFIC_RETRY_LIMIT_MS", "20000")]).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(reported_statuses(&plane), [word]);
        // A migration that was run again would fail again.
        let invocations = plane.invocations();
        let migrations = invocations.iter().filter(|it| it.path.contains("migrate"));
        assert_eq!(migrations.count(), 1);
    }
    let flags = empty.sql().query("select * from feature_flags", &[]).await;
    assert!(flags.is_ok(), "{flags:?}");
}

#[tokio::test]
async fn a_report_that_does_not_arrive_fails_the_invocation_so_that_lambda_tries_again() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    let nowhere = [("AWS_ENDPOINT_URL_CODEDEPLOY", "http://127.0.0.1:1")];
    let (_hook, outcome) = run(&plane, &nowhere).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn an_event_of_another_sender_is_an_error() {
    let stack = Stack::start().await;
    let plane = plane(&stack).await;
    let hook = Function::start("pre-traffic", &plane.environment()).await;
    assert!(hook.invoke(&json!({})).await.is_err());
    assert_eq!(plane.invocations().len() + plane.reports().len(), 0);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_does_not_reject_a_release() {
    let stack = Stack::start().await;
    let update =
        "update feature_flags set definition = '{\"variants\": 1}' where flag_key = 'search'";
    let updated = stack.database.sql().batch_execute(update).await;
    updated.expect("a row");
    let plane = plane(&stack).await;
    let (_hook, outcome) = run(&plane, &[]).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(reported_statuses(&plane), ["Succeeded"]);
}
