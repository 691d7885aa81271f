//! Every function exists, is built and published in the same way, has minimal permissions, and gets only settings that
//! the code knows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pennon_core::config::Config;
use serde_json::{Value, json};

use super::stack::{Function, Stack, accepts, list, only, reference, target, text};
use super::{Mistake, Problems, parse, planted};
use crate::tidy;

/// Variables that AWS has named, and that the code reads directly instead of through its configuration.
const OF_AWS: [&str; 1] = ["AWS_USE_DUALSTACK_ENDPOINT"];

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let functions = stack.functions();
    let mut handlers: BTreeMap<&str, &str> = BTreeMap::new();
    for function in functions {
        if let Some(other) = handlers.insert(&function.handler, &function.id) {
            problems.add(&function.id, format!("the same handler as {other}"));
        }
    }
    let modules = tidy::functions();
    for module in &modules {
        let known = handlers.contains_key(module.as_str());
        problems.unless(known, module, "a handler in functions/src and no function");
    }
    for function in functions {
        let exists = modules.contains(&function.handler);
        problems.unless(
            exists,
            &function.id,
            format!("no handler {}", function.handler),
        );
        let built_by = &stack.get(&function.id)["Metadata"];
        let wanted = json!({"BuildMethod": "rust-cargolambda", "BuildProperties": {"Binary": "pennon-functions"}});
        problems.unless(
            *built_by == wanted,
            &function.id,
            "not built once with all the others",
        );
        check_form(function, problems);
        check_logs(stack, functions, function, problems);
        check_settings(stack, function, problems);
        check_secrets(stack, function, problems);
        check_writes(stack, function, problems);
    }
    for (id, properties) in stack.of_type("AWS::Logs::LogGroup") {
        let expires = properties["RetentionInDays"] == reference("LogRetentionDays");
        problems.unless(expires, id, "keeps logs for ever");
    }
    check_public_config_routes(stack, problems);
    check_policies(stack, problems);
    check_alarms_of_ramps(stack, problems);
    check_webhooks(stack, problems);
    check_event_bus(stack, problems);
}

/// Functions that change flags may send events to the configured bus only. The other functions may send none.
fn check_event_bus(stack: &Stack, problems: &mut Problems) {
    let bus = json!({
        "Fn::Sub": "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/${EventBusName}"
    });
    for function in stack.functions() {
        let may: Vec<&Value> = statements(stack, function)
            .into_iter()
            .filter(|it| list_or_one(&it["Action"]).any(|action| action == "events:PutEvents"))
            .flat_map(|it| list_or_one(&it["Resource"]))
            .collect();
        let role = target(&function.properties["Role"]);
        let changes = ["ChangeRole", "RampRole", "ReconcileRole"].contains(&role);
        let wanted = if changes && !stack.has("EventBusName", "") {
            vec![&bus]
        } else {
            Vec::new()
        };
        problems.unless(
            may == wanted,
            &function.id,
            format!("may send events to {may:?}"),
        );
        let name = &function.properties["Environment"]["Variables"]["EVENT_BUS_NAME"];
        problems.unless(
            *name == reference("EventBusName"),
            &function.id,
            format!("sends events to {name}"),
        );
    }
}

/// Only alarms of this account may invoke `guard`. Only `ramps` and `reconcile` may read alarms. With
/// `EgressMode=endpoint` no function can reach `CloudWatch`, and `CLOUDWATCH_ENDPOINT` is `none`.
fn check_alarms_of_ramps(stack: &Stack, problems: &mut Problems) {
    let wanted = json!({ "Action": "lambda:InvokeFunction", "FunctionName": reference("GuardFunction.Alias"),
        "Principal": "lambda.alarms.cloudwatch.amazonaws.com", "SourceAccount": reference("AWS::AccountId") });
    for (id, permission) in stack.of_type("AWS::Lambda::Permission") {
        problems.unless(
            *permission == wanted,
            id,
            "lets callers other than alarms of this account invoke guard",
        );
    }
    let endpoint = if stack.has("EgressMode", "endpoint") {
        "none"
    } else {
        ""
    };
    for function in stack.functions() {
        let reads = statements(stack, function)
            .into_iter()
            .any(is_read_of_alarms);
        let should = ["ramps", "reconcile"].contains(&function.handler.as_str());
        problems.unless(
            reads == should,
            &function.id,
            format!("may read alarms: {reads}"),
        );
        let value = &function.properties["Environment"]["Variables"]["CLOUDWATCH_ENDPOINT"];
        problems.unless(
            *value == endpoint,
            &function.id,
            format!("reads alarms at {value}"),
        );
    }
}

/// `reconcile` may invoke the alias of `send-webhooks`, which is outside the VPC and may only write its log. Functions
/// that change flags know whether webhooks can be sent.
fn check_webhooks(stack: &Stack, problems: &mut Problems) {
    let alias = reference("SendWebhooksFunction.Alias");
    let endpoint = stack.has("EgressMode", "endpoint");
    let sender = if endpoint {
        json!("none")
    } else {
        alias.clone()
    };
    for function in stack.functions() {
        let statements = statements(stack, function);
        let invokes = statements
            .iter()
            .any(|it| it["Action"] == "lambda:InvokeFunction" && it["Resource"] == alias);
        let should = function.handler == "reconcile";
        problems.unless(
            invokes == should,
            &function.id,
            format!("may invoke send-webhooks: {invokes}"),
        );
        let role = target(&function.properties["Role"]);
        let changes = ["ChangeRole", "RampRole", "ReconcileRole"].contains(&role);
        let wanted = if changes { &sender } else { &Value::Null };
        let configured =
            &function.properties["Environment"]["Variables"]["SEND_WEBHOOKS_FUNCTION_ARN"];
        problems.unless(
            configured == wanted,
            &function.id,
            format!("sends webhooks by {configured}"),
        );
        if function.handler == "send-webhooks" {
            let outside = function.properties["VpcConfig"].is_null();
            problems.unless(outside, &function.id, "reaches no receiver from the VPC");
            let only_logs = statements.iter().all(|it| {
                list_or_one(&it["Action"]).all(|action| text(action).starts_with("logs:"))
            });
            problems.unless(only_logs, &function.id, "may do more than write its log");
        }
    }
}

fn check_form(function: &Function, problems: &mut Problems) {
    let wanted = [
        ("Runtime", json!("provided.al2023")),
        ("Architectures", json!([{ "Ref": "Architecture" }])),
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
}

/// Checks that a function has a log group of its own, with the name that Lambda would choose.
fn check_logs(stack: &Stack, all: &[Arc<Function>], function: &Function, problems: &mut Problems) {
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
    problems.unless(
        logging["SystemLogLevel"] == "WARN",
        &function.id,
        "logs two lines of Lambda for every call",
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
}

fn environment(function: &Function) -> BTreeMap<&str, &Value> {
    let variables = function.properties["Environment"]["Variables"].as_object();
    let variables = variables.into_iter().flatten();
    variables
        .map(|(name, value)| (name.as_str(), value))
        .collect()
}

/// Checks that the code reads every variable. If the value is a parameter, its default and bounds must be valid.
fn check_settings(stack: &Stack, function: &Function, problems: &mut Problems) {
    let environment = environment(function);
    if stack.has_mistake_elsewhere(function)
        || !problems.begin_check(format!("{} {environment:?}", function.id))
    {
        return;
    }
    let known = RefCell::new(BTreeSet::from(OF_AWS.map(str::to_owned)));
    for bound in ["Default", "MinValue", "MaxValue"] {
        let value_of = |name: &str| -> Option<String> {
            known.borrow_mut().insert(name.to_owned());
            let value = *environment.get(name)?;
            let Some(("Ref", parameter)) = only(value) else {
                return value.as_str().map(str::to_owned);
            };
            let parameter = &stack.parameters[text(parameter)];
            let chosen = parameter.get(bound).unwrap_or(&parameter["Default"]);
            let text = chosen.as_str().map(str::to_owned);
            text.or_else(|| (!chosen.is_null()).then(|| chosen.to_string()))
        };
        let (_, warnings) = Config::from_lookup(value_of);
        for warning in warnings {
            problems.add(&function.id, warning.0);
        }
    }
    // The code reads some variables only if another one has a value. Here every variable has one.
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
        let is_secret = value.to_string().contains("{{resolve:");
        problems.unless(!is_secret, &function.id, format!("{name} holds a secret"));
    }
}

/// Every function gets `PUBLIC_CONFIG_ROUTES`, also `not-found`, which answers other methods on these paths.
fn check_public_config_routes(stack: &Stack, problems: &mut Problems) {
    for function in stack.functions() {
        let value = &function.properties["Environment"]["Variables"]["PUBLIC_CONFIG_ROUTES"];
        problems.unless(
            *value == reference("PublicConfigRoutes"),
            &function.id,
            "ignores PublicConfigRoutes",
        );
    }
    let parameter = &stack.parameters["PublicConfigRoutes"];
    for value in list(&parameter["AllowedValues"]) {
        let found = |name: &str| (name == "PUBLIC_CONFIG_ROUTES").then(|| text(value).to_owned());
        let (_, warnings) = Config::from_lookup(found);
        let why = format!("{value} means nothing to the functions");
        problems.unless(warnings.is_empty(), "PublicConfigRoutes", why);
    }
}

/// A function may read exactly the secrets that its variables name.
fn check_secrets(stack: &Stack, function: &Function, problems: &mut Problems) {
    let named: BTreeSet<String> = environment(function)
        .into_iter()
        .filter(|(name, _)| name.ends_with("_SECRET_ARN"))
        .map(|(_, value)| match target(value) {
            // The ARN of a secret's attachment is the secret's.
            "DatabaseSecretAttachment" => "DatabaseSecret".to_owned(),
            other => other.to_owned(),
        })
        .filter(|id| !id.is_empty())
        .collect();
    let readable = readable_secrets(stack, function);
    problems.unless(
        named == readable,
        &function.id,
        format!("names the secrets {named:?} and may read {readable:?}"),
    );
}

/// The secrets that the role of a function may read.
pub(super) fn readable_secrets(stack: &Stack, function: &Function) -> BTreeSet<String> {
    let mut readable = BTreeSet::new();
    for statement in statements(stack, function) {
        if list_or_one(&statement["Action"]).any(|action| action == "secretsmanager:GetSecretValue")
        {
            readable.extend(list_or_one(&statement["Resource"]).map(|it| target(it).to_owned()));
        }
    }
    readable
}

/// `migrate` alone writes secrets: those of the roles that it creates.
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

/// The statements that allow something in the role of a function, including its policies in this template.
pub(super) fn statements<'a>(stack: &'a Stack, function: &'a Function) -> Vec<&'a Value> {
    role_statements(stack, target(&function.properties["Role"]))
}

fn role_statements<'a>(stack: &'a Stack, role: &str) -> Vec<&'a Value> {
    let properties = &stack.get(role)["Properties"];
    let mut statements: Vec<&Value> = Vec::new();
    for policy in list(&properties["Policies"]) {
        statements.extend(list(&policy["PolicyDocument"]["Statement"]));
    }
    for policy in list(&properties["ManagedPolicyArns"]) {
        let shared = &stack.get(target(policy))["Properties"]["PolicyDocument"]["Statement"];
        statements.extend(list(shared));
    }
    statements.retain(|statement| statement["Effect"] != "Deny");
    statements
}

pub(super) fn list_or_one(value: &Value) -> impl Iterator<Item = &Value> {
    let one = (!value.is_array() && !value.is_null()).then_some(value);
    list(value).iter().chain(one)
}

/// Whether a statement permits reading alarms. For composite alarms, `CloudWatch` requires permission on `*`.
fn is_read_of_alarms(statement: &Value) -> bool {
    statement["Action"] == "cloudwatch:DescribeAlarms"
}

/// Permissions that Lambda needs for the network interfaces of a function. EC2 accepts no resource but `*` for them.
fn is_network_interface(action: &Value) -> bool {
    [
        "ec2:AssignPrivateIpAddresses",
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:UnassignPrivateIpAddresses",
    ]
    .contains(&text(action))
}

/// Least privilege: no wildcards in actions or resources, and no managed policies. No role may create log groups: with
/// that permission, late log lines recreate a group that was deleted with its stack, and the next stack of that name
/// cannot create it.
fn check_policies(stack: &Stack, problems: &mut Problems) {
    for function in stack.functions() {
        let role = target(&function.properties["Role"]);
        let ours = stack.get(role)["Type"] == "AWS::IAM::Role";
        problems.unless(ours, &function.id, "no role of this template");
        let connected = function.properties["VpcConfig"].is_null()
            || statements(stack, function)
                .iter()
                .any(|it| list_or_one(&it["Action"]).any(|it| it == "ec2:CreateNetworkInterface"));
        problems.unless(connected, &function.id, "cannot be connected to its VPC");
        let group = target(&function.properties["LoggingConfig"]["LogGroup"]);
        let own = json!({ "Fn::GetAtt": [group, "Arn"] });
        let writes = statements(stack, function).iter().any(|it| {
            list_or_one(&it["Action"]).any(|it| it == "logs:PutLogEvents")
                && list_or_one(&it["Resource"]).any(|it| *it == own)
        });
        problems.unless(writes, &function.id, "may not write to its log group");
    }
    for (id, properties) in stack.of_type("AWS::IAM::Role") {
        for policy in list(&properties["ManagedPolicyArns"]) {
            let ours = stack.get(target(policy))["Type"] == "AWS::IAM::ManagedPolicy";
            problems.unless(ours, id, format!("a policy from elsewhere: {policy}"));
        }
        for statement in role_statements(stack, id) {
            for action in list_or_one(&statement["Action"]) {
                let wide = text(action).contains('*');
                problems.unless(!wide, id, format!("may do {action}"));
                let creates = action == "logs:CreateLogGroup";
                problems.unless(!creates, id, "brings back a log group that was deleted");
            }
            let interfaces = list_or_one(&statement["Action"]).all(is_network_interface);
            for resource in list_or_one(&statement["Resource"]) {
                let narrow = resource != "*" || interfaces || is_read_of_alarms(statement);
                problems.unless(narrow, id, "has a permission on every resource");
            }
        }
    }
    // Lambda needs these permissions; the code of a function does not.
    for (id, properties) in stack.of_type("AWS::IAM::ManagedPolicy") {
        let statements = list(&properties["PolicyDocument"]["Statement"]);
        let all_of = |effect: &str| -> BTreeSet<&str> {
            let statements = statements.iter().filter(|it| it["Effect"] == effect);
            let actions = statements.flat_map(|it| list_or_one(&it["Action"]));
            actions
                .filter(|it| is_network_interface(it))
                .map(text)
                .collect()
        };
        let denied = all_of("Allow") == all_of("Deny");
        problems.unless(denied, id, "code may use the rights that Lambda needs");
    }
}

#[test]
fn an_event_bus_needs_a_way_to_eventbridge() {
    let template = parse(&super::read("template.yaml"));
    for (egress, bus, accepted) in [
        ("ipv6", "changes", true),
        ("nat", "changes", true),
        ("endpoint", "changes", false),
        ("endpoint", "", true),
    ] {
        let profile = BTreeMap::from([("EgressMode", egress), ("EventBusName", bus)]);
        assert_eq!(accepts(&template, &profile), accepted, "{egress} {bus:?}");
    }
}

#[test]
fn a_handler_without_a_function() {
    let template = super::read("template.yaml");
    let template = Mistake("MigrateFunction", super::GONE, "").plant(&template);
    let found = super::problems(&template);
    let wanted = "migrate: a handler in functions/src and no function";
    assert!(found.contains(&wanted.to_owned()), "{found:#?}");
}

planted! {
    a_function_without_a_handler:
        [Mistake("MigrateFunction", "Handler: migrate", "Handler: move")]
        => "MigrateFunction: gets traffic without a deployment", "MigrateFunction: has no trigger",
           "MigrateFunction: no handler move", "migrate: a handler in functions/src and no function";
    a_function_that_is_built_by_itself:
        [Mistake("MigrateFunction", "Binary: pennon-functions", "Binary: migrate")]
        => "MigrateFunction: not built once with all the others";
    a_function_that_publishes_no_version_when_a_parameter_changes:
        [Mistake("GetFlagFunction", "      AutoPublishCodeSha256: !Ref DeployRevision\n", "")]
        => "GetFlagFunction: AutoPublishCodeSha256 is null, not {\"Ref\":\"DeployRevision\"}";
    a_function_that_ignores_public_config_routes:
        [Mistake("NotFoundFunction", "Variables: {REDIS_SECRET_ARN", "Variables: {PUBLIC_CONFIG_ROUTES: open, REDIS_SECRET_ARN")]
        => "NotFoundFunction: ignores PublicConfigRoutes";
    a_parameter_value_that_no_function_accepts:
        [Mistake("PublicConfigRoutes", "AllowedValues: [open, key, \"off\"]", "AllowedValues: [open, keys, \"off\"]")]
        => "PublicConfigRoutes: \"keys\" means nothing to the functions";
    logs_that_are_kept_for_ever:
        [Mistake("ApiLogs", "      RetentionInDays: !Ref LogRetentionDays\n", "")]
        => "ApiLogs: keeps logs for ever";
    lines_of_lambda_for_every_call:
        [Mistake("HealthFunction", "LoggingConfig: {LogGroup: !Ref HealthLogs}", "LoggingConfig: {LogGroup: !Ref HealthLogs, SystemLogLevel: INFO}")]
        => "HealthFunction: logs two lines of Lambda for every call";
    a_log_group_that_lambda_would_not_choose:
        [Mistake("HealthLogs", "-health", "-heath")]
        => "HealthLogs: not named after its function";
    a_variable_that_nothing_reads:
        [Mistake("GetFlagFunction", "      Role:", "      Environment: {Variables: {CACHE_TTL: \"9\"}}\n      Role:")]
        => "GetFlagFunction: CACHE_TTL is a variable that nothing reads";
    a_parameter_that_allows_what_the_code_does_not:
        [Mistake("MigrateFunction", "REDIS_SECRET_ARN: \"\"", "REDIS_SECRET_ARN: \"\"\n          CACHE_TTL_SECONDS: \"0\"")]
        => "MigrateFunction: CACHE_TTL_SECONDS=0 is outside 1 to 86400; using 1";
    a_secret_in_a_variable:
        [Mistake("MigrateFunction", "REDIS_SECRET_ARN: \"\"", "REDIS_SECRET_ARN: \"\"\n          REDIS_URL: \"{{resolve:secretsmanager:x}}\"")]
        => "MigrateFunction: REDIS_URL holds a secret";
    a_function_with_every_permission_of_a_service:
        [Mistake("PreTrafficRole", "Action: lambda:InvokeFunction", "Action: lambda:*")]
        => "PreTrafficFunction: may not invoke health", "PreTrafficFunction: may not invoke migrate", "PreTrafficRole: may do \"lambda:*\"";
    a_function_that_may_write_the_secrets_of_others:
        [Mistake("MigrateRole", "Resource: [!Ref DatabaseReadSecret, !Ref DatabaseWriteSecret, !Ref DatabaseCountSecret]", "Resource: [!Ref DatabaseReadSecret, !Ref DatabaseWriteSecret, !Ref DatabaseCountSecret, !Ref CacheUrlSecret]")]
        => "MigrateFunction: may write the secrets [\"DatabaseReadSecret\", \"DatabaseWriteSecret\", \"DatabaseCountSecret\", \"CacheUrlSecret\"]";
    a_function_with_permissions_on_every_resource:
        [Mistake("PreTrafficRole", "Resource: [!Sub \"${HealthFunction.Arn}:*\", !Sub \"${MigrateFunction.Arn}:*\"]", "Resource: [!Sub \"${HealthFunction.Arn}:*\", !Sub \"${MigrateFunction.Arn}:*\", \"*\"]")]
        => "PreTrafficRole: has a permission on every resource";
    a_function_with_a_managed_policy:
        [Mistake("MigrateRole", "ManagedPolicyArns: [", "ManagedPolicyArns: [arn:aws:iam::aws:policy/AmazonRDSFullAccess, ")]
        => "MigrateRole: a policy from elsewhere: \"arn:aws:iam::aws:policy/AmazonRDSFullAccess\"";
    a_role_that_may_create_log_groups:
        [Mistake("CountRole", "[logs:CreateLogStream,", "[logs:CreateLogGroup, logs:CreateLogStream,")]
        => "CountRole: brings back a log group that was deleted";
    a_flow_log_that_may_create_log_groups:
        [Mistake("FlowLogRole", "[logs:CreateLogStream,", "[logs:CreateLogGroup, logs:CreateLogStream,")]
        => "FlowLogRole: brings back a log group that was deleted";
    a_function_that_may_not_write_its_log:
        [Mistake("CountRole", "!GetAtt CountEvaluationsLogs.Arn", "!GetAtt MigrateLogs.Arn")]
        => "CountEvaluationsFunction: may not write to its log group";
    a_function_with_the_role_that_sam_makes:
        [Mistake("NotFoundFunction", "      Role: !GetAtt NotFoundRole.Arn\n", "")]
        => "NotFoundFunction: may not write to its log group", "NotFoundFunction: no role of this template";
    a_function_that_lambda_cannot_connect:
        [Mistake("MigrateRole", "      ManagedPolicyArns: [!Ref NetworkInterfacesPolicy]\n", "")]
        => "MigrateFunction: cannot be connected to its VPC";
    a_guard_that_alarms_of_other_accounts_may_invoke:
        [Mistake("GuardPermission", ", SourceAccount: !Ref AWS::AccountId", "")]
        => "GuardPermission: lets callers other than alarms of this account invoke guard";
    a_reconcile_that_cannot_read_alarms:
        [Mistake("ReconcileFunction", "ReconcileRole", "ChangeRole"),
         Mistake("ChangeRole", "!GetAtt UpdateFlagLogs.Arn", "!GetAtt UpdateFlagLogs.Arn, !GetAtt ReconcileLogs.Arn")]
        => "ReconcileFunction: may invoke send-webhooks: false", "ReconcileFunction: may read alarms: false",
           "wave 0: 11 functions at once";
    a_function_that_may_invoke_any_version_of_another_one:
        [Mistake("ReconcileRole", "Resource: !Ref SendWebhooksFunction.Alias", "Resource: !Sub \"${SendWebhooksFunction.Arn}:*\"")]
        => "ReconcileFunction: may invoke send-webhooks: false", "wave 0: 11 functions at once";
    a_sender_that_may_read_alarms:
        [Mistake("SendWebhooksRole", "- PolicyName: logs", "- PolicyName: alarms\n          PolicyDocument: {Statement: [{Effect: Allow, Action: cloudwatch:DescribeAlarms, Resource: \"*\"}]}\n        - PolicyName: logs")]
        => "SendWebhooksFunction: may do more than write its log", "SendWebhooksFunction: may read alarms: true";
    a_function_that_reaches_no_sender:
        [Mistake("ManageKeysFunction", "SEND_WEBHOOKS_FUNCTION_ARN: !If [UseEndpoint, none, !Ref SendWebhooksFunction.Alias]", "SEND_WEBHOOKS_FUNCTION_ARN: none")]
        => "ManageKeysFunction: sends webhooks by \"none\"";
    a_function_that_may_send_events_to_another_bus_is_reported:
        [Mistake("RampRole", "event-bus/${EventBusName}", "event-bus/default")]
        => "RampsFunction: may send events to [Object {\"Fn::Sub\": String(\"arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default\")}]";
    code_that_may_create_network_interfaces:
        [Mistake("NetworkInterfacesPolicy", "Effect: Deny", "Effect: Allow")]
        => "NetworkInterfacesPolicy: code may use the rights that Lambda needs";
}

#[test]
fn a_function_that_may_read_secrets_that_no_variable_names() {
    let template = super::read("template.yaml");
    let template = Mistake("NotFoundFunction", "NotFoundRole", "ReadRole").plant(&template);
    let template = Mistake(
        "ReadRole",
        "!GetAtt HealthLogs.Arn",
        "!GetAtt HealthLogs.Arn, !GetAtt NotFoundLogs.Arn",
    )
    .plant(&template);
    let found = super::problems(&template);
    assert!(!found.is_empty());
    for problem in found {
        assert!(
            problem.starts_with("NotFoundFunction: names the secrets {} and may read"),
            "{problem}"
        );
    }
}
