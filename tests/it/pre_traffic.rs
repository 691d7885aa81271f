//! The function that decides whether a new version gets traffic.

use pennon_tests::aws::ControlPlane;
use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::stack::Stack;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};

/// Runs the hook once and gives what it answers.
async fn run(plane: &ControlPlane, more: &[(&str, &str)]) -> (Function, Result<Value, Value>) {
    let mut environment = plane.environment();
    environment.push(("HEALTH_PATIENCE_MS", "0"));
    environment.extend_from_slice(more);
    let hook = Function::start("pre-traffic", &environment).await;
    let outcome = hook.invoke(Event::load("pre-traffic").value()).await;
    (hook, outcome)
}

fn status(plane: &ControlPlane) -> Vec<Value> {
    let reports = plane.reports();
    reports.iter().map(|it| it.body["status"].clone()).collect()
}

#[tokio::test]
async fn codedeploy_hears_of_success_when_the_new_health_function_reaches_redis_and_postgresql() {
    let stack = Stack::start().await;
    let plane = ControlPlane::start(stack.function("health").await, 0).await;
    let (_hook, outcome) = run(&plane, &[]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], true);

    let asked = plane.invocations();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "pennon-health?Qualifier=7");
    assert_eq!(asked[0].header("x-amz-invocation-type"), "RequestResponse");
    assert_eq!(asked[0].body["rawPath"], "/health");

    let told = plane.reports();
    assert_eq!(told.len(), 1);
    assert_eq!(
        told[0].body,
        json!({
            "deploymentId": "d-7PEXAMPLE",
            "lifecycleEventHookExecutionId": "eyJlbmNyeXB0ZWQiOiJleGFtcGxlIn0",
            "status": "Succeeded",
        })
    );
    let target = "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus";
    assert_eq!(told[0].header("x-amz-target"), target);
    assert_eq!(told[0].header("content-type"), "application/x-amz-json-1.1");
    for (call, service) in [(&asked[0], "lambda"), (&told[0], "codedeploy")] {
        let signed = call.header("authorization");
        assert!(
            signed.starts_with("AWS4-HMAC-SHA256 Credential=test-id/"),
            "{signed}"
        );
        let scope = format!("/us-east-1/{service}/aws4_request");
        assert!(signed.contains(&scope), "{signed}");
        assert_eq!(call.header("x-amz-security-token"), "test-session");
    }
}

#[tokio::test]
async fn codedeploy_hears_of_failure_when_redis_does_not_answer_the_new_version() {
    let stack = Stack::start().await;
    let health = stack.function("health").await;
    stack.redis_wire.set(Mode::Refuse).await;
    let plane = ControlPlane::start(health, 0).await;
    let (hook, outcome) = run(&plane, &[]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(status(&plane), ["Failed"]);
    assert!(hook.has_logged("the new version gets no traffic"));
}

#[tokio::test]
async fn codedeploy_hears_of_failure_when_postgresql_does_not_answer_the_new_version() {
    let stack = Stack::start().await;
    let health = stack.function("health").await;
    stack.database_wire.set(Mode::Refuse).await;
    let plane = ControlPlane::start(health, 0).await;
    let (_hook, outcome) = run(&plane, &[]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(status(&plane), ["Failed"]);
}

#[tokio::test]
async fn a_version_that_is_not_ready_yet_is_asked_again() {
    let stack = Stack::start().await;
    let plane = ControlPlane::start(stack.function("health").await, 1).await;
    let (_hook, outcome) = run(&plane, &[("HEALTH_PATIENCE_MS", "20000")]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], true);
    assert_eq!(plane.invocations().len(), 2);
    assert_eq!(status(&plane), ["Succeeded"]);
}

#[tokio::test]
async fn a_hook_that_does_not_know_whom_to_ask_reports_failure() {
    let stack = Stack::start().await;
    let plane = ControlPlane::start(stack.function("health").await, 0).await;
    let unversioned = "arn:aws:lambda:us-east-1:123456789012:function:pennon-health";
    let (_hook, outcome) = run(&plane, &[("HEALTH_FUNCTION_ARN", unversioned)]).await;
    assert_eq!(outcome.expect("an answer")["healthy"], false);
    assert_eq!(plane.invocations().len(), 0);
    assert_eq!(status(&plane), ["Failed"]);
}

#[tokio::test]
async fn a_report_that_does_not_arrive_fails_the_invocation_so_that_lambda_tries_again() {
    let stack = Stack::start().await;
    let plane = ControlPlane::start(stack.function("health").await, 0).await;
    let nowhere = [("AWS_ENDPOINT_URL_CODEDEPLOY", "http://127.0.0.1:1")];
    let (_hook, outcome) = run(&plane, &nowhere).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

#[tokio::test]
async fn an_event_that_is_none_of_codedeploys_is_an_error() {
    let stack = Stack::start().await;
    let plane = ControlPlane::start(stack.function("health").await, 0).await;
    let hook = Function::start("pre-traffic", &plane.environment()).await;
    assert!(hook.invoke(&json!({})).await.is_err());
    assert_eq!(plane.invocations().len() + plane.reports().len(), 0);
}
