//! The API has exactly the routes of the code, and admin routes require a token.

use std::collections::{BTreeMap, BTreeSet};

use pennon_core::http::{Authorization, ENDPOINTS, Endpoint, PAGES};
use pennon_tests::event::REQUEST_FILES;
use serde_json::{Value, json};

use super::stack::{Stack, reference, target, text};
use super::{Mistake, Problems, planted, read};

/// The function that answers paths without a route.
const FALLBACK: &str = "not-found";
/// Functions that people, `CodeDeploy`, alarms and `reconcile` invoke. All others have a route, a schedule or log
/// subscriptions.
const INVOKED: [&str; 4] = ["migrate", "pre-traffic", "guard", "send-webhooks"];
/// The routes of preflights for admin paths: they lead to the fallback without a token. Routes of public paths accept
/// every method.
const PREFLIGHTS: [&str; 2] = ["/api/admin/{proxy+}", "/admin/{proxy+}"];

/// A route of the template: its function and its authorizer.
struct Route {
    handler: String,
    authorizer: Value,
}

pub(super) fn check(stack: &Stack, problems: &mut Problems) {
    let mut routes: BTreeMap<(String, String), Route> = BTreeMap::new();
    let mut fallbacks = Vec::new();
    for function in stack.functions() {
        let events = function.properties["Events"].as_object();
        let events: Vec<&Value> = events.into_iter().flatten().map(|(_, it)| it).collect();
        let idle = events.is_empty() && !INVOKED.contains(&function.handler.as_str());
        problems.unless(!idle, &function.id, "has no trigger");
        for event in events {
            let properties = &event["Properties"];
            if event["Type"] != "HttpApi" {
                let scheduled = event["Type"] == "ScheduleV2"
                    && properties["State"] == "ENABLED"
                    && properties["ScheduleExpression"].is_string();
                // A log subscription gets lines with evaluations or uses of keys only, and none of its own function.
                let log = target(&properties["LogGroupName"]);
                let reads_log = event["Type"] == "CloudWatchLogs"
                    && properties["FilterPattern"] == "{ $.evaluated >= 0 }"
                    && log.ends_with("Logs")
                    && format!("{}Function", log.trim_end_matches("Logs")) != function.id
                    && stack.get(log)["Type"] == "AWS::Logs::LogGroup";
                let runs = scheduled || reads_log;
                problems.unless(
                    runs,
                    &function.id,
                    "an event with neither an active schedule nor the right log lines",
                );
                continue;
            }
            let ours = properties["ApiId"] == reference("HttpApi");
            problems.unless(ours, &function.id, "a route of another API");
            let (method, path) = (text(&properties["Method"]), text(&properties["Path"]));
            if path.is_empty() {
                fallbacks.push(function.handler.clone());
                continue;
            }
            let route = Route {
                handler: function.handler.clone(),
                authorizer: properties["Auth"]["Authorizer"].clone(),
            };
            let key = (method.to_owned(), path.to_owned());
            if routes.insert(key, route).is_some() {
                problems.add(&format!("{method} {path}"), "two functions");
            }
        }
    }
    problems.unless(
        fallbacks == [FALLBACK],
        "$default",
        "not the route of not-found",
    );
    check_routes(stack, &routes, problems);
    check_log_subscriptions(stack, problems);
    check_api(stack, &routes, problems);
}

/// The gateway's methods and paths of a route. A public path has one route for every method, so that its function
/// answers `HEAD` and 405 behind a base path too. With an authorizer that route would reject a browser's preflight, so
/// admin paths have a route for each method.
fn events_of(endpoint: &Endpoint) -> Vec<(&'static str, String)> {
    let methods: &[&str] = match (endpoint.is_admin(), endpoint.method) {
        (false, _) => &["ANY"],
        (true, "GET") => &["GET", "HEAD"],
        (true, _) => &[endpoint.method],
    };
    let with_path = |path: String| methods.iter().map(move |method| (*method, path.clone()));
    endpoint.paths().flat_map(with_path).collect()
}

fn check_routes(
    stack: &Stack,
    routes: &BTreeMap<(String, String), Route>,
    problems: &mut Problems,
) {
    let authorizers = stack.get("HttpApi")["Properties"]["Auth"]["Authorizers"].as_object();
    let exists = |name: &Value| authorizers.is_some_and(|all| all.contains_key(text(name)));
    let mut wanted = BTreeSet::new();
    for endpoint in ENDPOINTS.iter().chain(PAGES) {
        for (method, path) in events_of(endpoint) {
            let key = (method.to_owned(), path);
            let name = format!("{} {}", key.0, key.1);
            wanted.insert(key.clone());
            let Some(route) = routes.get(&key) else {
                problems.add(&name, "has no event");
                continue;
            };
            let right = route.handler == endpoint.function;
            problems.unless(right, &name, format!("leads to {}", route.handler));
            if endpoint.is_admin() {
                problems.unless(exists(&route.authorizer), &name, "no authorizer");
            } else {
                let open = route.authorizer.is_null();
                problems.unless(open, &name, "turns callers without a token away");
            }
        }
    }
    for path in PREFLIGHTS {
        let key = ("OPTIONS".to_owned(), path.to_owned());
        let route = routes.get(&key);
        let answered = route.is_some_and(|it| it.handler == FALLBACK && it.authorizer.is_null());
        problems.unless(
            answered,
            &format!("OPTIONS {path}"),
            "no preflight without a token",
        );
        wanted.insert(key);
    }
    for (method, path) in routes.keys().filter(|key| !wanted.contains(*key)) {
        problems.add(
            &format!("{method} {path}"),
            "a route that the code does not have",
        );
    }
}

/// Checks that the access log has no path, which may name a user, and no field of unbounded length.
fn check_access_log(api: &Value, problems: &mut Problems) {
    let logged = !api["AccessLogSettings"]["DestinationArn"].is_null();
    problems.unless(logged, "HttpApi", "no access log");
    let format = text(&api["AccessLogSettings"]["Format"]);
    for chosen in [
        "$context.path",
        "$context.http",
        "userAgent",
        "$context.authorizer.claims",
    ] {
        let is_logged = format.contains(chosen);
        let why =
            format!("the access log has {chosen}, which may be of any length or contain names");
        problems.unless(!is_logged, "HttpApi", why);
    }
    // Every request writes this line in addition to the function's (docs/infrastructure/cost-monitoring.md).
    problems.unless(
        format.len() < 280,
        "HttpApi",
        "a long line in the access log",
    );
}

fn check_api(stack: &Stack, routes: &BTreeMap<(String, String), Route>, problems: &mut Problems) {
    let api = &stack.get("HttpApi")["Properties"];
    let limits = |settings: &Value| {
        !settings["ThrottlingRateLimit"].is_null() && !settings["ThrottlingBurstLimit"].is_null()
    };
    problems.unless(
        limits(&api["DefaultRouteSettings"]),
        "HttpApi",
        "no throttling",
    );
    problems.unless(
        api["CorsConfiguration"].is_null(),
        "HttpApi",
        "its CORS configuration applies to admin routes and replaces the functions' headers",
    );
    for function in stack.functions() {
        for (name, parameter) in [
            ("CORS_ORIGINS", "CorsOrigins"),
            ("ADMIN_CORS_ORIGINS", "AdminCorsOrigins"),
        ] {
            let is_passed =
                function.properties["Environment"]["Variables"][name] == reference(parameter);
            problems.unless(
                is_passed,
                &function.id,
                format!("{name} is not {parameter}"),
            );
        }
    }
    check_origins(stack, problems);
    check_access_log(api, problems);
    let settings = api["RouteSettings"].as_object();
    let settings: BTreeMap<_, _> = settings.into_iter().flatten().collect();
    for name in settings.keys() {
        let known = name
            .split_once(' ')
            .is_some_and(|(method, path)| routes.contains_key(&(method.into(), path.into())));
        problems.unless(
            known,
            "HttpApi",
            format!("settings of {name}, which is not a route"),
        );
    }
    for ((method, path), route) in routes {
        let name = format!("{method} {path}");
        let throttled = settings.get(&name).is_some_and(|it| limits(it));
        let admin = !route.authorizer.is_null();
        problems.unless(
            !admin || throttled,
            &name,
            "an admin route without a limit of its own",
        );
    }
    let default = api["Auth"]["DefaultAuthorizer"].is_null();
    problems.unless(default, "HttpApi", "rejects every caller without a token");

    // The gateway and the functions accept the same tokens.
    let variables = &stack.functions()[0].properties["Environment"]["Variables"];
    for (name, authorizer) in api["Auth"]["Authorizers"].as_object().into_iter().flatten() {
        let jwt = &authorizer["JwtConfiguration"];
        let same_issuer = jwt["issuer"] == variables["JWT_ISSUER"];
        let about = format!("authorizer {name}");
        problems.unless(
            same_issuer && !jwt["issuer"].is_null(),
            &about,
            "another issuer than JWT_ISSUER",
        );
        let clients: &[&str] = match (stack.has("JwtIssuer", ""), stack.has("ConsoleUrl", "")) {
            (true, true) => &["UserPoolClient"],
            (true, false) => &["UserPoolClient", "ConsoleClient"],
            (false, _) => &[],
        };
        let at_gateway = match clients {
            [] => json!({ "Fn::Split": [",", reference("JwtAudience")] }),
            clients => clients.iter().copied().map(reference).collect(),
        };
        let of_functions = match clients {
            [] => reference("JwtAudience"),
            [one] => reference(one),
            several => {
                let names: Vec<_> = several.iter().map(|it| format!("${{{it}}}")).collect();
                json!({ "Fn::Sub": names.join(",") })
            }
        };
        let expected = match clients {
            [] => "JwtAudience".to_owned(),
            clients => clients.join(" and "),
        };
        problems.unless(
            jwt["audience"] == at_gateway,
            &about,
            format!("not for {expected}"),
        );
        problems.unless(
            variables["JWT_AUDIENCE"] == of_functions,
            "JWT_AUDIENCE",
            format!("not {expected}"),
        );
    }
}

/// `count-evaluations` reads the log of every function that evaluates flags, or takes counts from programs that do.
/// Flags that only a function without a subscription evaluates would be listed as unused.
fn check_log_subscriptions(stack: &Stack, problems: &mut Problems) {
    let counter = &stack.get("CountEvaluationsFunction")["Properties"];
    let events = counter["Events"].as_object();
    let logs: BTreeSet<&str> = events
        .into_iter()
        .flatten()
        .map(|(_, event)| target(&event["Properties"]["LogGroupName"]))
        .collect();
    for function in stack.functions() {
        let evaluates = ENDPOINTS.iter().any(|endpoint| {
            endpoint.function == function.handler
                && match endpoint.authorization {
                    Authorization::PublicConfig
                    | Authorization::ApiKey
                    | Authorization::SyncKey => true,
                    Authorization::Anyone
                    | Authorization::Viewer
                    | Authorization::Editor
                    | Authorization::Admin => false,
                }
        });
        let log = target(&function.properties["LoggingConfig"]["LogGroup"]);
        problems.unless(
            !evaluates || logs.contains(log),
            &function.id,
            "its evaluations are not counted",
        );
    }
}

/// Admin routes are open to named origins only; no wildcard is accepted.
fn check_origins(stack: &Stack, problems: &mut Problems) {
    let admin = &stack.parameters["AdminCorsOrigins"];
    problems.unless(
        admin["Default"] == "",
        "AdminCorsOrigins",
        "open by default",
    );
    let pattern = text(&admin["AllowedPattern"]);
    let star = pattern.is_empty() || pattern.contains("\\*") || pattern.contains(".*");
    problems.unless(!star, "AdminCorsOrigins", "accepts any origin");
    let public = &stack.parameters["CorsOrigins"];
    problems.unless(
        public["Default"] == "*",
        "CorsOrigins",
        "closed to pages by default",
    );
}

/// Whether a request line of pennon.http matches this route.
fn is_request_for(line: &str, method: &str, path: &str) -> bool {
    let Some(asked) = line
        .strip_prefix(method)
        .and_then(|it| it.strip_prefix(" {{base}}"))
    else {
        return false;
    };
    let asked: Vec<&str> = asked
        .split('?')
        .next()
        .unwrap_or_default()
        .split('/')
        .collect();
    let wanted: Vec<&str> = path.split('/').collect();
    let fits = |(wanted, asked): (&&str, &&str)| wanted == asked || wanted.starts_with('{');
    wanted.len() == asked.len() && wanted.iter().zip(&asked).all(fits)
}

#[test]
fn every_route_has_a_request_in_pennon_http() {
    let requests = read("pennon.http");
    for endpoint in ENDPOINTS {
        let (method, path) = (endpoint.method, endpoint.path);
        let written = requests
            .lines()
            .any(|line| is_request_for(line, method, path));
        assert!(written, "no request for {method} {path} in pennon.http");
    }
    let methods = ["GET ", "POST ", "PATCH ", "PUT ", "DELETE "];
    for line in requests
        .lines()
        .filter(|line| methods.iter().any(|it| line.starts_with(it)))
    {
        let known = ENDPOINTS
            .iter()
            .any(|it| is_request_for(line, it.method, it.path));
        assert!(known, "{line} is not a route");
    }
}

#[test]
fn every_event_file_is_for_a_route_of_its_function() {
    for (file, function, _) in REQUEST_FILES {
        let event: Value =
            serde_json::from_str(&read(&format!("events/{file}.json"))).expect("JSON");
        let key = text(&event["routeKey"]);
        let known = ENDPOINTS
            .iter()
            .chain(PAGES)
            .any(|it| it.function == function && key == format!("{} {}", it.method, it.path));
        assert!(
            known || (function == FALLBACK && key == "$default"),
            "{file}: {key} is not a route of {function}"
        );
    }
}

planted! {
    an_api_that_answers_browsers_for_all_routes:
        [Mistake("HttpApi", "      DefaultRouteSettings:\n",
            "      CorsConfiguration: {AllowOrigins: [\"*\"]}\n      DefaultRouteSettings:\n")]
        => "HttpApi: its CORS configuration applies to admin routes and replaces the functions' headers";
    a_preflight_that_requires_a_token:
        [Mistake("NotFoundFunction", "            Path: /api/admin/{proxy+}\n",
            "            Path: /api/admin/{proxy+}\n            Auth: {Authorizer: AdminToken}\n"),
         Mistake("HttpApi", "      RouteSettings:\n",
            "      RouteSettings:\n        \"OPTIONS /api/admin/{proxy+}\": {ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1}\n")]
        => "OPTIONS /api/admin/{proxy+}: no preflight without a token";
    a_preflight_that_nothing_answers_behind_a_base_path:
        [Mistake("NotFoundFunction", "            Path: /admin/{proxy+}\n", "            Path: /admins/{proxy+}\n")]
        => "OPTIONS /admin/{proxy+}: no preflight without a token",
            "OPTIONS /admins/{proxy+}: a route that the code does not have";
    a_wildcard_among_the_origins_of_admin_routes:
        [Mistake("AdminCorsOrigins", "AllowedPattern: \"(", "AllowedPattern: \"(\\\\*|")]
        => "AdminCorsOrigins: accepts any origin";
    an_open_admin_route:
        [Mistake("UpdateFlagFunction", "            Auth: {Authorizer: AdminToken}\n", "")]
        => "PATCH /api/admin/flags/{flagKey}: no authorizer",
            "UpdateFlagFunction: gets traffic without a deployment";
    an_admin_route_with_an_authorizer_that_does_not_exist:
        [Mistake("UpdateFlagFunction", "Authorizer: AdminToken", "Authorizer: AdminTokens")]
        => "PATCH /api/admin/flags/{flagKey}: no authorizer",
            "UpdateFlagFunction: gets traffic without a deployment";
    a_public_route_that_requires_a_token:
        [Mistake("ListFlagsFunction", "            Path: /config/flags\n",
            "            Path: /config/flags\n            Auth: {Authorizer: AdminToken}\n"),
         Mistake("HttpApi", "      RouteSettings:\n",
            "      RouteSettings:\n        \"ANY /config/flags\": {ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1}\n")]
        => "ANY /config/flags: turns callers without a token away";
    a_path_in_the_access_log:
        [Mistake("HttpApi", "\"routeKey\":\"$context.routeKey\"", "\"path\":\"$context.path\"")]
        => "HttpApi: the access log has $context.path, which may be of any length or contain names";
    a_token_required_everywhere:
        [Mistake("HttpApi", "      Auth:\n", "      Auth:\n        DefaultAuthorizer: AdminToken\n")]
        => "HttpApi: rejects every caller without a token";
    a_route_that_leads_to_another_function:
        [Mistake("GetFlagFunction", "Path: /config/flags/{flagKey}", "Path: /config/flag/{flagKey}"),
         Mistake("HealthFunction", "      Events:\n",
            "      Events:\n        Wrong:\n          Type: HttpApi\n          Properties:\n            ApiId: !Ref HttpApi\n            Method: ANY\n            Path: /config/flags/{flagKey}\n"),
         Mistake("GetFlagFunction", "        GetWithoutPrefix:\n          Type: HttpApi\n          Properties:\n            ApiId: !Ref HttpApi\n            Method: ANY\n            Path: /config/flag/{flagKey}\n", "")]
        => "ANY /config/flags/{flagKey}: leads to health";
    a_route_without_one_of_its_two_paths:
        [Mistake("HealthFunction", "        ReadyWithPrefix:\n          Type: HttpApi\n          Properties:\n            ApiId: !Ref HttpApi\n            Method: ANY\n            Path: /api/health/ready\n", "")]
        => "ANY /api/health/ready: has no event";
    a_route_that_the_code_does_not_have:
        [Mistake("HealthFunction", "      Events:\n",
            "      Events:\n        Dead:\n          Type: HttpApi\n          Properties:\n            ApiId: !Ref HttpApi\n            Method: GET\n            Path: /health/dead\n")]
        => "GET /health/dead: a route that the code does not have";
    an_admin_route_that_does_not_answer_head:
        [Mistake("ReportUsageFunction", "            Method: HEAD\n            Path: /admin/flags/stale\n", "            Method: PUT\n            Path: /admin/flags/stale\n"),
         Mistake("HttpApi", "\"HEAD /admin/flags/stale\"", "\"PUT /admin/flags/stale\"")]
        => "HEAD /admin/flags/stale: has no event",
            "PUT /admin/flags/stale: a route that the code does not have";
    a_public_path_that_leaves_other_methods_to_the_fallback:
        [Mistake("HealthFunction", "            Method: ANY\n            Path: /health/live\n", "            Method: GET\n            Path: /health/live\n")]
        => "ANY /health/live: has no event",
            "GET /health/live: a route that the code does not have";
    two_functions_that_answer_unknown_paths:
        [Mistake("HealthFunction", "      Events:\n",
            "      Events:\n        Rest:\n          Type: HttpApi\n          Properties:\n            ApiId: !Ref HttpApi\n")]
        => "$default: not the route of not-found";
    an_admin_route_that_may_be_flooded:
        [Mistake("HttpApi", "        \"POST /admin/flags/{flagKey}\": {ThrottlingRateLimit: 20, ThrottlingBurstLimit: 40}\n", "")]
        => "POST /admin/flags/{flagKey}: an admin route without a limit of its own";
    an_api_without_a_limit:
        [Mistake("HttpApi", "        ThrottlingBurstLimit: !Ref ThrottleBurst\n", "")]
        => "HttpApi: no throttling";
    a_limit_for_an_unknown_route:
        [Mistake("HttpApi", "      RouteSettings:\n",
            "      RouteSettings:\n        \"PUT /admin/flags\": {ThrottlingRateLimit: 1, ThrottlingBurstLimit: 1}\n")]
        => "HttpApi: settings of PUT /admin/flags, which is not a route";
    tokens_of_the_console_that_the_gateway_rejects:
        [Mistake("HttpApi", "[!Ref UserPoolClient, !If [CreateConsoleClient, !Ref ConsoleClient, !Ref AWS::NoValue]]", "[!Ref UserPoolClient]")]
        => "authorizer AdminToken: not for UserPoolClient and ConsoleClient";
    tokens_of_the_console_that_functions_reject:
        [Mistake("Globals", "${UserPoolClient},${ConsoleClient}", "${UserPoolClient}")]
        => "JWT_AUDIENCE: not UserPoolClient and ConsoleClient";
    tokens_of_another_issuer_at_the_gateway:
        [Mistake("HttpApi", "!Ref JwtIssuer", "https://issuer.example")]
        => "authorizer AdminToken: another issuer than JWT_ISSUER";
    a_log_subscription_that_skips_lines_without_evaluations:
        [Mistake("CountEvaluationsFunction", "FilterPattern: \"{ $.evaluated >= 0 }\"", "FilterPattern: \"{ $.evaluated > 0 }\"")]
        => "CountEvaluationsFunction: an event with neither an active schedule nor the right log lines";
    a_log_subscription_to_its_own_log:
        [Mistake("CountEvaluationsFunction", "LogGroupName: !Ref ListFlagsLogs", "LogGroupName: !Ref CountEvaluationsLogs")]
        => "CountEvaluationsFunction: an event with neither an active schedule nor the right log lines",
            "ListFlagsFunction: its evaluations are not counted";
    an_evaluating_function_without_a_log_subscription:
        [Mistake("CountEvaluationsFunction", "LogGroupName: !Ref SyncFlagsLogs", "LogGroupName: !Ref GetFlagLogs")]
        => "SyncFlagsFunction: its evaluations are not counted";
    a_schedule_that_is_switched_off:
        [Mistake("ReconcileFunction", "State: ENABLED", "State: DISABLED")]
        => "ReconcileFunction: an event with neither an active schedule nor the right log lines";
    a_function_without_a_trigger:
        [Mistake("ReconcileFunction", "      Events:\n", "      NoEvents:\n")]
        => "ReconcileFunction: has no trigger",
            "ReconcileFunction: no alarm for a version that crashed 3 times";
}
