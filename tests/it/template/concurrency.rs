//! Functions cannot exhaust the connections of the database: the limits of production leave enough for everything else.

use serde_json::{Value, json};

use super::stack::{Stack, reference, text};
use super::{Mistake, Problems, planted, read};

/// The functions that read flags, each with `ReservedConcurrency`.
const READERS: [&str; 4] = ["get-flag", "list-flags", "evaluate-flag", "evaluate-flags"];
/// Functions for admins, each with `AdminConcurrency`.
const ADMINS: [&str; 8] = [
    "update-flag",
    "overrides",
    "schedules",
    "manage-flags",
    "manage-environments",
    "manage-keys",
    "report-usage",
    "ramps",
];
/// Functions with a limit of their own.
const OTHERS: [(&str, u64); 6] = [
    ("health", 2),
    ("sync-flags", 1),
    ("count-evaluations", 2),
    ("reconcile", 1),
    ("guard", 2),
    ("send-webhooks", 1),
];
/// Connections that PostgreSQL and RDS keep for superusers.
const OF_THE_SERVER: u64 = 5;
/// Connections for operators, and for the runs of `migrate` that a release starts.
const OF_OPERATORS: u64 = 10;
/// An account has 1,000 instances unless AWS raises that, and must leave 100 unreserved.
const RESERVABLE: u64 = 900;

pub(super) fn check(template: &Value, problems: &mut Problems) {
    let mut profile = super::stack::profiles().remove(0);
    profile.insert("ReservedConcurrency", "20");
    let stack = Stack::of(template, profile);
    for function in stack.functions() {
        let handler = function.handler.as_str();
        let wanted = if READERS.contains(&handler) {
            Some(reference("ReservedConcurrency"))
        } else if ADMINS.contains(&handler) {
            Some(reference("AdminConcurrency"))
        } else {
            let own = OTHERS.iter().find(|(name, _)| *name == handler);
            own.map(|(_, limit)| Value::from(*limit))
        };
        let found = &function.properties["ReservedConcurrentExecutions"];
        let fits = match &wanted {
            Some(wanted) => found == wanted,
            None => found.is_null(),
        };
        problems.unless(
            fits,
            &function.id,
            format!("its limit of instances is {found}"),
        );
    }
    check_alarm(template, problems);
}

/// The alarm on connections fires above three quarters of the connections that the class allows.
fn check_alarm(template: &Value, problems: &mut Problems) {
    let alarm = &template["Resources"]["DatabaseConnectionsAlarm"]["Properties"];
    let threshold = &alarm["Threshold"];
    let wanted = json!({ "Fn::FindInMap":
        ["DatabaseClasses", reference("DatabaseInstanceClass"), "AlarmAbove"] });
    problems.unless(
        *threshold == wanted,
        "DatabaseConnectionsAlarm",
        format!("its threshold is {threshold}"),
    );
    let classes = template["Mappings"]["DatabaseClasses"].as_object();
    for (class, numbers) in classes.expect("classes") {
        let number = |name: &str| text(&numbers[name]).parse::<u64>().ok();
        let (connections, above) = (number("Connections"), number("AlarmAbove"));
        let follows = connections.is_some() && connections.map(|it| it / 4 * 3) == above;
        problems.unless(
            follows,
            class,
            format!("{connections:?} connections, and an alarm above {above:?}"),
        );
    }
}

/// The rows of the table in docs/operations.md: class, connections, readers, admins.
fn table() -> Vec<(String, u64, u64, u64)> {
    let text = read("docs/operations.md");
    let rows = text.lines().filter(|line| line.starts_with("| `db."));
    let rows: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let number = |at: usize| cells[at].replace(',', "").parse().expect("a number");
            (
                cells[0].trim_matches('`').to_owned(),
                number(1),
                number(2),
                number(3),
            )
        })
        .collect();
    assert!(!rows.is_empty(), "docs/operations.md has no such table");
    rows
}

fn connections(readers: u64, admins: u64) -> u64 {
    let others: u64 = OTHERS.iter().map(|(_, limit)| limit).sum();
    READERS.len() as u64 * readers + ADMINS.len() as u64 * admins + others
}

#[test]
fn the_limits_in_the_table_fit_the_connections_of_each_class() {
    let template = super::parse(&read("template.yaml"));
    let classes = &template["Mappings"]["DatabaseClasses"];
    let allowed = template["Parameters"]["DatabaseInstanceClass"]["AllowedValues"]
        .as_array()
        .expect("classes")
        .len();
    let table = table();
    assert_eq!(table.len(), allowed, "not one row for each class");
    for (class, limit, readers, admins) in table {
        assert_eq!(
            text(&classes[&class]["Connections"]),
            limit.to_string(),
            "{class}"
        );
        let used = connections(readers, admins);
        let room = limit - OF_THE_SERVER - OF_OPERATORS;
        assert!(
            used <= room,
            "{class}: {used} connections, and room for {room}"
        );
        assert!(
            used <= RESERVABLE,
            "{class}: {used} instances of {RESERVABLE}"
        );
        // As many as fit, up to the number that one account can reserve.
        let one_more = connections(readers + 1, admins);
        assert!(one_more > room.min(RESERVABLE), "{class}: more would fit");
    }
}

#[test]
fn production_has_the_limits_of_its_class() {
    let text = read("samconfig.toml");
    let production = text
        .split("[production.deploy.parameters.parameter_overrides]")
        .nth(1)
        .expect("the parameters of production");
    let value_of = |name: &str| {
        let line = production
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")));
        line.and_then(|line| line.split('"').nth(1))
            .map(str::to_owned)
    };
    let template = super::parse(&read("template.yaml"));
    let default = |name: &str| {
        let value = &template["Parameters"][name]["Default"];
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let chosen = |name: &str| value_of(name).unwrap_or_else(|| default(name));
    let class = chosen("DatabaseInstanceClass");
    let table = table();
    let row = table
        .iter()
        .find(|(name, ..)| *name == class)
        .expect("its class");
    let (_, _, readers, admins) = row;
    assert_eq!(chosen("ReservedConcurrency"), readers.to_string());
    assert_eq!(chosen("AdminConcurrency"), admins.to_string());
}

planted! {
    an_alarm_with_the_threshold_of_the_smallest_class_for_every_class:
        [Mistake("DatabaseConnectionsAlarm", "Threshold: !FindInMap [DatabaseClasses, !Ref DatabaseInstanceClass, AlarmAbove]", "Threshold: 60")]
        => "DatabaseConnectionsAlarm: its threshold is 60";
    an_alarm_that_does_not_follow_its_class:
        [Mistake("Mappings", "db.t4g.medium: {Connections: \"400\", AlarmAbove: \"300\"}", "db.t4g.medium: {Connections: \"400\", AlarmAbove: \"60\"}")]
        => "db.t4g.medium: Some(400) connections, and an alarm above Some(60)";
    a_reader_with_the_limit_of_admins:
        [Mistake("GetFlagFunction", "!Ref ReservedConcurrency", "!Ref AdminConcurrency")]
        => "GetFlagFunction: its limit of instances is {\"Ref\":\"AdminConcurrency\"}";
    an_admin_function_with_the_limit_of_readers:
        [Mistake("OverridesFunction", "!Ref AdminConcurrency", "!Ref ReservedConcurrency")]
        => "OverridesFunction: its limit of instances is {\"Ref\":\"ReservedConcurrency\"}";
    a_health_function_without_a_limit:
        [Mistake("HealthFunction", "      ReservedConcurrentExecutions: !If [LimitConcurrency, 2, !Ref AWS::NoValue]\n", "")]
        => "HealthFunction: its limit of instances is null";
}
