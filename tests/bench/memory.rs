//! The memory and the times of reads and imports of functions with 512 MB: for the most expensive flags that the API
//! accepts, and for more expensive ones, which SQL or an earlier version may have created. Fails if a function exceeds
//! its memory or a limit of `pennon_tests::limits`, or if an import gets an unexpected status.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench memory`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::process::ExitCode;
use std::time::Instant;

use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::expensive_flags::{
    definition, doubling_evaluators, doubling_rule, list_evaluator, list_rule,
};
use pennon_tests::lambda::Function;
use pennon_tests::limits::{EXPENSIVE_READ, MEMORY, Verdict};
use pennon_tests::stack::Stack;
use pennon_tests::statistics::Times;
use serde_json::{Map, Value, json};

/// The default memory of a function in the template.
const LIMIT: u64 = 512 * 1024 * 1024;
/// The number of reads after the first one.
const READS: u32 = 20;

/// Flags in the database, all with the same rule.
struct Case {
    what: &'static str,
    flags: i32,
    rule: Value,
    evaluators: Map<String, Value>,
    /// Whether the API accepts them.
    may_be_written: bool,
}

/// A rule of many small objects: conditions of the maximum depth.
fn deep() -> Value {
    let mut rule = json!({"var": "a"});
    for _ in 0..40 {
        rule = json!({"!": [rule]});
    }
    json!({"if": [{"and": vec![rule; 12]}, "on", "off"]})
}

fn cases() -> Vec<Case> {
    let ordinary = json!({"if": [
        {"and": [{"in": [{"var": "country"}, ["DE", "FR", "ES", "IT"]]}, {">=": [{"var": "user.age"}, 18]}]},
        "off",
        {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "off", "on"]}
    ]});
    let case = |what, flags, rule: &Value, evaluators, may_be_written| Case {
        what,
        flags,
        rule: rule.clone(),
        evaluators,
        may_be_written,
    };
    vec![
        case("10,000 ordinary flags", 10_000, &ordinary, Map::new(), true),
        case(
            "nested shared rules, 200 flags",
            200,
            &doubling_rule(),
            doubling_evaluators(),
            false,
        ),
        case(
            "nested shared rules, as many as fit",
            95,
            &doubling_rule(),
            doubling_evaluators(),
            true,
        ),
        case(
            "long list in a rule, 1,000 flags",
            1_000,
            &list_rule(),
            list_evaluator(),
            false,
        ),
        case(
            "long list in a rule, as many as fit",
            49,
            &list_rule(),
            list_evaluator(),
            true,
        ),
        case(
            "500,000 values in deep rules",
            490,
            &deep(),
            Map::new(),
            true,
        ),
    ]
}

/// Returns the time of the first read, the times of the others, and the peak memory, including a reload of all flags.
async fn measure(stack: &Stack, function: &Function, event: &Event) -> (f64, Times, f64) {
    let started = Instant::now();
    assert_eq!(function.call(event).await.status, 200);
    let first = pennon_tests::statistics::milliseconds(started.elapsed());
    let mut times = Times::default();
    for _ in 0..READS {
        let started = Instant::now();
        let answer = function.call(event).await;
        times.add(started.elapsed());
        assert_eq!(answer.status, 200, "{}", function.log());
    }
    // The previous flags are in memory until the new ones have been read and compiled.
    let statement = "update feature_flags set description = 'changed' where flag_key = 'checkout'";
    stack
        .database
        .sql()
        .execute(statement, &[])
        .await
        .expect("a change");
    assert_eq!(function.call(event).await.status, 200, "{}", function.log());
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let peak = function.peak_memory() as f64 / 1e6;
    (first, times, peak)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut verdict = Verdict::default();
    println!("a function with 512 MB                               first ms  mean ms  peak MB");
    for case in cases() {
        let stack = Stack::start().await;
        stack.database.add_key(EXAMPLE_KEY).await;
        let definition = definition(&case.rule);
        stack
            .database
            .add_heavy_flags(case.flags, &definition, &case.evaluators)
            .await;
        let environment = stack.environment();
        // Without Redis, every read compares its revision with the database and so notices the change by SQL.
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .filter(|(name, _)| !name.starts_with("REDIS"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let alice = json!({"targetingKey": "alice"});
        for (name, event) in [
            ("list-flags", Event::list().anonymous()),
            ("evaluate-flags", Event::evaluate_all(&alice)),
        ] {
            let function = Function::start_within(LIMIT, name, &environment).await;
            let (first, times, peak) = measure(&stack, &function, &event).await;
            let mean = times.mean();
            println!(
                "{:36} {name:15} {first:9.1} {mean:8.1} {peak:8.1}",
                case.what
            );
            let of = format!("{}, {name}", case.what);
            verdict.limit(MEMORY, peak, &of);
            if case.may_be_written {
                verdict.limit(EXPENSIVE_READ, mean, &of);
            }
        }
    }
    measure_imports(&mut verdict).await;
    println!("{}", verdict.report());
    verdict.exit_code()
}

/// Measures imports, accepted and rejected, by a function with the same memory.
async fn measure_imports(verdict: &mut Verdict) {
    println!(
        "{:36} {:>6} {:>8} {:>9} {:>17}",
        "imports by such a function", "kB", "status", "ms", "peak MB"
    );
    for case in cases() {
        let stack = Stack::start().await;
        let mut flag = definition(&case.rule);
        flag["state"] = json!("ENABLED");
        // An import has at most 5,000 flags.
        let (what, count) = match case.flags {
            5_001.. => ("5,000 ordinary flags", 5_000),
            count => (case.what, count),
        };
        let flags: Map<String, Value> = (0..count)
            .map(|number| (format!("heavy-{number}"), flag.clone()))
            .collect();
        let file = json!({"flags": flags, "$evaluators": case.evaluators}).to_string();
        let environment = stack.environment();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let function = Function::start_within(LIMIT, "manage-environments", &environment).await;
        let path = "/api/admin/environments/production/import";
        let event = Event::admin("POST", path, &file).header("if-match", "*");
        let started = Instant::now();
        let answer = function.call(&event).await;
        let time = pennon_tests::statistics::milliseconds(started.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        let peak = function.peak_memory() as f64 / 1e6;
        let size = file.len() / 1000;
        let status = answer.status;
        println!("{what:36} {size:6} {status:8} {time:9.1} {peak:17.1}");
        verdict.limit(MEMORY, peak, &format!("{what}, imported"));
        let expected = if file.len() > pennon_core::http::MAX_BODY_SIZE {
            413
        } else if case.may_be_written {
            200
        } else {
            400
        };
        verdict.require(
            status == expected,
            &format!("the import of {what} was answered with {status}, not {expected}"),
        );
    }
}
