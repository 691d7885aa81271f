//! Every function exists, is built and published alike, may do little, and is told settings that
//! the code knows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use pennon_core::config::Config;
use serde_json::{Value, json};

use super::stack::{Function, Stack, list, only, reference, target, text};
use super::{Mistake, Problems, planted};
use crate::tidy;

/// Variables that the AWS SDK reads.
const OF_THE_SDK: [&str; 1] = ["AWS_USE_DUALSTACK_ENDPOINT"];

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let functions = stack.functions();
    let mut binaries: BTreeMap<&str, &str> = BTreeMap::new();
    for function in functions {
        if let Some(other) = binaries.insert(&function.binary, &function.id) {
            problems.add(&function.id, format!("the same binary as {other}"));
        }
    }
    let folders = tidy::functions();
    for folder in &folders {
        let known = binaries.contains_key(folder.as_str());
        problems.unless(known, folder, "a folder in functions/ and no function");
    }
    for function in functions {
        let exists = folders.contains(&function.binary);
        problems.unless(
            exists,
            &function.id,
            format!("no folder functions/{}", function.binary),
        );
        check_form(stack, function, problems);
        check_logs(stack, functions, function, problems);
        check_settings(stack, function, problems);
        check_secrets(stack, function, problems);
        check_writes(stack, function, problems);
    }
    check_public_config_routes(stack, problems);
    check_policies(stack, problems);
}

fn check_form(stack: &Stack, function: &Function, problems: &mut Problems) {
    let wanted = [
        ("Runtime", json!("provided.al2023")),
        ("Architectures", json!([{ "Ref": "Architecture" }])),
        ("Handler", json!("bootstrap")),
        ("AutoPublishAlias", json!("live")),
        ("AutoPublishCodeSha256", reference("DeployRevision")),
        ("CodeUri", json!(".")),
    ];
    for (name, value) in wanted {
        let found = &function.properties[name];
        problems.unless(
            *found == value,
            &function.id,
            format!("{name} is {found}, not {value}"),
        );
    }
    let method = &stack.get(&function.id)["Metadata"]["BuildMethod"];
    problems.unless(
        method == "rust-cargolambda",
        &function.id,
        "another build method",
    );
}

/// A log group of its own, whose name is the one that Lambda would choose, and that forgets.
fn check_logs(stack: &Stack, all: &[Function], function: &Function, problems: &mut Problems) {
    let logging = &function.properties["LoggingConfig"];
    let group = target(&logging["LogGroup"]);
    let properties = &stack.get(group)["Properties"];
    let is_group = stack.get(group)["Type"] == "AWS::Logs::LogGroup";
    problems.unless(is_group, &function.id, "no log group of its own");
    problems.unless(
        logging["LogFormat"] == "JSON",
        &function.id,
        "logs that are not JSON",
    );
    let sharing = all
        .iter()
        .filter(|other| target(&other.properties["LoggingConfig"]["LogGroup"]) == group);
    problems.unless(
        !is_group || sharing.count() == 1,
        &function.id,
        "shares its log group",
    );
    let own_name = format!(
        "/aws/lambda/{}",
        text(&function.properties["FunctionName"]["Fn::Sub"])
    );
    let name = text(&properties["LogGroupName"]["Fn::Sub"]);
    problems.unless(
        !is_group || name == own_name,
        group,
        "not named after its function",
    );
    for (id, properties) in stack.of_type("AWS::Logs::LogGroup") {
        let forgets = properties["RetentionInDays"] == reference("LogRetentionDays");
        problems.unless(forgets, id, "keeps logs for ever");
    }
}

fn environment(function: &Function) -> BTreeMap<&str, &Value> {
    let variables = function.properties["Environment"]["Variables"].as_object();
    let variables = variables.into_iter().flatten();
    variables
        .map(|(name, value)| (name.as_str(), value))
        .collect()
}

/// The code reads every variable, and accepts everything that a parameter allows.
fn check_settings(stack: &Stack, function: &Function, problems: &mut Problems) {
    let known = RefCell::new(BTreeSet::from(OF_THE_SDK.map(str::to_owned)));
    let environment = environment(function);
    for bound in ["Default", "MinValue", "MaxValue"] {
        let value_of = |name: &str| -> Option<String> {
            known.borrow_mut().insert(name.to_owned());
            let value = *environment.get(name)?;
            let Some(("Ref", parameter)) = only(value) else {
                return value.as_str().map(str::to_owned);
            };
            let parameter = &stack.parameters[text(parameter)];
            let chosen = parameter.get(bound).unwrap_or(&parameter["Default"]);
            match chosen {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            }
        };
        let (_, complaints) = Config::from_lookup(value_of);
        for complaint in complaints {
            problems.add(&function.id, complaint.0);
        }
    }
    // A lookup that knows everything is asked for what a lookup that knows nothing is not.
    let _all = Config::from_lookup(|name| {
        known.borrow_mut().insert(name.to_owned());
        Some("https://1".to_owned())
    });
    let known = known.into_inner();
    for name in environment.keys() {
        problems.unless(
            known.contains(*name),
            &function.id,
            format!("{name} is a variable that nothing reads"),
        );
    }
    for (name, value) in environment {
        let told = value.to_string().contains("{{resolve:");
        problems.unless(!told, &function.id, format!("{name} holds a secret"));
    }
}

/// Whoever is told of a secret may read it, and whoever may read is told.
/// Every function knows whether the two public config routes are open, `not-found` too: it answers for
/// paths that nobody else does.
fn check_public_config_routes(stack: &Stack, problems: &mut Problems) {
    for function in stack.functions() {
        let told = &function.properties["Environment"]["Variables"]["PUBLIC_CONFIG_ROUTES"];
        problems.unless(
            *told == reference("PublicConfigRoutes"),
            &function.id,
            "ignores PublicConfigRoutes",
        );
    }
    let parameter = &stack.parameters["PublicConfigRoutes"];
    for value in list(&parameter["AllowedValues"]) {
        let found = |name: &str| (name == "PUBLIC_CONFIG_ROUTES").then(|| text(value).to_owned());
        let (_, complaints) = Config::from_lookup(found);
        let why = format!("{value} means nothing to the functions");
        problems.unless(complaints.is_empty(), "PublicConfigRoutes", why);
    }
}

fn check_secrets(stack: &Stack, function: &Function, problems: &mut Problems) {
    let told: BTreeSet<String> = environment(function)
        .into_iter()
        .filter(|(name, _)| name.ends_with("_SECRET_ARN"))
        .map(|(_, value)| match target(value) {
            // The attachment's name is the secret's.
            "DatabaseSecretAttachment" => "DatabaseSecret".to_owned(),
            other => other.to_owned(),
        })
        .filter(|id| !id.is_empty())
        .collect();
    let mut readable = BTreeSet::new();
    for statement in statements(stack, function) {
        if list_or_one(&statement["Action"]).any(|action| action == "secretsmanager:GetSecretValue")
        {
            readable.extend(list_or_one(&statement["Resource"]).map(|it| target(it).to_owned()));
        }
    }
    problems.unless(
        told == readable,
        &function.id,
        format!("is told of the secrets {told:?} and may read {readable:?}"),
    );
}

/// `migrate` writes the secrets of the roles that it creates, and nobody else writes any.
fn check_writes(stack: &Stack, function: &Function, problems: &mut Problems) {
    let mut may: Vec<&str> = Vec::new();
    for statement in statements(stack, function) {
        let writes = list_or_one(&statement["Action"])
            .any(|action| text(action).starts_with("secretsmanager:Put"));
        if writes {
            may.extend(list_or_one(&statement["Resource"]).map(target));
        }
    }
    let wanted: &[&str] = if function.id == "MigrateFunction" && !stack.has("DatabaseRoles", "one")
    {
        &[
            "DatabaseReadSecret",
            "DatabaseWriteSecret",
            "DatabaseCountSecret",
        ]
    } else {
        &[]
    };
    problems.unless(
        may == wanted,
        &function.id,
        format!("may write the secrets {may:?}"),
    );
}

/// What a function may do: its own statements, and those of policies in this template.
pub(super) fn statements<'a>(stack: &'a Stack, function: &'a Function) -> Vec<&'a Value> {
    let mut statements = Vec::new();
    for policy in list(&function.properties["Policies"]) {
        let shared = &stack.get(target(policy))["Properties"]["PolicyDocument"]["Statement"];
        statements.extend(list(&policy["Statement"]).iter().chain(list(shared)));
    }
    statements
}

pub(super) fn list_or_one(value: &Value) -> impl Iterator<Item = &Value> {
    let one = (!value.is_array() && !value.is_null()).then_some(value);
    list(value).iter().chain(one)
}

/// Least privilege: no wildcard where an action or a resource is granted, and no policy of others.
fn check_policies(stack: &Stack, problems: &mut Problems) {
    let mut granted: Vec<(String, &Value)> = Vec::new();
    let functions = stack.functions();
    for function in functions {
        problems.unless(
            function.properties["Role"].is_null(),
            &function.id,
            "no role of its own",
        );
        for policy in list(&function.properties["Policies"]) {
            let ours = stack.get(target(policy))["Type"] == "AWS::IAM::ManagedPolicy"
                || policy["Statement"].is_array();
            problems.unless(
                ours,
                &function.id,
                format!("a policy from elsewhere: {policy}"),
            );
        }
        for statement in statements(stack, function) {
            granted.push((function.id.clone(), statement));
        }
    }
    for (id, properties) in stack.of_type("AWS::IAM::Role") {
        for policy in list(&properties["Policies"]) {
            let statements = list(&policy["PolicyDocument"]["Statement"]);
            granted.extend(statements.iter().map(|it| (id.to_owned(), it)));
        }
    }
    for (id, statement) in granted {
        for action in list_or_one(&statement["Action"]) {
            let wide = text(action).contains('*');
            problems.unless(!wide, &id, format!("may do {action}"));
        }
        for resource in list_or_one(&statement["Resource"]) {
            problems.unless(resource != "*", &id, "may do it to everything");
        }
    }
}

#[test]
fn a_folder_without_a_function() {
    let template = super::read("template.yaml");
    let template = Mistake("MigrateFunction", super::GONE, "").plant(&template);
    let found = super::problems(&template);
    let wanted = "migrate: a folder in functions/ and no function";
    assert!(found.contains(&wanted.to_owned()), "{found:#?}");
}

planted! {
    a_function_without_a_folder:
        [Mistake("MigrateFunction", "Binary: migrate", "Binary: move")]
        => "MigrateFunction: goes live without a deployment", "MigrateFunction: no folder functions/move",
           "MigrateFunction: nothing leads to it", "migrate: a folder in functions/ and no function";
    a_function_that_publishes_no_version_when_a_parameter_changes:
        [Mistake("GetFlagFunction", "      AutoPublishCodeSha256: !Ref DeployRevision\n", "")]
        => "GetFlagFunction: AutoPublishCodeSha256 is null, not {\"Ref\":\"DeployRevision\"}";
    a_function_that_cannot_be_closed:
        [Mistake("NotFoundFunction", "Variables: {REDIS_SECRET_ARN", "Variables: {PUBLIC_CONFIG_ROUTES: open, REDIS_SECRET_ARN")]
        => "NotFoundFunction: ignores PublicConfigRoutes";
    a_choice_that_no_function_understands:
        [Mistake("PublicConfigRoutes", "AllowedValues: [open, key, \"off\"]", "AllowedValues: [open, keys, \"off\"]")]
        => "PublicConfigRoutes: \"keys\" means nothing to the functions";
    logs_that_are_kept_for_ever:
        [Mistake("ApiLogs", "      RetentionInDays: !Ref LogRetentionDays\n", "")]
        => "ApiLogs: keeps logs for ever";
    a_log_group_that_lambda_would_not_choose:
        [Mistake("HealthLogs", "-health", "-heath")]
        => "HealthLogs: not named after its function";
    a_variable_that_nothing_reads:
        [Mistake("GetFlagFunction", "      Policies:", "      Environment: {Variables: {CACHE_TTL: \"9\"}}\n      Policies:")]
        => "GetFlagFunction: CACHE_TTL is a variable that nothing reads";
    a_parameter_that_allows_what_the_code_does_not:
        [Mistake("MigrateFunction", "REDIS_SECRET_ARN: \"\"", "REDIS_SECRET_ARN: \"\"\n          CACHE_TTL_SECONDS: \"0\"")]
        => "MigrateFunction: CACHE_TTL_SECONDS=0 is outside 1 to 86400; using 1";
    a_secret_in_a_variable:
        [Mistake("MigrateFunction", "REDIS_SECRET_ARN: \"\"", "REDIS_SECRET_ARN: \"\"\n          REDIS_URL: \"{{resolve:secretsmanager:x}}\"")]
        => "MigrateFunction: REDIS_URL holds a secret";
    a_function_that_may_do_everything_in_a_service:
        [Mistake("PreTrafficFunction", "Action: lambda:InvokeFunction", "Action: lambda:*")]
        => "PreTrafficFunction: may do \"lambda:*\"", "PreTrafficFunction: may not invoke health", "PreTrafficFunction: may not invoke migrate";
    a_function_that_may_write_the_secrets_of_others:
        [Mistake("MigrateFunction", "Resource: [!Ref DatabaseReadSecret, !Ref DatabaseWriteSecret, !Ref DatabaseCountSecret]", "Resource: [!Ref DatabaseReadSecret, !Ref DatabaseWriteSecret, !Ref DatabaseCountSecret, !Ref CacheUrlSecret]")]
        => "MigrateFunction: may write the secrets [\"DatabaseReadSecret\", \"DatabaseWriteSecret\", \"DatabaseCountSecret\", \"CacheUrlSecret\"]";
    a_function_that_may_do_it_to_everything:
        [Mistake("PreTrafficFunction", "Resource: [!Sub \"${HealthFunction.Arn}:*\", !Sub \"${MigrateFunction.Arn}:*\"]", "Resource: [!Sub \"${HealthFunction.Arn}:*\", !Sub \"${MigrateFunction.Arn}:*\", \"*\"]")]
        => "PreTrafficFunction: may do it to everything";
    a_function_with_a_policy_from_elsewhere:
        [Mistake("HealthFunction", "Policies: [!Ref ReadSecretsPolicy]", "Policies: [!Ref ReadSecretsPolicy, AmazonRDSFullAccess]")]
        => "HealthFunction: a policy from elsewhere: \"AmazonRDSFullAccess\"";
}

#[test]
fn a_function_that_may_read_secrets_it_is_not_told_of() {
    let template = super::read("template.yaml");
    let template = Mistake(
        "NotFoundFunction",
        "      Environment:\n",
        "      Policies: [!Ref ReadSecretsPolicy]\n      Environment:\n",
    )
    .plant(&template);
    let found = super::problems(&template);
    assert!(!found.is_empty());
    for problem in found {
        assert!(
            problem.starts_with("NotFoundFunction: is told of the secrets {} and may read"),
            "{problem}"
        );
    }
}
