//! Cost control: budgets, the billing alarm, and tags on every resource that supports them.

use std::collections::BTreeMap;

use pennon_tests::event::Event;
use pennon_tests::stack::Stack as Servers;
use serde_json::{Value, json};

use super::rollout::{metrics, samconfig};
use super::stack::{Profile, Stack, list, reference, text};
use super::{AFTER, GONE, Mistake, Problems, planted, read};
use crate::log_size::{WARM_READ, WARM_READ_WITHOUT_REDIS};

/// Types without a list `Tags`: they support no tags, or have them in another form that is checked. A new type must be
/// added to this list or tagged.
const WITHOUT_TAG_LIST: [&str; 24] = [
    "AWS::CloudFormation::WaitConditionHandle",
    "AWS::CloudWatch::Dashboard",
    "AWS::CodeDeploy::DeploymentConfig",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolGroup",
    "AWS::EC2::Route",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCCidrBlock",
    "AWS::EC2::VPCGatewayAttachment",
    "AWS::IAM::ManagedPolicy",
    "AWS::Lambda::Permission",
    "AWS::Logs::QueryDefinition",
    "AWS::RDS::DBProxyTargetGroup",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SecretsManager::SecretTargetAttachment",
    "AWS::Serverless::LayerVersion",
    "AWS::Serverless::Function", // takes those of Globals, which are checked
    "AWS::Serverless::HttpApi",  // takes a map, which is checked
    "AWS::Cognito::UserPool",    // takes UserPoolTags, which are checked
    "AWS::Cognito::UserPoolDomain",
    "AWS::Cognito::ManagedLoginBranding",
];

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    check_tags(stack, problems);
    check_budgets(stack, problems);
    check_billing_alarm(stack, problems);
    for (id, api) in stack.of_type("AWS::Serverless::HttpApi") {
        let plain = api["DefaultRouteSettings"]["DetailedMetricsEnabled"] == false;
        problems.unless(plain, id, "pays for metrics of each route");
    }
}

fn check_tags(stack: &Stack, problems: &mut Problems) {
    let map = json!({ "Feature": "FeatureFlags", "Stage": reference("Stage") });
    for function in stack.functions() {
        let tagged =
            function.properties["Tags"] == map && function.properties["PropagateTags"] == true;
        problems.unless(tagged, &function.id, "missing tags");
    }
    for (id, api) in stack.of_type("AWS::Serverless::HttpApi") {
        problems.unless(
            api["Tags"] == map && api["PropagateTags"] == true,
            id,
            "missing tags",
        );
    }
    for (id, pool) in stack.of_type("AWS::Cognito::UserPool") {
        problems.unless(pool["UserPoolTags"] == map, id, "missing tags");
    }
    for (id, resource) in stack.all() {
        let kind = text(&resource["Type"]);
        let properties = &resource["Properties"];
        let (tags, has_no_list) = match kind {
            "AWS::Budgets::Budget" => (&properties["ResourceTags"], false),
            _ => (&properties["Tags"], WITHOUT_TAG_LIST.contains(&kind)),
        };
        let has = |key: &str, value: &Value| {
            list(tags)
                .iter()
                .any(|tag| tag["Key"] == key && tag["Value"] == *value)
        };
        let tagged = has("Feature", &json!("FeatureFlags")) && has("Stage", &reference("Stage"));
        problems.unless(has_no_list || tagged, id, "missing tags");
        if kind.starts_with("AWS::ElastiCache::") {
            let clustered = has("Service", &json!("ElastiCache-Cluster"));
            let single = has("Service", &json!("ElastiCache"));
            let right = match id {
                "SingleCache" | "SingleCacheParameters" => single,
                "ClusterCache" | "ClusterCacheParameters" => clustered,
                _ => single || clustered,
            };
            problems.unless(right, id, "wrong or missing tag Service");
        }
    }
}

/// 50 USD for one node, 100 USD once there is a cluster.
fn limit(stack: &Stack) -> u64 {
    if stack.has("CacheMode", "single") {
        50
    } else {
        100
    }
}

fn check_budgets(stack: &Stack, problems: &mut Problems) {
    let no_cache = stack.has("CacheMode", "none");
    let tag = |key: &str, value: Value| json!({ "Tags": { "Key": key, "Values": [value], "MatchOptions": ["EQUALS"] } });
    // Limits the budget to this stage, because the account may contain several.
    let feature = json!({ "And": [
        tag("Feature", json!("FeatureFlags")),
        tag("Stage", reference("Stage")),
    ] });
    let mut counted = Vec::new();
    for (id, properties) in stack.of_type("AWS::Budgets::Budget") {
        let budget = &properties["Budget"];
        let monthly = budget["BudgetType"] == "COST" && budget["TimeUnit"] == "MONTHLY";
        problems.unless(monthly, id, "not a budget for a month");
        for notification in list(&properties["NotificationsWithSubscribers"]) {
            let has_subscriber = notification["Subscribers"]
                == json!([{ "SubscriptionType": "SNS", "Address": reference("AlarmTopic") }]);
            problems.unless(has_subscriber, id, "a notification without a subscriber");
        }
        let mut kinds: Vec<&str> = list(&properties["NotificationsWithSubscribers"])
            .iter()
            .map(|it| text(&it["Notification"]["NotificationType"]))
            .collect();
        kinds.sort_unstable();
        problems.unless(
            kinds == ["ACTUAL", "FORECASTED"],
            id,
            "must have two notifications: one of the forecast, one of the charges",
        );
        let filters = &budget["CostFilters"];
        if filters["Service"] == json!(["Amazon ElastiCache"]) {
            counted.push("cache");
            let amount = &budget["BudgetLimit"]["Amount"];
            problems.unless(*amount == limit(stack), id, format!("{amount} USD"));
        } else if budget["FilterExpression"] == feature {
            counted.push("feature");
        } else {
            problems.add(id, "counts something else");
        }
    }
    let wanted: &[&str] = if no_cache {
        &["feature"]
    } else {
        &["cache", "feature"]
    };
    problems.unless(
        counted == wanted,
        "budgets",
        format!("{counted:?}, not {wanted:?}"),
    );
    let policy = stack.get("AlarmTopicPolicy")["Properties"]["PolicyDocument"].to_string();
    for service in ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"] {
        let may = policy.contains(service);
        problems.unless(
            may,
            "AlarmTopicPolicy",
            format!("{service} may not publish"),
        );
    }
}

/// AWS publishes the metric `EstimatedCharges` in us-east-1 only.
fn check_billing_alarm(stack: &Stack, problems: &mut Problems) {
    let wanted = stack.has("AWS::Region", "us-east-1") && !stack.has("CacheMode", "none");
    let alarm = &stack.get("CacheChargesAlarm")["Properties"];
    let region = stack.profile["AWS::Region"];
    problems.unless(
        alarm.is_null() != wanted,
        "CacheChargesAlarm",
        format!("must exist only in us-east-1 and with a cache (region {region})"),
    );
    if alarm.is_null() {
        return;
    }
    let dimensions = json!([{ "Name": "Currency", "Value": "USD" },
        { "Name": "ServiceName", "Value": "AmazonElastiCache" }]);
    let wanted = [
        ("Namespace", json!("AWS/Billing")),
        ("MetricName", json!("EstimatedCharges")),
        ("Dimensions", dimensions),
        ("Statistic", json!("Maximum")),
        // Charges are updated every few hours.
        ("Period", json!(21600)),
        ("ComparisonOperator", json!("GreaterThanThreshold")),
        ("Threshold", json!(limit(stack))),
    ];
    for (name, value) in wanted {
        let found = &alarm[name];
        problems.unless(
            *found == value,
            "CacheChargesAlarm",
            format!("{name} is {found}"),
        );
    }
}

/// The amount in a cell: `3 × 9.93` is 29.79, text is 0.
fn amount(cell: &str) -> f64 {
    let figures = cell.trim_matches([' ', '*']).split('×');
    let figures: Vec<f64> = figures.filter_map(|it| it.trim().parse().ok()).collect();
    if figures.is_empty() {
        0.0
    } else {
        figures.iter().product()
    }
}

/// The prices of the document, by their names.
fn prices(document: &str) -> BTreeMap<&str, f64> {
    let (_, section) = document.split_once("\n## Prices\n").expect("prices");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?, cells.next()?.parse().ok()?))
    });
    rows.collect()
}

/// The number of custom metrics that a read writes. As in CloudWatch's prices, a metric counts once for each of its
/// sets of dimensions. The read is the first one of its instance, so its line includes the metrics that are logged
/// once a minute. Another instance has filled the cache.
async fn metrics_of_a_read(servers: &Servers, more: &[(&str, &str)]) -> usize {
    let other = servers.function_with("get-flag", more).await;
    other.call(&Event::get("checkout")).await;
    let function = servers.function_with("get-flag", more).await;
    function.call(&Event::get("checkout")).await;
    let line = function.last_request();
    let directives = list(&line["_aws"]["CloudWatchMetrics"]).iter();
    let count = |directive: &Value| {
        list(&directive["Dimensions"]).len() * list(&directive["Metrics"]).len()
    };
    directives.map(count).sum()
}

/// The size in kB of a line of the access log: the template's format with the values of a read of one flag.
fn access_log_line(template: &Value) -> f64 {
    let settings = &template["Resources"]["HttpApi"]["Properties"]["AccessLogSettings"];
    let mut line = text(&settings["Format"]).to_owned();
    for (variable, value) in [
        ("$context.requestId", "JKJaXmPLvHcESHA="),
        ("$context.routeKey", "GET /api/config/flags/{flagKey}"),
        ("$context.status", "200"),
        // A variable without a value is written as a dash.
        ("$context.integrationErrorMessage", "-"),
        ("$context.authorizer.error", "-"),
        ("$context.identity.sourceIp", "203.0.113.124"),
    ] {
        assert!(line.contains(variable), "{variable} is not in {line}");
        line = line.replace(variable, value);
    }
    assert!(!line.contains('$'), "a variable without a value in {line}");
    kilobytes(line.len() + 1)
}

/// kB with two decimal places, as in the document.
fn kilobytes(bytes: usize) -> f64 {
    (f64::from(u32::try_from(bytes).expect("few")) / 10.0).round() / 100.0
}

/// The table by load: computed from the table of fixed costs, the prices, and the log line of a read.
#[tokio::test]
async fn monthly_costs_by_load_match_the_table_and_a_small_dev_stack_is_cheap() {
    const READ_FUNCTIONS: f64 = 4.0;
    const MINUTES: f64 = 43_800.0;
    let document = read("docs/infrastructure/cost-monitoring.md");
    let prices = prices(&document);
    let price = |name: &str| {
        *prices
            .get(name)
            .unwrap_or_else(|| panic!("no price for {name}: {prices:?}"))
    };
    let servers = Servers::start().await;
    let with_cache = metrics_of_a_read(&servers, &[]).await;
    let without = metrics_of_a_read(&servers, &[("REDIS_URL", "")]).await;
    let gateway = access_log_line(&super::yaml::parse(&read("template.yaml")));
    let of_functions = [WARM_READ_WITHOUT_REDIS, WARM_READ].map(kilobytes);
    for row in [
        format!(
            "| line of the function | {:.2} kB, {:.2} kB without a cache |",
            of_functions[1], of_functions[0]
        ),
        format!("| line of the access log | {gateway:.2} kB |"),
    ] {
        assert!(document.contains(&row), "the table must say: {row}");
    }
    let mut wrong = Vec::new();
    for (load, requests, instances) in [
        ("idle", 0.0, 1.0),
        ("small", 100_000.0, 1.0),
        ("100 requests/s", 262_800_000.0, 12.0),
    ] {
        // `dev` has no cache, so its instances read no secret again.
        for (stage, metrics, line, secrets) in [
            ("dev", without, of_functions[0], 0.0),
            ("production", with_cache, of_functions[1], 2.0),
        ] {
            let row = document
                .lines()
                .find(|line| line.starts_with(&format!("| `{stage}` |")));
            let fixed = row.and_then(|row| row.split("**").nth(1)?.parse().ok());
            let fixed: f64 = fixed.expect("a fixed sum");
            let metrics = if requests > 0.0 {
                f64::from(u32::try_from(metrics).expect("few"))
            } else {
                0.0
            };
            // At most three batches of log lines a second.
            let batches = f64::min(requests, 3.0 * 60.0 * MINUTES);
            let seconds = requests * 0.010 + MINUTES * 0.1 + batches * 0.05;
            let million = 1e6;
            let columns = [
                fixed,
                READ_FUNCTIONS * metrics * price("metric of our own"),
                requests / million * price("HTTP API"),
                (requests + MINUTES + batches) / million * price("calls of Lambda")
                    + 0.5 * seconds * price("time of Lambda on arm64"),
                // Each request: the function's line, the line of the access log, and 0.004 kB of flow logs. Each
                // minute: 1 kB, the line of `reconcile`. Each month: 0.1 GB of other flow logs.
                ((requests * (line + gateway + 0.004) + MINUTES) / million + 0.1)
                    * price("log lines, our own and delivered ones"),
                MINUTES / million * price("EventBridge Scheduler")
                    + requests / million * price("data out to the internet")
                    + instances * secrets * MINUTES / 5.0 / 10_000.0
                        * price("calls of Secrets Manager"),
            ];
            let columns = columns.map(|it| (it * 100.0).round() / 100.0);
            let cells: Vec<String> = columns.iter().map(|it| format!("{it:.2}")).collect();
            let total: f64 = columns.iter().sum();
            let wanted = format!(
                "| {load} | `{stage}` | {} | **{total:.2}** |",
                cells.join(" | ")
            );
            if !document.lines().any(|line| line == wanted) {
                wrong.push(wanted);
            }
            // A small `dev` stack must stay below 30 USD.
            assert!(
                load != "small" || stage != "dev" || total <= 30.0,
                "{total}"
            );
        }
    }
    assert!(wrong.is_empty(), "the table must say: {wrong:#?}");
}

/// The number of each kind of priced resource, and the sum of a month.
#[test]
fn resources_in_the_cost_table_are_in_the_template_and_within_the_budget() {
    let template = super::yaml::parse(&read("template.yaml"));
    let document = read("docs/infrastructure/cost-monitoring.md");
    let chosen = samconfig();
    let prices = prices(&document);
    let mut rows = 0;
    for line in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [name, cache, database, egress, secrets, alarms, total] = cells.as_slice() else {
            continue;
        };
        rows += 1;
        let stage = name.split('`').nth(1).expect("a stage");
        let section = format!("{stage}.deploy.parameters.parameter_overrides");
        let overrides = chosen.iter().filter(|(of, _, _)| *of == section).cloned();
        let mut profile: Profile = overrides
            .map(|(_, name, value)| (&*name.leak(), &*value.leak()))
            .collect();
        profile.insert("AWS::Region", "us-east-1");
        if name.contains("both caches") {
            profile.insert("CacheMode", "both-use-single");
        }
        let budget: f64 = profile["MonthlyBudgetUsd"].parse().expect("a sum");
        let stack = Stack::of(&template, profile);
        let count = |what: usize, price: &str| format!("{what} × {price}");
        let nodes: u64 = stack
            .of_type("AWS::ElastiCache::ReplicationGroup")
            .map(|(_, group)| {
                let replicas = group["ReplicasPerNodeGroup"].as_u64().unwrap_or(0);
                group["NumCacheClusters"].as_u64().unwrap_or(replicas + 1)
            })
            .sum();
        let begins = if nodes == 0 {
            "none".to_owned()
        } else {
            format!("{nodes} × ")
        };
        assert!(cache.trim().starts_with(&begins), "{name}: {cache}");
        let kept = stack.of_type("AWS::SecretsManager::Secret").count();
        assert_eq!(secrets.trim(), count(kept, "0.40"), "{name}");
        let watched = stack.of_type("AWS::CloudWatch::Alarm");
        let watched = watched.map(|(_, alarm)| metrics(alarm).len()).sum();
        assert_eq!(alarms.trim(), count(watched, "0.10"), "{name}");
        let parts = [cache, database, egress, secrets, alarms];
        for cell in parts {
            let figure = cell.rsplit('×').next().unwrap_or_default().trim();
            let listed = figure.parse().map_or(true, |figure: f64| {
                figure == 0.0 || prices.values().any(|price| (price - figure).abs() < 0.001)
            });
            assert!(listed, "{name}: {figure} is not among the prices");
        }
        let fixed: f64 = parts.iter().map(|cell| amount(cell)).sum();
        assert_eq!(total.trim(), format!("**{fixed:.2}**"), "{name}");
        // The alert at 80 % must not fire every month.
        assert!(fixed < 0.8 * budget, "{name}: {budget} USD");
    }
    assert!(rows >= 3, "{rows} rows");
}

/// The value of `1.5 + 2 × 3 / 4`.
fn calculate(text: &str) -> Option<f64> {
    text.split('+').try_fold(0.0, |sum, term| {
        let product = term.split('×').try_fold(1.0, |product, quotient| {
            let mut parts = quotient.split('/').map(|part| part.trim().parse::<f64>());
            let first = parts.next()?.ok()?;
            let quotient = parts.try_fold(first, |value, part| Some(value / part.ok()?))?;
            Some(product * quotient)
        })?;
        Some(sum + product)
    })
}

/// Each bold figure is the result of the cell before it, and the cost of a request uses the prices and the sizes of log
/// lines of cost-monitoring.md.
#[test]
fn the_cost_of_reads_is_the_result_of_the_arithmetic_beside_it() {
    let document = read("docs/cost-of-reads.md");
    let mut results = 0;
    for line in document.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        for pair in cells.windows(2) {
            let Some(figure) = pair[1].split("**").nth(1) else {
                continue;
            };
            let decimals = figure.split_once('.').map_or(0, |(_, part)| part.len());
            let value = calculate(pair[0]).unwrap_or_else(|| panic!("no arithmetic: {line}"));
            assert_eq!(format!("{value:.decimals$}"), figure, "{line}");
            results += 1;
        }
    }
    assert!(results >= 20, "{results} results");

    let costs = read("docs/infrastructure/cost-monitoring.md");
    let prices = prices(&costs);
    let gateway = prices["HTTP API"];
    let call = prices["calls of Lambda"];
    // A million ms are a thousand seconds.
    let time = prices["time of Lambda on arm64"] * 1_000.0;
    let logs = prices["log lines, our own and delivered ones"];
    let out = prices["data out to the internet"];
    let of_function = kilobytes(WARM_READ) + 0.004;
    let access_log = access_log_line(&super::yaml::parse(&read("template.yaml")));
    let line = of_function + access_log;
    for formula in [
        format!(
            "{gateway:.2} + {call:.2} + 10 × 0.5 × {time:.7} + {line:.3} × {logs:.2} + 1 × {out:.2}"
        ),
        format!("{call:.2} + 10 × 0.5 × {time:.7} + {of_function:.3} × {logs:.2} + 1 × {out:.2}"),
        format!("{call:.2} + 50 × 0.5 × {time:.7}"),
    ] {
        assert!(document.contains(&format!("| {formula} |")), "{formula}");
    }
}

planted! {
    a_budget_of_every_stage_in_the_account:
        [Mistake("FeatureBudget", "            - Tags: {Key: Stage, Values: [!Ref Stage], MatchOptions: [EQUALS]}\n", "")]
        => "FeatureBudget: counts something else", "budgets: [\"cache\"], not [\"cache\", \"feature\"]",
           "budgets: [], not [\"feature\"]";
    metrics_of_every_route:
        [Mistake("HttpApi", "DetailedMetricsEnabled: false", "DetailedMetricsEnabled: true")]
        => "HttpApi: pays for metrics of each route";
    missing_tags_on_a_resource:
        [Mistake("FlowLogRole", "      Tags: [{Key: Feature, Value: FeatureFlags}, {Key: Stage, Value: !Ref Stage}]\n", "")]
        => "FlowLogRole: missing tags";
    a_function_that_does_not_propagate_tags:
        [Mistake("GetFlagFunction", "      Role:", "      PropagateTags: false\n      Role:")]
        => "GetFlagFunction: missing tags";
    a_cluster_counted_as_a_single_node:
        [Mistake("ClusterCache", "Value: ElastiCache-Cluster", "Value: ElastiCache")]
        => "ClusterCache: wrong or missing tag Service";
    a_new_kind_of_resource_without_tags:
        [Mistake("AlarmMail", AFTER, "  Queue:\n    Type: AWS::SQS::Queue\n    Properties: {}\n")]
        => "Queue: missing tags";
    a_budget_without_a_subscriber:
        [Mistake("FeatureBudget", "Subscribers: [{SubscriptionType: SNS, Address: !Ref AlarmTopic}]", "Subscribers: []")]
        => "FeatureBudget: a notification without a subscriber";
    a_budget_without_a_forecast:
        [Mistake("FeatureBudget", "NotificationType: FORECASTED", "NotificationType: ACTUAL")]
        => "FeatureBudget: must have two notifications: one of the forecast, one of the charges";
    a_budget_that_may_not_publish:
        [Mistake("AlarmTopicPolicy", ", budgets.amazonaws.com", "")]
        => "AlarmTopicPolicy: budgets.amazonaws.com may not publish";
    no_budget_for_the_cache:
        [Mistake("CacheBudget", GONE, "")]
        => "budgets: [\"feature\"], not [\"cache\", \"feature\"]";
    a_billing_alarm_in_a_region_without_the_metric:
        [Mistake("Conditions", "    - !Equals [!Ref \"AWS::Region\", us-east-1]", "    - !Not [!Equals [!Ref \"AWS::Region\", \"\"]]")]
        => "CacheChargesAlarm: must exist only in us-east-1 and with a cache (region eu-west-1)";
    a_billing_alarm_on_another_metric:
        [Mistake("CacheChargesAlarm", "MetricName: EstimatedCharges", "MetricName: Charges")]
        => "CacheChargesAlarm: MetricName is \"Charges\"";
    a_billing_alarm_for_another_service:
        [Mistake("CacheChargesAlarm", "Value: AmazonElastiCache", "Value: ElastiCache")]
        => "CacheChargesAlarm: Dimensions is [{\"Name\":\"Currency\",\"Value\":\"USD\"},{\"Name\":\"ServiceName\",\"Value\":\"ElastiCache\"}]";
    a_billing_alarm_with_another_period:
        [Mistake("CacheChargesAlarm", "Period: 21600", "Period: 300")]
        => "CacheChargesAlarm: Period is 300";
    a_billing_alarm_with_another_threshold:
        [Mistake("CacheChargesAlarm", "Threshold: !If [HasClusterCache, 100, 50]", "Threshold: 500")]
        => "CacheChargesAlarm: Threshold is 500";
}
