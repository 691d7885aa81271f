//! `scripts/deploy`, `scripts/set-parameter` and `scripts/login` with replacements for `sam`, `aws`, `cargo` and
//! `cargo-lambda`, because no test deploys to AWS. The replacements of `sam` and `aws` record their arguments; for
//! `scripts/login`, that of `cargo` does too. `scripts/prune-versions` and `scripts/guard-alarm` run with the real AWS
//! CLI and moto.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use pennon_tests::TIME_LIMIT;
use pennon_tests::process::{new_folder, output_within};
use pennon_tests::secrets::SecretsManager;
use serde_json::{Value, json};

/// Records its arguments, and the samconfig.toml that it reads.
const SAM: &str = r#"#!/bin/sh
echo "sam $*" >>"$CALLS"
while [ $# -gt 0 ]; do
  [ "$1" = --config-file ] && cp "$2" "$CALLS.config"
  shift
done
"#;

/// Records its arguments, and prints what a test sets in variables:
/// - `$ANSWER`: the result of `migrate`
/// - `$MODE`, `$ACCESS`, `$ROLES`, `$ROLLOUT`, `$CONSOLE`, `$ARCHITECTURE`: the deployed parameters `CacheMode`,
///   `CacheAccess`, `DatabaseRoles`, `Rollout`, `ConsoleUrl` and `Architecture`
/// - `$CACHES`: the caches of the stack, such as `node cluster`
/// - `$WITH_USERS`: the cache that was given users, `node` or `cluster`
/// - `$STATUS`: the status of the stack
/// - `$THROTTLED`: AWS throttles the calls that contain this text
/// - `$INSTANCES`: the account's limit of concurrent executions; `no stack` means that the stack does not exist
/// - `$LEFT`, `$SECRETS`: log groups and secrets that an earlier stack left
/// - `$CREDENTIALS`: the caller's credentials as JSON, with their expiration
const AWS: &str = r#"#!/bin/sh
echo "aws $*" >>"$CALLS"
fail() { echo "An error occurred ($1) when calling the DescribeStacks operation: $2" >&2; exit 254; }
case $* in
  *"${THROTTLED:-no call}"*) fail Throttling "Rate exceeded" ;;
  *"Parameters[].ParameterKey"*) printf 'Stage\tCacheMode\tDeployRevision\n' ;;
  *pennon-dev*"'CacheMode'"*) printf none ;;
  *"'CacheMode'"*) [ "${INSTANCES:-}" != "no stack" ] && printf '%s' "${MODE-cluster}" ;;
  *describe-stack-resources*ReplicationGroup*) printf '%s' "${CACHES:-}" ;;
  *"logical-resource-id SingleCache"*) printf node ;;
  *"logical-resource-id ClusterCache"*) printf cluster ;;
  *"replication-group-id ${WITH_USERS:-none} "*) printf pennon-production-cache ;;
  *"'CacheAccess'"*) printf '%s' "${ACCESS-users}" ;;
  *DatabaseRoles*) [ "${INSTANCES:-}" != "no stack" ] && printf '%s' "${ROLES-separate}" ;;
  *"'Rollout'"*) printf '%s' "${ROLLOUT-canary}" ;;
  *"'ConsoleUrl'"*) printf '%s' "${CONSOLE:-}" ;;
  *"'Architecture'"*) printf '%s' "${ARCHITECTURE:-}" ;;
  *get-account-settings*) printf '%s\n' "${INSTANCES:-1000}" ;;
  *describe-stacks*StackStatus*)
    [ "${INSTANCES:-}" != "no stack" ] || fail ValidationError "Stack with id pennon-production does not exist"
    echo "${STATUS:-UPDATE_COMPLETE}" ;;
  *describe-log-groups*"prefix /aws/lambda/pennon-production-"*) echo "${LEFT:-}" ;;
  *list-secrets*) echo "${SECRETS:-}" ;;
  *export-credentials*) echo "${CREDENTIALS:-}" ;;
  lambda*) for last; do :; done; printf '%s' "$ANSWER" >"$last" ;;
esac
"#;

struct Sandbox {
    folder: PathBuf,
}

impl Sandbox {
    fn with(programs: &[(&str, &str)]) -> Self {
        let folder = new_folder("deploy");
        for (name, text) in programs {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("writes");
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, executable).expect("sets");
        }
        Self { folder }
    }

    fn complete() -> Self {
        let nothing = "#!/bin/sh\n";
        Self::with(&[
            ("sam", SAM),
            ("aws", AWS),
            ("cargo", nothing),
            ("cargo-lambda", nothing),
        ])
    }

    /// Runs `scripts/deploy` with only these programs and the system's.
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        self.run_script("deploy", arguments, variables)
    }

    /// Replaces a line of samconfig.toml by others, in every stage that has it. Empty new lines are left out.
    fn replace_line(&self, line: &str, by: &[String]) {
        let path = self.folder.join("samconfig.toml");
        let config = std::fs::read_to_string(&path).unwrap_or_else(|_absent| samconfig());
        let line = format!("{line}\n");
        assert!(config.contains(&line), "no {line} in {config}");
        let lines = by.iter().filter(|line| !line.is_empty());
        let lines: String = lines.flat_map(|line| [line.as_str(), "\n"]).collect();
        std::fs::write(path, config.replace(&line, &lines)).expect("writes");
    }

    /// Deploys production. Returns whether the deployment has begun, and the errors.
    fn deploy(&self, variables: &[(&str, &str)]) -> (bool, String) {
        let answer = [("ANSWER", r#"{"applied":2}"#)];
        let done = self.run(&["production"], &[&answer, variables].concat());
        (self.calls().contains("sam build"), text(&done.stderr))
    }

    /// Runs a script on a copy of samconfig.toml.
    fn run_script(&self, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let scripts = self.folder.join("scripts");
        std::fs::create_dir_all(&scripts).expect("a folder");
        for name in [name, "prune-versions"] {
            std::fs::copy(root.join("scripts").join(name), scripts.join(name)).expect("copies");
        }
        let template = self.folder.join("template.yaml");
        std::fs::copy(root.join("template.yaml"), template).expect("copies");
        if !self.folder.join("samconfig.toml").exists() {
            std::fs::write(self.folder.join("samconfig.toml"), samconfig()).expect("writes");
        }
        let mut command = Command::new("bash");
        command
            .arg(scripts.join(name))
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.display()))
            .env("CALLS", self.folder.join("calls"))
            .envs(variables.iter().copied());
        output_within(&mut command, 3 * TIME_LIMIT)
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.folder.join("calls")).unwrap_or_default()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.folder);
    }
}

fn samconfig() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join("samconfig.toml")).expect("a file")
}

/// A line of samconfig.toml; empty without a value.
fn parameter(name: &str, value: &str) -> String {
    match value {
        "" => String::new(),
        value => format!("{name} = \"{value}\""),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_deployment_sets_a_revision_runs_the_migrations_and_prunes_old_versions() {
    let sandbox = Sandbox::complete();
    let answer = [("ANSWER", r#"{"applied":2}"#)];
    let seconds = || SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs();
    let before = seconds();
    let done = sandbox.run(&["production", "--no-confirm-changeset"], &answer);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let calls = sandbox.calls();
    let lines: Vec<&str> = calls.lines().collect();
    assert_eq!(lines.len(), 14, "{calls}");
    assert_eq!(
        lines[7],
        "sam build --parameter-overrides Architecture=arm64"
    );
    assert!(lines[8].starts_with("sam deploy --config-file "), "{calls}");
    let options = "--config-env production --no-confirm-changeset";
    assert!(lines[8].ends_with(options), "{calls}");
    let migrate =
        "aws lambda invoke --region us-east-1 --function-name pennon-production-migrate:live";
    assert!(lines[9].starts_with(migrate), "{calls}");
    assert!(
        lines[10].starts_with("aws cloudformation describe-stacks"),
        "{calls}"
    );
    let prunes =
        "aws cloudformation list-stack-resources --region us-east-1 --stack-name pennon-production";
    assert!(lines[13].starts_with(prunes), "{calls}");

    // The settings are the same except for the revision, which is the time, so that no two deployments have the same.
    let config = std::fs::read_to_string(sandbox.folder.join("calls.config")).expect("a file");
    let revision = config
        .lines()
        .filter_map(|line| line.strip_prefix("DeployRevision = \"")?.strip_suffix('"'))
        .find(|revision| !revision.is_empty())
        .expect("a revision");
    let time: u64 = revision.parse().expect("a time");
    assert!((before..=seconds()).contains(&time), "{revision}");
    assert_eq!(config.replace(revision, ""), samconfig());
}

#[test]
fn a_canary_needs_enough_concurrent_instances_in_the_account() {
    for (stage, instances, begins) in [
        ("production", "10", false),
        ("production", "40", true),
        // A first deployment has no canary, and neither has the stage dev.
        ("production", "no stack", true),
        ("dev", "10", true),
    ] {
        let sandbox = Sandbox::complete();
        let variables = [("ANSWER", r#"{"applied":2}"#), ("INSTANCES", instances)];
        let done = sandbox.run(&[stage], &variables);
        let calls = sandbox.calls();
        assert_eq!(calls.contains("sam build"), begins, "{instances}: {calls}");
        let errors = text(&done.stderr);
        assert_eq!(
            errors.contains("docs/deployment/first-deploy.md"),
            !begins,
            "{errors}"
        );
    }
}

#[test]
fn a_canary_whose_line_was_removed_from_samconfig_is_still_checked() {
    // `sam deploy` keeps the deployed value. Only a stack without the parameter gets the default of the template.
    for (deployed, instances, begins) in [
        ("canary", "10", false),
        ("", "10", false),
        ("canary", "40", true),
        ("all-at-once", "10", true),
    ] {
        let sandbox = Sandbox::complete();
        sandbox.replace_line("Rollout = \"canary\"", &[]);
        let variables = [("INSTANCES", instances), ("ROLLOUT", deployed)];
        let (started, errors) = sandbox.deploy(&variables);
        assert_eq!(started, begins, "{deployed} {instances}: {errors}");
    }
}

#[test]
fn database_roles_change_between_one_and_separate_in_two_deployments() {
    for (before, chosen, begins) in [
        // A stack of an earlier version, which has no such parameter, gets the default of the template.
        ("", None, false),
        ("", Some("separate"), false),
        ("one", Some("separate"), false),
        ("", Some("moving"), true),
        ("one", Some("moving"), true),
        ("moving", Some("separate"), true),
        ("separate", Some("separate"), true),
        ("separate", Some("one"), false),
        ("separate", Some("moving"), true),
        ("moving", Some("one"), true),
        // Without a line in samconfig.toml, `sam deploy` keeps the deployed value.
        ("one", None, true),
        ("moving", None, true),
        ("separate", None, true),
    ] {
        let sandbox = Sandbox::complete();
        let last = "MonthlyBudgetUsd = \"200\"";
        let line = parameter("DatabaseRoles", chosen.unwrap_or_default());
        sandbox.replace_line(last, &[last.to_owned(), line]);
        let (started, errors) = sandbox.deploy(&[("ROLES", before)]);
        assert_eq!(started, begins, "{before} {chosen:?}: {errors}");
        // The advice names the second value, because removing the line would keep `moving`.
        let second = format!("set it to \"{}\"", chosen.unwrap_or("separate"));
        let both_steps = errors.contains("DatabaseRoles = \"moving\"") && errors.contains(&second);
        assert_eq!(both_steps, !begins, "{errors}");
    }
}

#[test]
fn cache_access_of_an_existing_cache_changes_in_steps_and_never_to_or_from_users() {
    for (mode, before, chosen, begins) in [
        // A stack of an earlier version, which has no such parameter.
        ("cluster", "", "users", false),
        ("cluster", "token", "users", false),
        ("single", "moved", "users", false),
        ("cluster", "users", "token", false),
        ("cluster", "users", "users", true),
        ("cluster", "token", "token", true),
        ("cluster", "token", "prepare", true),
        ("cluster", "switch", "moved", true),
        ("cluster", "switch", "prepare", true),
        ("cluster", "moved", "token", false),
        ("cluster", "token", "switch", false),
        ("cluster", "", "moved", false),
        // Without a cache, nothing is replaced.
        ("none", "token", "users", true),
        // Without a line in samconfig.toml, `sam deploy` keeps the deployed value.
        ("cluster", "users", "", true),
        ("cluster", "moved", "", true),
        ("cluster", "token", "", true),
        ("cluster", "", "", true),
    ] {
        let sandbox = Sandbox::complete();
        sandbox.replace_line(
            "CacheAccess = \"users\"",
            &[parameter("CacheAccess", chosen)],
        );
        let (started, errors) = sandbox.deploy(&[("MODE", mode), ("ACCESS", before)]);
        assert_eq!(started, begins, "{mode} {before} {chosen}: {errors}");
        let named = if before.is_empty() { "token" } else { before };
        let advice = format!("Set CacheAccess = \"{named}\" in samconfig.toml");
        assert_eq!(errors.contains(&advice), !begins, "{errors}");
    }
    // The first deployment creates the caches.
    let sandbox = Sandbox::complete();
    let (started, errors) = sandbox.deploy(&[("INSTANCES", "no stack")]);
    assert!(started, "{errors}");
}

#[test]
fn functions_log_in_as_users_only_when_every_cache_has_them() {
    for (caches, with_users, begins) in [
        ("node", "node", true),
        ("node cluster", "node", false),
        ("cluster", "", false),
    ] {
        let sandbox = Sandbox::complete();
        let switch = parameter("CacheAccess", "switch");
        sandbox.replace_line("CacheAccess = \"users\"", &[switch]);
        let (started, errors) = sandbox.deploy(&[
            ("ACCESS", "prepare"),
            ("CACHES", caches),
            ("WITH_USERS", with_users),
        ]);
        assert_eq!(started, begins, "{caches} {with_users}: {errors}");
        let rejected = "which the cache cluster would reject";
        assert_eq!(errors.contains(rejected), !begins, "{errors}");
    }
}

#[test]
fn a_new_token_is_refused_where_functions_do_not_use_it() {
    for (access, begins) in [
        ("", true),
        ("token", true),
        ("prepare", true),
        ("switch", false),
        ("moved", false),
        ("users", false),
    ] {
        let sandbox = Sandbox::complete();
        let change = ["production", "CacheTokenGeneration=2"];
        let done = sandbox.run_script("set-parameter", &change, &[("ACCESS", access)]);
        let errors = text(&done.stderr);
        assert_eq!(done.status.success(), begins, "{access}: {errors}");
        let updates = sandbox.calls().contains("update-stack");
        assert_eq!(updates, begins, "{access}: {errors}");
    }
}

#[test]
fn new_caches_have_the_login_that_functions_use() {
    for (instances, before, mode, chosen, begins) in [
        // The stack has no cache yet.
        ("1000", "moved", "cluster", "moved", false),
        ("1000", "switch", "single", "switch", false),
        ("1000", "moved", "cluster", "", false),
        ("1000", "moved", "cluster", "users", true),
        ("1000", "moved", "cluster", "token", true),
        ("1000", "prepare", "cluster", "prepare", true),
        ("1000", "moved", "none", "moved", true),
        ("1000", "moved", "", "moved", true),
        // There is no stack. The template's default of CacheMode is `single`.
        ("no stack", "", "cluster", "moved", false),
        ("no stack", "", "", "switch", false),
        ("no stack", "", "cluster", "", true),
        ("no stack", "", "none", "moved", true),
    ] {
        let sandbox = Sandbox::complete();
        sandbox.replace_line("CacheMode = \"cluster\"", &[parameter("CacheMode", mode)]);
        sandbox.replace_line(
            "CacheAccess = \"users\"",
            &[parameter("CacheAccess", chosen)],
        );
        let variables = [
            ("INSTANCES", instances),
            ("MODE", "none"),
            ("ACCESS", before),
        ];
        let (started, errors) = sandbox.deploy(&variables);
        let case = format!("{instances} {before} {mode} {chosen}: {errors}");
        assert_eq!(started, begins, "{case}");
        let advice = "Set CacheAccess = \"users\" in samconfig.toml";
        assert_eq!(errors.contains(advice), !begins, "{case}");
    }
}

#[test]
fn a_deployment_does_not_move_to_another_cache() {
    for (before, chosen, begins) in [
        ("single", "cluster", false),
        ("both-use-cluster", "both-use-single", false),
        // samconfig.toml of a checkout in which a step was not committed.
        ("both-use-cluster", "cluster", false),
        ("cluster", "cluster", true),
        ("both-use-single", "both-use-single", true),
        ("none", "cluster", true),
        ("cluster", "none", true),
        // Without a line in samconfig.toml, `sam deploy` keeps the deployed value.
        ("single", "", true),
    ] {
        let sandbox = Sandbox::complete();
        sandbox.replace_line("CacheMode = \"cluster\"", &[parameter("CacheMode", chosen)]);
        let (started, errors) = sandbox.deploy(&[("MODE", before)]);
        assert_eq!(started, begins, "{before} {chosen}: {errors}");
        let advice = format!("Set CacheMode = \"{before}\" in samconfig.toml");
        assert_eq!(errors.contains(&advice), !begins, "{errors}");
    }
}

#[test]
fn the_scripts_stop_at_a_parameter_that_they_cannot_read() {
    for line in [
        "DatabaseRoles = \"separate\" # done",
        "DatabaseRoles=\"separate\"",
        "  DatabaseRoles = 'separate'",
    ] {
        let sandbox = Sandbox::complete();
        let last = "MonthlyBudgetUsd = \"200\"";
        sandbox.replace_line(last, &[last.to_owned(), line.to_owned()]);
        let (started, errors) = sandbox.deploy(&[("ROLES", "moving")]);
        assert!(!started && errors.contains(line), "{line}: {errors}");
        let change = ["production", "CacheMode=both-use-cluster"];
        let stopped = sandbox.run_script("set-parameter", &change, &[]);
        let errors = text(&stopped.stderr);
        assert!(errors.contains(line), "{line}: {errors}");
        assert!(!sandbox.calls().contains("update-stack"), "{errors}");
    }
}

#[test]
fn a_deployment_stops_if_its_stage_has_no_line_for_the_revision() {
    let sandbox = Sandbox::complete();
    let line = "DeployRevision = \"\"";
    sandbox.replace_line(
        &format!("Stage = \"production\"\n{line}"),
        &[parameter("Stage", "production")],
    );
    let (started, errors) = sandbox.deploy(&[]);
    let needed = format!("{line} for production");
    assert!(!started && errors.contains(&needed), "{errors}");
}

#[test]
fn a_stack_whose_creation_failed_is_not_updated() {
    for (status, begins) in [
        ("ROLLBACK_COMPLETE", false),
        ("ROLLBACK_FAILED", false),
        ("DELETE_FAILED", false),
        ("UPDATE_ROLLBACK_COMPLETE", true),
    ] {
        let sandbox = Sandbox::complete();
        let done = sandbox.run(
            &["dev"],
            &[("ANSWER", r#"{"applied":2}"#), ("STATUS", status)],
        );
        assert_eq!(sandbox.calls().contains("sam build"), begins, "{status}");
        let errors = text(&done.stderr);
        assert_eq!(errors.contains("can only be deleted"), !begins, "{errors}");
    }
}

#[test]
fn a_first_deployment_stops_at_resources_of_an_earlier_stack() {
    let longer_name = "/aws/lambda/pennon-production-2-get-flag";
    for (groups, secrets, begins) in [
        ("", "", true),
        (longer_name, "", true),
        ("/aws/lambda/pennon-production-get-flag", "", false),
        ("", "pennon-production/redis-url", false),
    ] {
        let sandbox = Sandbox::complete();
        let variables = [
            ("ANSWER", r#"{"applied":2}"#),
            ("INSTANCES", "no stack"),
            ("LEFT", groups),
            ("SECRETS", secrets),
        ];
        let done = sandbox.run(&["production"], &variables);
        let errors = text(&done.stderr);
        assert_eq!(sandbox.calls().contains("sam build"), begins, "{errors}");
        for name in [groups, secrets] {
            let is_listed = errors.contains(&format!("-name {name}"))
                || errors.contains(&format!("-id {name}"));
            assert_eq!(
                is_listed && !name.is_empty(),
                !begins && !name.is_empty(),
                "{name}: {errors}"
            );
        }
    }
}

#[test]
fn a_first_deployment_stops_if_it_cannot_read_what_an_earlier_stack_left() {
    for throttled in ["CodeDeployHook_pennon-production", "list-secrets"] {
        let sandbox = Sandbox::complete();
        let (started, errors) =
            sandbox.deploy(&[("INSTANCES", "no stack"), ("THROTTLED", throttled)]);
        assert!(!started, "{throttled}");
        assert!(
            errors.contains("Rate exceeded") && errors.contains("It is unknown whether"),
            "{errors}"
        );
    }
}

#[test]
fn a_deployment_stops_if_the_deployed_stack_cannot_be_read() {
    for throttled in ["StackStatus", "DatabaseRoles", "CacheMode", "CacheAccess"] {
        let sandbox = Sandbox::complete();
        let variables = [
            ("ANSWER", r#"{"applied":2}"#),
            ("THROTTLED", throttled),
            ("LEFT", "/aws/lambda/pennon-production-get-flag"),
            ("SECRETS", "pennon-production/redis-url"),
        ];
        let done = sandbox.run(&["production"], &variables);
        let errors = text(&done.stderr);
        assert!(!sandbox.calls().contains("sam build"), "{throttled}");
        assert!(errors.contains("Rate exceeded"), "{throttled}: {errors}");
        // The commands for the resources of a deleted stack would delete those of the running one.
        assert!(!errors.contains("delete-"), "{throttled}: {errors}");
    }
}

#[test]
fn a_stack_whose_first_change_set_was_declined_is_deployed_like_a_new_one() {
    for (left, begins) in [
        ("", true),
        ("/aws/lambda/pennon-production-get-flag", false),
    ] {
        let sandbox = Sandbox::complete();
        let variables = [
            ("ANSWER", r#"{"applied":2}"#),
            ("STATUS", "REVIEW_IN_PROGRESS"),
            ("INSTANCES", "10"),
            ("ACCESS", "None"),
            ("LEFT", left),
        ];
        let done = sandbox.run(&["production"], &variables);
        let errors = text(&done.stderr);
        assert_eq!(sandbox.calls().contains("sam build"), begins, "{errors}");
    }
}

#[test]
fn credentials_that_expire_too_early_cause_a_warning() {
    for (end, warns) in [
        ("2020-01-01T00:00:00Z", true),
        ("2999-01-01T00:00:00+00:00", false),
        ("soon", false),
    ] {
        let sandbox = Sandbox::complete();
        let credentials = format!(r#"{{"Version": 1, "Expiration": "{end}"}}"#);
        let variables = [
            ("ANSWER", r#"{"applied":2}"#),
            ("CREDENTIALS", credentials.as_str()),
        ];
        let done = sandbox.run(&["production"], &variables);
        let errors = text(&done.stderr);
        assert!(done.status.success(), "{errors}");
        assert_eq!(
            errors.contains("your credentials expire"),
            warns,
            "{errors}"
        );
    }
}

/// A folder with the AWS CLI, whose calls reach moto's server.
struct AwsSandbox {
    sandbox: Sandbox,
    variables: Vec<(String, String)>,
}

impl AwsSandbox {
    fn at(moto: &SecretsManager) -> Self {
        let mut variables = moto.environment();
        variables.push(("AWS_ENDPOINT_URL".to_owned(), variables[0].1.clone()));
        variables.push(("AWS_DEFAULT_REGION".to_owned(), "us-east-1".to_owned()));
        let sandbox = Sandbox::with(&[]);
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/awscli/bin/aws");
        std::os::unix::fs::symlink(tools, sandbox.folder.join("aws")).expect("links");
        Self { sandbox, variables }
    }

    /// Runs one of the project's scripts, with additional variables.
    fn run_script(&self, name: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let own = self.variables.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        let variables: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
        self.sandbox.run_script(name, arguments, &variables)
    }

    /// Runs a script that must succeed, and returns its output.
    fn run(&self, script: &str) -> String {
        let done = Command::new("bash")
            .args(["-c", script])
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.sandbox.folder.display()),
            )
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output();
        let done = done.expect("bash runs");
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    }
}

/// Creates a stack with a function of eight versions.
const STACK_WITH_VERSIONS: &str = r#"set -e
aws cloudformation create-stack --stack-name pennon-dev --template-body '{"Resources": {
  "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}}},
  "Get": {"Type": "AWS::Lambda::Function", "Properties": {"FunctionName": "pennon-dev-get-flag",
    "Handler": "bootstrap", "Runtime": "provided.al2023", "Role": {"Fn::GetAtt": ["Role", "Arn"]},
    "Code": {"ZipFile": "x"}}}}}'
# The AWS CLI takes a second to start, so this calls its library.
"$(dirname "$(readlink -f "$(command -v aws)")")/python" -c '
import botocore.session
functions = botocore.session.get_session().create_client("lambda")
for number in range(8):
    functions.update_function_configuration(FunctionName="pennon-dev-get-flag", Description=str(number))
    functions.publish_version(FunctionName="pennon-dev-get-flag")
'
"#;

#[tokio::test]
async fn old_versions_are_deleted_and_those_in_use_are_kept() {
    let moto = SecretsManager::start().await;
    let sandbox = AwsSandbox::at(&moto);
    let with_aws = |script: &str| sandbox.run(script);
    let versions = || {
        let list = "aws lambda list-versions-by-function --function-name pennon-dev-get-flag \
                    --query 'Versions[].Version' --output text";
        with_aws(list).trim().replace('\t', " ")
    };
    with_aws(STACK_WITH_VERSIONS);
    // Without an alias, the version in use is unknown.
    let refused = sandbox.run_script("prune-versions", &["dev", "3"], &[]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("no alias"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(versions(), "$LATEST 1 2 3 4 5 6 7 8");

    let alias = "aws lambda create-alias --function-name pennon-dev-get-flag --name live --function-version 2 \
                 --routing-config '{\"AdditionalVersionWeights\": {\"4\": 0.05}}'";
    with_aws(alias);
    let output = sandbox.run_script("prune-versions", &["dev", "3"], &[("DRY_RUN", "1")]);
    assert!(
        text(&output.stdout).contains("- pennon-dev-get-flag:5\n"),
        "{}",
        text(&output.stdout)
    );
    assert_eq!(versions(), "$LATEST 1 2 3 4 5 6 7 8");
    let done = sandbox.run_script("prune-versions", &["dev", "3"], &[]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(versions(), "$LATEST 2 4 6 7 8");
    for arguments in [&["dev", "0"][..], &["nowhere"], &["dev", "-1"]] {
        let refused = sandbox.run_script("prune-versions", arguments, &[]);
        assert!(!refused.status.success(), "{arguments:?}");
    }
}

/// Creates a stack whose output names the function `guard`, and alarms on a metric and on metric math. moto has no
/// composite alarms.
const STACK_WITH_ALARMS: &str = r#"set -e
aws cloudformation create-stack --stack-name pennon-dev --template-body '{"Resources": {
  "Topic": {"Type": "AWS::SNS::Topic", "Properties": {}}},
  "Outputs": {"GuardFunctionArn": {"Value": "arn:aws:lambda:us-east-1:123456789012:function:pennon-dev-guard:live"}}}'
aws cloudwatch put-metric-alarm --alarm-name 'checkout errors' --alarm-description 'It fails' --namespace Shop \
  --metric-name Errors --dimensions Name=Page,Value=checkout --statistic Sum --period 60 --evaluation-periods 3 \
  --datapoints-to-alarm 2 --threshold 5 --comparison-operator GreaterThanThreshold --treat-missing-data notBreaching \
  --alarm-actions arn:aws:sns:us-east-1:123456789012:mail --ok-actions arn:aws:sns:us-east-1:123456789012:mail
aws cloudwatch put-metric-alarm --alarm-name rate --evaluation-periods 1 --threshold 0.5 \
  --comparison-operator LessThanThreshold --metrics '[
  {"Id": "rate", "Expression": "errors / 60", "ReturnData": true},
  {"Id": "errors", "ReturnData": false, "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": "Errors",
    "Dimensions": [{"Name": "Page", "Value": "checkout"}]}, "Period": 60, "Stat": "Sum"}}]'
"#;

#[tokio::test]
async fn guard_alarm_adds_the_guard_function_as_an_action_and_keeps_all_other_properties() {
    let moto = SecretsManager::start().await;
    let sandbox = AwsSandbox::at(&moto);
    let with_aws = |script: &str| sandbox.run(script);
    let alarms = || -> Value {
        let all = with_aws("aws cloudwatch describe-alarms --output json");
        let mut all: Value = serde_json::from_str(&all).expect("JSON");
        for alarm in ["/MetricAlarms/0", "/MetricAlarms/1"] {
            let alarm = all.pointer_mut(alarm).and_then(Value::as_object_mut);
            let alarm = alarm.expect("an alarm");
            // Times of the last change.
            alarm.retain(|name, _| !name.contains("Timestamp"));
        }
        all
    };
    let guard = "arn:aws:lambda:us-east-1:123456789012:function:pennon-dev-guard:live";

    let missing = sandbox.run_script("guard-alarm", &["dev", "rate"], &[]);
    assert!(!missing.status.success(), "success without a stack");
    with_aws(STACK_WITH_ALARMS);
    let mut wanted = alarms();
    let shown = sandbox.run_script("guard-alarm", &["dev", "rate"], &[("DRY_RUN", "1")]);
    assert!(text(&shown.stdout).contains(guard), "{shown:?}");
    assert_eq!(alarms(), wanted, "a dry run changed an alarm");

    for (alarm, place) in [
        ("checkout errors", "/MetricAlarms/0/AlarmActions"),
        ("rate", "/MetricAlarms/1/AlarmActions"),
    ] {
        // As in a shell of somebody who prefers this format.
        let format = [("AWS_DEFAULT_OUTPUT", "text"), ("DRY_RUN", "0")];
        let done = sandbox.run_script("guard-alarm", &["dev", alarm], &format);
        assert!(done.status.success(), "{alarm}: {}", text(&done.stderr));
        let actions = wanted.pointer_mut(place).and_then(Value::as_array_mut);
        actions.expect("actions").push(json!(guard));
        assert_eq!(alarms(), wanted, "{alarm}");
    }
    let again = sandbox.run_script("guard-alarm", &["dev", "rate"], &[]);
    assert!(text(&again.stdout).contains("already"), "{again:?}");
    assert_eq!(alarms(), wanted);
    let unknown = sandbox.run_script("guard-alarm", &["dev", "nothing"], &[]);
    assert!(
        text(&unknown.stderr).contains("There is no alarm nothing"),
        "{unknown:?}"
    );
}

#[test]
fn functions_are_built_for_the_processors_on_which_they_will_run() {
    let stage = r#"Stage = "production""#;
    let configured = [stage, r#"Architecture = "x86_64""#].map(str::to_owned);
    for (lines, deployed, wanted) in [
        (&configured[..], "arm64", "x86_64"),
        (&configured[..1], "x86_64", "x86_64"),
        (&configured[..1], "arm64", "arm64"),
    ] {
        let sandbox = Sandbox::complete();
        sandbox.replace_line(stage, lines);
        let (begins, errors) = sandbox.deploy(&[("ARCHITECTURE", deployed)]);
        assert!(begins, "{errors}");
        let build = format!("sam build --parameter-overrides Architecture={wanted}\n");
        assert!(sandbox.calls().contains(&build), "{}", sandbox.calls());
    }
}

#[test]
fn a_deployment_says_how_to_set_the_console_url_while_the_stack_has_none() {
    for (url, is_missing) in [("", true), ("https://flags.example.com", false)] {
        let sandbox = Sandbox::complete();
        let variables = [("ANSWER", r#"{"applied":2}"#), ("CONSOLE", url)];
        let done = sandbox.run(&["production"], &variables);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let output = text(&done.stdout);
        assert_eq!(output.contains("set ConsoleUrl"), is_missing, "{output}");
    }
}

#[test]
fn a_failed_migration_fails_the_deployment() {
    let sandbox = Sandbox::complete();
    let answer = [("ANSWER", r#"{"errorMessage":"no database"}"#)];
    let failed = sandbox.run(&["dev"], &answer);
    assert!(!failed.status.success());
    let errors = text(&failed.stderr);
    assert!(
        errors.contains("/aws/lambda/pennon-dev-migrate"),
        "{errors}"
    );
}

#[test]
fn a_dry_run_calls_nothing_and_prints_the_commands() {
    let sandbox = Sandbox::complete();
    let output = sandbox.run(&["staging"], &[("DRY_RUN", "1")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(sandbox.calls(), "");
    let output = text(&output.stdout);
    for line in [
        "+ cargo fetch --locked",
        "+ sam build",
        "+ sam deploy --config-file",
        "pennon-staging-migrate:live",
    ] {
        assert!(output.contains(line), "{output}");
    }
}

#[test]
fn a_missing_tool_is_named_with_the_way_to_install_it() {
    let nothing = "#!/bin/sh\n";
    let sandbox = Sandbox::with(&[("sam", SAM), ("aws", AWS), ("cargo", nothing)]);
    let refused = sandbox.run(&["staging"], &[]);
    assert!(!refused.status.success());
    let errors = text(&refused.stderr);
    assert!(
        errors.contains("cargo-lambda: pip install -r scripts/requirements-build.txt"),
        "{errors}"
    );
    assert_eq!(sandbox.calls(), "");

    let refused = sandbox.run(&["nowhere"], &[]);
    assert!(text(&refused.stderr).contains("dev staging production"));
    assert!(!sandbox.run(&[], &[]).status.success());
}

#[test]
fn one_parameter_changes_and_all_others_stay_as_they_were_deployed() {
    let sandbox = Sandbox::complete();
    let done = sandbox.run_script(
        "set-parameter",
        &["production", "CacheMode=both-use-cluster"],
        &[],
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    let calls = sandbox.calls();
    let lines: Vec<&str> = calls.lines().collect();
    assert_eq!(lines.len(), 6, "{calls}");
    let update = "aws cloudformation update-stack --region us-east-1 --stack-name pennon-production \
                  --use-previous-template";
    assert!(lines[4].starts_with(update), "{calls}");
    let parameters = "--parameters ParameterKey=Stage,UsePreviousValue=true \
                      ParameterKey=CacheMode,ParameterValue=both-use-cluster \
                      ParameterKey=DeployRevision,UsePreviousValue=true";
    assert!(lines[4].ends_with(parameters), "{calls}");
    assert!(
        lines[5].starts_with("aws cloudformation wait stack-update-complete"),
        "{calls}"
    );
}

#[test]
fn a_changed_parameter_and_no_other_is_written_to_samconfig() {
    let sandbox = Sandbox::complete();
    let written =
        || std::fs::read_to_string(sandbox.folder.join("samconfig.toml")).expect("a file");
    let set = |change: &str, variables: &[(&str, &str)]| {
        let done = sandbox.run_script("set-parameter", &["staging", change], variables);
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    set("CacheMode=both-use-cluster", &[("DRY_RUN", "1")]);
    assert_eq!(written(), samconfig());
    set("CacheMode=both-use-cluster", &[]);
    let (before, after) = ("CacheMode = \"single\"", "CacheMode = \"both-use-cluster\"");
    assert_eq!(written(), samconfig().replace(before, after));
    set("CacheMode=single", &[("MODE", "both-use-single")]);
    // A new parameter is added at the end of the section.
    set("CacheTokenGeneration=2", &[("ACCESS", "token")]);
    let last = "MonthlyBudgetUsd = \"80\"\n";
    let wanted = format!("{last}CacheTokenGeneration = \"2\"\n");
    assert_eq!(written(), samconfig().replace(last, &wanted));
    assert_ne!(written(), samconfig());
}

#[test]
fn the_section_of_a_stage_may_contain_empty_lines_and_comments() {
    let sandbox = Sandbox::complete();
    let written =
        || std::fs::read_to_string(sandbox.folder.join("samconfig.toml")).expect("a file");
    let revision = "DeployRevision = \"\"";
    sandbox.replace_line(revision, &[format!("{revision}\n\n# The cache\n")]);
    let before = written();
    let variables = [("ACCESS", "token"), ("MODE", "single")];
    for change in ["CacheMode=both-use-single", "CacheTokenGeneration=2"] {
        let done = sandbox.run_script("set-parameter", &["staging", change], &variables);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let (mode, last) = ("CacheMode = \"single\"\n", "MonthlyBudgetUsd = \"80\"\n");
    let after = before
        .replace(mode, "CacheMode = \"both-use-single\"\n")
        .replace(last, &format!("{last}CacheTokenGeneration = \"2\"\n"));
    assert_eq!(written(), after);
}

#[test]
fn a_failed_change_is_not_written_to_samconfig() {
    let sandbox = Sandbox::complete();
    std::fs::write(sandbox.folder.join("aws"), failing_wait()).expect("writes");
    let change = ["production", "CacheMode=both-use-cluster"];
    let failed = sandbox.run_script("set-parameter", &change, &[]);
    assert!(!failed.status.success());
    assert!(sandbox.calls().contains("update-stack"), "{failed:?}");
    let written = std::fs::read_to_string(sandbox.folder.join("samconfig.toml")).expect("a file");
    assert_eq!(written, samconfig());
}

/// An `aws` whose wait fails, as after an hour or when an update was rolled back.
fn failing_wait() -> String {
    AWS.replace("case $* in", "case $* in\n  *wait*) exit 255 ;;")
}

#[test]
fn set_parameter_stops_while_another_update_takes_longer_than_an_hour() {
    for mode in ["cluster", "both-use-cluster"] {
        let sandbox = Sandbox::complete();
        std::fs::write(sandbox.folder.join("aws"), failing_wait()).expect("writes");
        let change = ["production", "CacheMode=both-use-cluster"];
        let variables = [("MODE", mode), ("STATUS", "UPDATE_IN_PROGRESS")];
        let stopped = sandbox.run_script("set-parameter", &change, &variables);
        let errors = text(&stopped.stderr);
        assert!(!stopped.status.success(), "{mode}: {errors}");
        assert!(errors.contains("is still being updated"), "{errors}");
        assert!(!sandbox.calls().contains("update-stack"), "{errors}");
        let written = std::fs::read_to_string(sandbox.folder.join("samconfig.toml"));
        assert_eq!(written.expect("a file"), samconfig());
    }
}

#[test]
fn set_parameter_completes_a_change_that_an_earlier_run_has_started() {
    for (status, waits) in [("UPDATE_COMPLETE", 0), ("UPDATE_IN_PROGRESS", 1)] {
        let sandbox = Sandbox::complete();
        let change = ["production", "CacheMode=both-use-cluster"];
        let variables = [("MODE", "both-use-cluster"), ("STATUS", status)];
        let done = sandbox.run_script("set-parameter", &change, &variables);
        assert!(done.status.success(), "{}", text(&done.stderr));
        let calls = sandbox.calls();
        // CloudFormation would fail with "No updates are to be performed".
        assert!(!calls.contains("update-stack"), "{calls}");
        let waiting = calls.lines().filter(|call| call.contains(" wait "));
        assert_eq!(waiting.count(), waits, "{calls}");
        let written = std::fs::read_to_string(sandbox.folder.join("samconfig.toml"));
        let (before, after) = (
            "CacheMode = \"cluster\"",
            "CacheMode = \"both-use-cluster\"",
        );
        assert_eq!(written.expect("a file"), samconfig().replace(before, after));
    }
}

#[test]
fn set_parameter_skips_no_step_between_two_caches() {
    let modes = ["single", "both-use-single", "both-use-cluster", "cluster"];
    for (at, before) in modes.iter().enumerate() {
        for (to, chosen) in modes.iter().enumerate() {
            let sandbox = Sandbox::complete();
            let change = format!("CacheMode={chosen}");
            let arguments = ["production", &change];
            let done = sandbox.run_script("set-parameter", &arguments, &[("MODE", before)]);
            let errors = text(&done.stderr);
            let distance = at.abs_diff(to);
            assert_eq!(done.status.success(), distance <= 1, "{errors}");
            let updates = sandbox.calls().contains("update-stack");
            assert_eq!(updates, distance == 1, "{before} {chosen}: {errors}");
        }
    }
}

#[test]
fn set_parameter_selects_no_cache_that_rejects_the_users_of_functions() {
    for (access, with_users, before, chosen, begins) in [
        ("moved", "node", "single", "both-use-single", true),
        (
            "moved",
            "node",
            "both-use-single",
            "both-use-cluster",
            false,
        ),
        (
            "switch",
            "node",
            "both-use-single",
            "both-use-cluster",
            false,
        ),
        (
            "moved",
            "cluster",
            "both-use-single",
            "both-use-cluster",
            true,
        ),
        ("moved", "node", "both-use-cluster", "cluster", false),
        (
            "moved",
            "cluster",
            "both-use-cluster",
            "both-use-single",
            false,
        ),
        ("moved", "node", "both-use-cluster", "both-use-single", true),
        // Functions log in with the token, or the template has created the cache with users.
        ("token", "", "both-use-single", "both-use-cluster", true),
        ("prepare", "", "both-use-single", "both-use-cluster", true),
        ("users", "", "both-use-single", "both-use-cluster", true),
    ] {
        let sandbox = Sandbox::complete();
        let variables = [
            ("ACCESS", access),
            ("WITH_USERS", with_users),
            ("MODE", before),
        ];
        let change = ["production", &format!("CacheMode={chosen}")];
        let done = sandbox.run_script("set-parameter", &change, &variables);
        let errors = text(&done.stderr);
        assert_eq!(done.status.success(), begins, "{access} {chosen}: {errors}");
        let updates = sandbox.calls().contains("update-stack");
        assert_eq!(updates, begins, "{access} {chosen}: {errors}");
        let advice = errors.contains("docs/deployment/cache-users.md");
        assert_eq!(advice, !begins, "{access} {chosen}: {errors}");
    }
}

#[test]
fn set_parameter_selects_no_cache_if_it_cannot_read_how_functions_log_in() {
    let sandbox = Sandbox::complete();
    let variables = [("MODE", "both-use-single"), ("THROTTLED", "'CacheAccess'")];
    let change = ["production", "CacheMode=both-use-cluster"];
    let stopped = sandbox.run_script("set-parameter", &change, &variables);
    assert!(!stopped.status.success());
    let errors = text(&stopped.stderr);
    assert!(errors.contains("Rate exceeded"), "{errors}");
    assert!(!sandbox.calls().contains("update-stack"), "{errors}");
}

#[test]
fn set_parameter_creates_no_cache_for_functions_that_use_none() {
    let sandbox = Sandbox::complete();
    let refused = sandbox.run_script("set-parameter", &["dev", "CacheMode=single"], &[]);
    assert!(!refused.status.success());
    let errors = text(&refused.stderr);
    assert!(errors.contains("run scripts/deploy dev"), "{errors}");
    assert!(!sandbox.calls().contains("update-stack"), "{errors}");
    let written = std::fs::read_to_string(sandbox.folder.join("samconfig.toml")).expect("a file");
    assert_eq!(written, samconfig());
}

#[test]
fn set_parameter_rejects_unsupported_changes_and_points_to_deploy() {
    let sandbox = Sandbox::complete();
    for change in [
        "CacheMode=none",
        "MemorySize=1024",
        "CacheMode",
        "CacheMode=clusters",
    ] {
        let refused = sandbox.run_script("set-parameter", &["production", change], &[]);
        assert!(!refused.status.success(), "{change}");
        assert!(
            text(&refused.stderr).contains("scripts/deploy production"),
            "{change}"
        );
    }
    assert!(
        !sandbox
            .run_script("set-parameter", &["nowhere", "CacheMode=single"], &[])
            .status
            .success()
    );
    assert_eq!(sandbox.calls(), "");
}

/// Records its arguments; the outputs of the stack are in `$ISSUER` and `$CLIENT`.
const LOGIN_AWS: &str = r#"#!/bin/sh
echo "aws $*" >>"$CALLS"
case $* in
  *TokenIssuer*) printf '%s\n' "${ISSUER:-None}" ;;
  *UserPoolClientId*) printf '%s\n' "${CLIENT:-None}" ;;
esac
"#;
const LOGIN_CARGO: &str = r#"#!/bin/sh
echo "cargo $*" >>"$CALLS"
echo export PENNON_ADMIN_TOKEN=x
"#;

#[test]
fn a_login_reads_issuer_and_client_from_the_stack() {
    let issuer = ("ISSUER", "https://cognito-idp.us-east-1.amazonaws.com/p");
    let client = ("CLIENT", "client-1");
    let sandbox = Sandbox::with(&[("aws", LOGIN_AWS), ("cargo", LOGIN_CARGO)]);
    let done = sandbox.run_script("login", &["staging", "--no-browser"], &[issuer, client]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout), "export PENNON_ADMIN_TOKEN=x\n");
    let calls = sandbox.calls();
    let lines: Vec<&str> = calls.lines().collect();
    let stack = "aws cloudformation describe-stacks --region us-east-1 --stack-name pennon-staging";
    assert!(lines[0].starts_with(stack), "{calls}");
    let (cargo, options) = lines[2].split_once(" -- ").expect("options");
    assert!(cargo.starts_with("cargo run --locked --quiet "), "{calls}");
    let wanted = format!(
        "login --name staging --issuer {} --client-id client-1 --no-browser",
        issuer.1
    );
    assert_eq!(options, wanted);

    // A stack with your own issuer has no client id, so the caller gives one.
    let own = sandbox.run_script("login", &["dev", "--client-id", "mine"], &[issuer]);
    assert!(own.status.success(), "{}", text(&own.stderr));
    let last = sandbox
        .calls()
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();
    assert!(
        last.ends_with(&format!("--issuer {} --client-id mine", issuer.1)),
        "{last}"
    );

    for (arguments, why) in [
        (
            &["production"][..],
            "deploy this version of the template first",
        ),
        (&["nowhere"], "usage"),
        (&["--help"], "usage"),
        (&[], "usage"),
    ] {
        let refused = sandbox.run_script("login", arguments, &[]);
        assert!(!refused.status.success(), "{arguments:?}");
        assert!(refused.stdout.is_empty(), "{arguments:?}");
        assert!(
            text(&refused.stderr).contains(why),
            "{}",
            text(&refused.stderr)
        );
    }
    let bare = Sandbox::with(&[("aws", LOGIN_AWS)]);
    let refused = bare.run_script("login", &["staging"], &[issuer, client]);
    assert!(
        text(&refused.stderr).contains("needed to sign in: cargo"),
        "{refused:?}"
    );
}
