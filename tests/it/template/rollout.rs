//! A new version gets 5 % of the calls for an hour, after a check, and its own alarms roll it back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::functions::{list_or_one, statements};
use super::stack::{Function, Stack, list, reference, target, text};
use super::{Mistake, Problems, planted, read};

/// Functions without a canary, beside those for admins. 5 % of the calls of `migrate`, `pre-traffic`, `guard`,
/// `send-webhooks` or the console would show nothing. `not-found` gets its new version only after the canary of the
/// functions that read.
const WITHOUT_CANARY: [&str; 6] = [
    "migrate",
    "pre-traffic",
    "guard",
    "send-webhooks",
    "console",
    "not-found",
];
/// The maximum number of functions that `CloudFormation` may create or change at once: each step is one request per
/// function, and Lambda accepts 15 such requests a second per account.
const FUNCTIONS_AT_A_TIME: usize = 10;
/// The maximum number of permissions (one per route) that may be created at once: two seconds of that rate, because
/// `CloudFormation` retries throttled requests.
const PERMISSIONS_AT_A_TIME: usize = 30;
/// The functions that answer most calls, so that rates are meaningful.
pub(super) const RATED: [&str; 4] = ["evaluate-flag", "evaluate-flags", "get-flag", "list-flags"];

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let canary = stack.has("Rollout", "canary");
    for (id, properties) in stack.of_type("AWS::CodeDeploy::DeploymentConfig") {
        let wanted = json!({ "Type": "TimeBasedCanary",
            "TimeBasedCanary": { "CanaryPercentage": 5, "CanaryInterval": 60 } });
        let right = properties["TrafficRoutingConfig"] == wanted
            && properties["ComputePlatform"] == "Lambda";
        problems.unless(right, id, "not 5 % for 60 minutes");
    }
    for function in stack.functions() {
        let preference = &function.properties["DeploymentPreference"];
        if !has_canary(function) {
            let may =
                WITHOUT_CANARY.contains(&function.handler.as_str()) || is_for_admins(function);
            problems.unless(may, &function.id, "gets traffic without a deployment");
            continue;
        }
        let kind = if canary {
            reference("CanaryConfig")
        } else {
            json!("AllAtOnce")
        };
        problems.unless(
            preference["Type"] == kind,
            &function.id,
            "not the chosen rollout",
        );
        let hook = &preference["Hooks"]["PreTraffic"];
        problems.unless(
            canary || hook.is_null(),
            &function.id,
            "a check before the first call without a canary",
        );
        if canary {
            check_hook(stack, &function.id, target(hook), problems);
        }
        if canary {
            check_alarms(stack, function, problems);
        }
    }
    for (id, alarm) in stack.of_type("AWS::CloudWatch::Alarm") {
        let of_a_version = alarm["AlarmName"].to_string().contains(".Version.Version}");
        problems.unless(
            canary || !of_a_version,
            id,
            "watches a rollout without a canary",
        );
    }
    check_waves(stack, problems);
}

/// Whether all its routes need a token, as those of the admin API do.
fn is_for_admins(function: &Function) -> bool {
    let mut events = function.properties["Events"]
        .as_object()
        .into_iter()
        .flatten();
    let for_admins = |event: &Value| event["Properties"]["Auth"]["Authorizer"] == "AdminToken";
    function.properties["Events"].is_object() && events.all(|(_, event)| for_admins(event))
}

/// Whether `CodeDeploy` shifts the calls of this function to its new version, if the rollout is a canary.
fn has_canary(function: &Function) -> bool {
    function.properties["DeploymentPreference"]["Enabled"] != false
}

/// For each function, the functions that must have their new versions before it.
type Order<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// A function waits for the aliases in its `DependsOn`, by the names that SAM gives them, and for those that its
/// properties or its role refer to.
fn order(stack: &Stack) -> Order<'_> {
    let functions = stack.functions().iter();
    functions
        .map(|function| {
            let resource = stack.get(&function.id);
            let role = stack.get(target(&function.properties["Role"]));
            let mut texts = Vec::new();
            for value in [&resource["DependsOn"], &function.properties, role] {
                add_texts(value, &mut texts);
            }
            let aliases = texts.into_iter().filter_map(|it| {
                it.strip_suffix("Aliaslive")
                    .or_else(|| it.strip_suffix(".Alias"))
            });
            (function.id.as_str(), aliases.collect())
        })
        .collect()
}

/// Adds every text in a value.
fn add_texts<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|it| add_texts(it, texts)),
        Value::Object(map) => map.values().for_each(|it| add_texts(it, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The wave in which a function gets its new version, from 0.
fn wave(order: &Order, id: &str) -> usize {
    let before = order.get(id).into_iter().flatten();
    before.map(|it| wave(order, it) + 1).max().unwrap_or(0)
}

/// Functions are created and changed in waves that Lambda's control plane accepts, functions that change flags after
/// those that read them, and all canaries in the same hour.
fn check_waves(stack: &Stack, problems: &mut Problems) {
    let order = order(stack);
    let mut waves: BTreeMap<usize, Vec<&Function>> = BTreeMap::new();
    for function in stack.functions() {
        waves
            .entry(wave(&order, &function.id))
            .or_default()
            .push(function);
    }
    for (number, functions) in &waves {
        let count = functions.len();
        let what = format!("{count} functions at once");
        problems.unless(
            count <= FUNCTIONS_AT_A_TIME,
            &format!("wave {number}"),
            what,
        );
        let events = functions
            .iter()
            .filter_map(|it| it.properties["Events"].as_object())
            .flat_map(Map::values);
        // A schedule has a role instead.
        let permissions = events.filter(|it| it["Type"] != "ScheduleV2").count();
        let what = format!("{permissions} permissions at once");
        problems.unless(
            permissions <= PERMISSIONS_AT_A_TIME,
            &format!("wave {number}"),
            what,
        );
    }
    let after = |id: &str| {
        let mut found = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for before in order.get(id).into_iter().flatten() {
                if found.insert(*before) {
                    open.push(before);
                }
            }
        }
        found
    };
    let readers = stack
        .functions()
        .iter()
        .filter(|it| RATED.contains(&it.handler.as_str()));
    let readers: Vec<&str> = readers.map(|it| it.id.as_str()).collect();
    for function in stack.functions().iter().filter(|it| is_for_admins(it)) {
        let before = after(&function.id);
        for reader in &readers {
            let what = format!("gets its new version before {reader}");
            problems.unless(before.contains(reader), &function.id, what);
        }
    }
    let canaries = || stack.functions().iter().filter(|it| has_canary(it));
    for function in canaries() {
        let before = after(&function.id);
        for earlier in canaries().filter(|it| before.contains(it.id.as_str())) {
            let what = format!("begins its canary an hour after {}", earlier.id);
            problems.add(&function.id, what);
        }
    }
}

/// Checks that `CodeDeploy` may invoke the check before the first call, and that the check invokes the new version.
fn check_hook(stack: &Stack, of: &str, id: &str, problems: &mut Problems) {
    let functions = stack.functions();
    let Some(hook) = functions.iter().find(|function| function.id == id) else {
        problems.add(of, "no check before the first call");
        return;
    };
    let properties = &hook.properties;
    let name = text(&properties["FunctionName"]["Fn::Sub"]);
    let may_be_invoked = name.starts_with("CodeDeployHook_");
    problems.unless(
        may_be_invoked,
        id,
        "CodeDeploy may only invoke CodeDeployHook_…",
    );
    let at_once = properties["DeploymentPreference"]["Enabled"] == false;
    problems.unless(at_once, id, "waits for itself");
    problems.unless(
        properties["VpcConfig"].is_null(),
        id,
        "in a VPC that has no way to CodeDeploy",
    );
    let variables = &properties["Environment"]["Variables"];
    let migrates = variables["MIGRATE_FUNCTION_ARN"] == reference("MigrateFunction.Version");
    problems.unless(migrates, id, "does not run the migrations of the release");
    let asked = &variables["HEALTH_FUNCTION_ARN"];
    problems.unless(
        *asked == reference("HealthFunction.Version"),
        id,
        "does not invoke the new version of health",
    );
    let may = |action: &str, resource: &Value| {
        statements(stack, hook).into_iter().any(|statement| {
            list_or_one(&statement["Action"]).any(|it| it == action)
                && list_or_one(&statement["Resource"]).any(|it| it == resource)
        })
    };
    for (function, name) in [("HealthFunction", "health"), ("MigrateFunction", "migrate")] {
        let versions = json!({ "Fn::Sub": format!("${{{function}.Arn}}:*") });
        let invoke = may("lambda:InvokeFunction", &versions);
        problems.unless(invoke, id, format!("may not invoke {name}"));
    }
    let group = "arn:${AWS::Partition}:codedeploy:${AWS::Region}:${AWS::AccountId}:deploymentgroup:${AWS::StackName}-*";
    let report = may(
        "codedeploy:PutLifecycleEventHookExecutionStatus",
        &json!({ "Fn::Sub": group }),
    );
    problems.unless(report, id, "may not report to CodeDeploy");
    // For each of the two functions 35 s of retries and the last attempt (305 s for migrations, 15 s for health), and
    // 10 s for the report.
    let time = properties["Timeout"].as_u64().unwrap_or_default();
    problems.unless(time >= 400, id, "has less time than its retries may take");
}

fn check_alarms(stack: &Stack, function: &Function, problems: &mut Problems) {
    let id = &function.id;
    let alarms = list(&function.properties["DeploymentPreference"]["Alarms"]);
    // CodeDeploy accepts at most ten.
    problems.unless(
        (1..=10).contains(&alarms.len()),
        id,
        "a deployment without alarms, or with more than ten",
    );
    let mut watched = Vec::new();
    for alarm in alarms {
        let alarm_id = target(alarm);
        let properties = &stack.get(alarm_id)["Properties"];
        if stack.get(alarm_id)["Type"] != "AWS::CloudWatch::Alarm" {
            problems.add(id, format!("{alarm_id} is not an alarm"));
            continue;
        }
        check_canary_alarm(function, alarm_id, properties, problems);
        watched.extend(meaning(properties));
    }
    // Only functions that answer requests respond with 5xx. The schedule calls a canary three times in its hour, so two
    // crashes are too many.
    let events = function.properties["Events"].to_string();
    let mut needed = if events.contains("\"ScheduleV2\"") {
        vec!["crashed 2 times"]
    } else {
        vec!["crashed 3 times"]
    };
    if events.contains("\"HttpApi\"") {
        needed.push("answered 5xx 3 times");
    }
    if RATED.contains(&function.handler.as_str()) {
        needed.extend([
            "failed more than 0.1 %",
            "hit less than 80 %",
            "took more than 100 ms",
        ]);
    }
    for need in needed {
        let met = watched.iter().any(|it| it.starts_with(need));
        problems.unless(met, id, format!("no alarm for a version that {need}"));
    }
}

/// Checks that an alarm of a rollout watches one version of one function, by its number.
fn check_canary_alarm(function: &Function, id: &str, properties: &Value, problems: &mut Problems) {
    let own = reference(&function.id);
    let version = json!({ "Fn::GetAtt": [function.id, "Version.Version"] });
    let alias = json!({ "Fn::Sub": format!("${{{}}}:live", function.id) });
    let of_lambda = json!([{ "Name": "FunctionName", "Value": own },
        { "Name": "Resource", "Value": alias }, { "Name": "ExecutedVersion", "Value": version }]);
    let of_ours =
        json!([{ "Name": "Function", "Value": own }, { "Name": "Version", "Value": version }]);
    for metric in metrics(properties) {
        let wanted = if metric["Namespace"] == "AWS/Lambda" {
            &of_lambda
        } else {
            &of_ours
        };
        problems.unless(
            metric["Dimensions"] == *wanted,
            id,
            "does not watch only the new version",
        );
    }
    let quiet = properties["TreatMissingData"] == "notBreaching";
    problems.unless(quiet, id, "rolls back a version without calls");
    let name = text(&properties["AlarmName"]["Fn::Sub"]);
    let number = format!("${{{}.Version.Version}}", function.id);
    problems.unless(
        name.contains(&number),
        id,
        "the alarm of one attempt blocks the next",
    );
    let uses_floor = list(&properties["Metrics"]).iter().all(|metric| {
        let expression = text(&metric["Expression"]);
        expression.is_empty() || expression.contains(" >= 50,")
    });
    problems.unless(uses_floor, id, "a rate of a few calls");
}

/// The metrics of an alarm, whether it has one or several.
pub(super) fn metrics(properties: &Value) -> Vec<Value> {
    let mut found: Vec<Value> = list(&properties["Metrics"])
        .iter()
        .filter(|it| !it["MetricStat"].is_null())
        .map(|it| it["MetricStat"]["Metric"].clone())
        .collect();
    if !properties["MetricName"].is_null() {
        found.push(json!({ "Namespace": properties["Namespace"],
            "MetricName": properties["MetricName"], "Dimensions": properties["Dimensions"] }));
    }
    found
}

/// The problem of a version that an alarm detects, among those that the rules require.
fn meaning(properties: &Value) -> Option<String> {
    let names: Vec<String> = metrics(properties)
        .iter()
        .map(|it| text(&it["MetricName"]).to_owned())
        .collect();
    let has = |name: &str| names.iter().any(|it| it == name);
    let threshold = &properties["Threshold"];
    let operator = text(&properties["ComparisonOperator"]);
    let at_least = operator == "GreaterThanOrEqualToThreshold";
    let above = operator == "GreaterThanThreshold";
    let below = operator == "LessThanThreshold";
    let p95 = list(&properties["Metrics"])
        .iter()
        .any(|it| it["MetricStat"]["Stat"] == "p95");
    if has("Errors") && has("server_errors") && above {
        Some(format!("failed more than {threshold} %"))
    } else if has("Errors") && at_least {
        Some(format!("crashed {threshold} times"))
    } else if has("server_errors") && at_least {
        Some(format!("answered 5xx {threshold} times"))
    } else if has("cache_hit_rate") && below {
        Some(format!("hit less than {threshold} %"))
    } else if has("response_latency") && p95 && above {
        Some(format!("took more than {threshold} ms"))
    } else {
        None
    }
}

/// The settings in samconfig.toml: section, name, value.
pub(super) fn samconfig() -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut values = Vec::new();
    for line in read("samconfig.toml").lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            name.clone_into(&mut section);
        } else if let Some((name, value)) = line.split_once(" = ") {
            let value = value.trim_matches('"').to_owned();
            values.push((section.clone(), name.to_owned(), value));
        }
    }
    values
}

/// By default `sam deploy` gives up after 60 minutes, but a canary takes an hour.
#[test]
fn samconfig_chooses_parameters_that_exist_and_waits_for_the_canary() {
    let template = super::yaml::parse(&read("template.yaml"));
    let values = samconfig();
    let value_of = |section: String, wanted: &str| {
        let found = values
            .iter()
            .find(|(in_section, name, _)| *in_section == section && name == wanted);
        found.map(|(_, _, value)| value.as_str())
    };
    for stage in ["dev", "staging", "production"] {
        let overrides = format!("{stage}.deploy.parameters.parameter_overrides");
        assert_eq!(value_of(overrides.clone(), "Stage"), Some(stage));
        assert_eq!(value_of(overrides.clone(), "DeployRevision"), Some(""));
        if value_of(overrides, "Rollout") == Some("canary") {
            let minutes = value_of(format!("{stage}.deploy.parameters"), "max_wait_duration");
            assert_eq!(minutes, Some("120"), "{stage}");
        }
    }
    for (section, name, value) in &values {
        if section.ends_with(".parameter_overrides") {
            let parameter = &template["Parameters"][name];
            assert!(!parameter.is_null(), "{name} is not a parameter");
            let allowed = list(&parameter["AllowedValues"]);
            let fits =
                |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned) == *value;
            assert!(
                allowed.is_empty() || allowed.iter().any(fits),
                "{name} = {value}"
            );
        }
    }
}

planted! {
    a_wrong_canary: [Mistake("CanaryConfig", "CanaryPercentage: 5", "CanaryPercentage: 50")]
        => "CanaryConfig: not 5 % for 60 minutes";
    a_canary_that_is_too_short: [Mistake("CanaryConfig", "CanaryInterval: 60", "CanaryInterval: 10")]
        => "CanaryConfig: not 5 % for 60 minutes";
    a_function_that_takes_all_calls_at_once:
        [Mistake("GetFlagFunction", "      DeploymentPreference:\n", "      DeploymentPreference:\n        Type: AllAtOnce\n")]
        => "GetFlagFunction: not the chosen rollout";
    a_function_that_gets_traffic_without_a_deployment:
        [Mistake("GetFlagFunction", "      DeploymentPreference:\n", "      DeploymentPreference:\n        Enabled: false\n")]
        => "GetFlagFunction: gets traffic without a deployment";
    a_wrong_hook_name:
        [Mistake("PreTrafficFunction", "FunctionName: !Sub CodeDeployHook_${AWS::StackName}", "FunctionName: !Sub ${AWS::StackName}-pre-traffic"),
         Mistake("PreTrafficLogs", "CodeDeployHook_${AWS::StackName}", "${AWS::StackName}-pre-traffic")]
        => "PreTrafficFunction: CodeDeploy may only invoke CodeDeployHook_…";
    a_hook_that_checks_the_old_version:
        [Mistake("PreTrafficFunction", "!Ref HealthFunction.Version", "!GetAtt HealthFunction.Arn")]
        => "PreTrafficFunction: does not invoke the new version of health";
    a_hook_that_runs_the_old_migrations:
        [Mistake("PreTrafficFunction", "!Ref MigrateFunction.Version", "!GetAtt MigrateFunction.Arn")]
        => "PreTrafficFunction: does not run the migrations of the release";
    a_hook_that_may_not_invoke_health:
        [Mistake("PreTrafficRole", "${HealthFunction.Arn}:*", "${HealthFunction.Arn}")]
        => "PreTrafficFunction: may not invoke health";
    a_hook_that_may_not_report:
        [Mistake("PreTrafficRole", "codedeploy:PutLifecycleEventHookExecutionStatus", "codedeploy:GetDeployment")]
        => "PreTrafficFunction: may not report to CodeDeploy";
    a_hook_that_waits_for_itself:
        [Mistake("PreTrafficFunction", "      DeploymentPreference: {Enabled: false}\n", "")]
        => "PreTrafficFunction: a deployment without alarms, or with more than ten",
            "PreTrafficFunction: no alarm for a version that crashed 3 times",
            "PreTrafficFunction: waits for itself";
    a_hook_that_has_too_little_time:
        [Mistake("PreTrafficFunction", "Timeout: 420", "Timeout: 360")]
        => "PreTrafficFunction: has less time than its retries may take";
    a_canary_alarm_over_all_versions:
        [Mistake("GetFlagCanaryCrashesAlarm", ",\n        {Name: ExecutedVersion, Value: !GetAtt GetFlagFunction.Version.Version}", "")]
        => "GetFlagCanaryCrashesAlarm: does not watch only the new version";
    a_canary_alarm_of_another_function:
        [Mistake("ListFlagsCanaryHitRateAlarm", "Value: !Ref ListFlagsFunction", "Value: !Ref GetFlagFunction")]
        => "ListFlagsCanaryHitRateAlarm: does not watch only the new version";
    a_canary_alarm_that_fires_without_calls:
        [Mistake("GetFlagCanaryLatencyAlarm", "TreatMissingData: notBreaching", "TreatMissingData: breaching")]
        => "GetFlagCanaryLatencyAlarm: rolls back a version without calls";
    a_canary_alarm_that_blocks_its_own_fix:
        [Mistake("GetFlagCanaryErrorRateAlarm", "-v${GetFlagFunction.Version.Version}-", "-")]
        => "GetFlagCanaryErrorRateAlarm: the alarm of one attempt blocks the next";
    a_rate_of_a_few_calls:
        [Mistake("GetFlagCanaryErrorRateAlarm", "calls >= 50,", "calls > 0,")]
        => "GetFlagCanaryErrorRateAlarm: a rate of a few calls";
    a_canary_that_may_fail_one_call_in_a_hundred:
        [Mistake("GetFlagCanaryErrorRateAlarm", "Threshold: 0.1", "Threshold: 1")]
        => "GetFlagFunction: no alarm for a version that failed more than 0.1 %";
    a_canary_that_may_miss_the_cache:
        [Mistake("ListFlagsCanaryHitRateAlarm", "Threshold: 80", "Threshold: 50")]
        => "ListFlagsFunction: no alarm for a version that hit less than 80 %";
    a_canary_that_may_be_slow:
        [Mistake("GetFlagCanaryLatencyAlarm", "Stat: p95", "Stat: p50")]
        => "GetFlagFunction: no alarm for a version that took more than 100 ms";
    a_canary_whose_5xx_nobody_counts:
        [Mistake("HealthFunction", ", !Ref HealthCanaryServerErrorsAlarm]", "]")]
        => "HealthCanaryServerErrorsAlarm: no notification when it returns to OK",
            "HealthFunction: no alarm for a version that answered 5xx 3 times";
    a_canary_of_a_schedule_that_may_crash_often:
        [Mistake("ReconcileCanaryCrashesAlarm", "Threshold: 2", "Threshold: 3")]
        => "ReconcileFunction: no alarm for a version that crashed 2 times";
    an_alarm_of_a_canary_that_is_not_there:
        [Mistake("HealthCanaryCrashesAlarm", "    Condition: UseCanary\n", "")]
        => "HealthCanaryCrashesAlarm: no notification when it returns to OK",
            "HealthCanaryCrashesAlarm: watches a rollout without a canary";
    an_admin_function_with_the_new_version_before_the_readers:
        [Mistake("UpdateFlagFunction", "EvaluateFlagFunctionAliaslive", "HealthFunctionAliaslive")]
        => "UpdateFlagFunction: gets its new version before EvaluateFlagFunction";
    more_permissions_at_once_than_lambda_takes:
        [Mistake("ManageEnvironmentsFunction", "DependsOn: [ManageFlagsFunctionAliaslive]", "DependsOn: [ManageKeysFunctionAliaslive]")]
        => "wave 3: 52 permissions at once";
    more_functions_at_once_than_lambda_takes:
        [Mistake("ConsoleFunction", "    DependsOn: [GetFlagFunctionAliaslive, ListFlagsFunctionAliaslive, EvaluateFlagFunctionAliaslive,\n      EvaluateFlagsFunctionAliaslive]\n", "")]
        => "wave 0: 11 functions at once";
    a_canary_that_waits_for_another_one:
        [Mistake("ReconcileFunction", "DependsOn: NetworkReady", "DependsOn: [NetworkReady, GetFlagFunctionAliaslive]")]
        => "ReconcileFunction: begins its canary an hour after GetFlagFunction";
    a_canary_that_waits_for_another_one_by_a_reference:
        [Mistake("SendWebhooksFunction", "    Type: AWS::Serverless::Function\n", "    Type: AWS::Serverless::Function\n    DependsOn: GetFlagFunctionAliaslive\n")]
        => "ReconcileFunction: begins its canary an hour after GetFlagFunction";
}

#[test]
fn a_deployment_without_alarms_or_without_its_check() {
    let template = read("template.yaml");
    for (mistake, wanted) in [
        (
            Mistake(
                "HealthFunction",
                "[!Ref HealthCanaryCrashesAlarm, !Ref HealthCanaryServerErrorsAlarm]",
                "[]",
            ),
            "HealthFunction: a deployment without alarms, or with more than ten",
        ),
        (
            Mistake(
                "Globals",
                "        PreTraffic: !If [UseCanary, !Ref PreTrafficFunction, !Ref AWS::NoValue]\n",
                "        PostTraffic: !Ref PreTrafficFunction\n",
            ),
            "HealthFunction: no check before the first call",
        ),
    ] {
        let found = super::problems(&mistake.plant(&template));
        assert!(found.contains(&wanted.to_owned()), "{found:#?}");
    }
}
