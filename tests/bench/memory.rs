//! What the dearest flags cost that may be written, and those that are there from before: the memory of a
//! function that has 512 MB and not one more, and the time of a read. It fails when a function took more
//! than `pennon_tests::limits` allows, or ended.
//!
//! `cargo bench --profile driver -p pennon-tests --bench memory`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::process::ExitCode;
use std::time::Instant;

use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::figures::Times;
use pennon_tests::lambda::Function;
use pennon_tests::limits::{DEAREST_READ, MEMORY, Verdict};
use pennon_tests::stack::Stack;
use serde_json::{Map, Value, json};

/// What the template gives a function.
const LIMIT: u64 = 512 * 1024 * 1024;
/// Reads after the first one.
const READS: u32 = 20;

/// Flags in the database, as many as there are, with the same rule each.
struct Case {
    what: &'static str,
    flags: i32,
    rule: Value,
    evaluators: Map<String, Value>,
    /// Whether the API would take them.
    may_be_written: bool,
}

/// Evaluators of which each refers to the one before it twice.
fn doubling() -> Map<String, Value> {
    let mut evaluators = Map::new();
    evaluators.insert("e0".to_owned(), json!({"==": [{"var": "email"}, "x"]}));
    for level in 1..=12 {
        let before = json!({"$ref": format!("e{}", level - 1)});
        evaluators.insert(format!("e{level}"), json!({"or": [before, before]}));
    }
    evaluators
}

fn walking() -> Map<String, Value> {
    let numbers: Vec<u32> = (0..15_000).collect();
    Map::from_iter([("numbers".to_owned(), json!({"merge": [numbers]}))])
}

/// A rule of 50 conditions, each as deep as it may be, of many small objects.
fn deep() -> Value {
    let mut rule = json!({"var": "a"});
    for _ in 0..40 {
        rule = json!({"!": [rule]});
    }
    json!({"if": [{"and": vec![rule; 12]}, "on", "off"]})
}

fn cases() -> Vec<Case> {
    let doubled = json!({"if": [{"$ref": "e12"}, "off", "on"]});
    let walk =
        json!({"if": [{"some": [{"$ref": "numbers"}, {"==": [{"var": ""}, -1]}]}, "off", "on"]});
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
            "the import bomb, 200 flags",
            200,
            &doubled,
            doubling(),
            false,
        ),
        case("as many of them as fit", 95, &doubled, doubling(), true),
        case(
            "1,000 flags at the limit of steps",
            1_000,
            &walk,
            walking(),
            false,
        ),
        case("as many of them as fit", 49, &walk, walking(), true),
        case(
            "500,000 values in deep rules",
            490,
            &deep(),
            Map::new(),
            true,
        ),
    ]
}

/// The first read, the others, and the peak of memory, also after all flags were read anew.
async fn measure(stack: &Stack, function: &Function, event: &Event) -> (f64, Times, f64) {
    let began = Instant::now();
    assert_eq!(function.call(event).await.status, 200);
    let first = pennon_tests::figures::milliseconds(began.elapsed());
    let mut times = Times::default();
    for _ in 0..READS {
        let began = Instant::now();
        let answer = function.call(event).await;
        times.add(began.elapsed());
        assert_eq!(answer.status, 200, "{}", function.log());
    }
    // The flags of before are kept until those of now have been read and compiled.
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
        let definition = json!({"variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": case.rule});
        stack
            .database
            .add_heavy_flags(case.flags, &definition, &case.evaluators)
            .await;
        let environment = stack.environment();
        // Without Redis every read asks the database, and so finds what was changed by hand.
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
                verdict.limit(DEAREST_READ, mean, &of);
            }
        }
    }
    import_bombs(&mut verdict).await;
    println!("{}", verdict.report());
    verdict.exit_code()
}

/// What an import takes that is refused, or taken, by a function with as little memory.
async fn import_bombs(verdict: &mut Verdict) {
    for case in cases() {
        let stack = Stack::start().await;
        let mut flag = json!({"variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": case.rule});
        flag["state"] = json!("ENABLED");
        // An import takes 5,000 flags.
        let flags: Map<String, Value> = (0..case.flags.min(5_000))
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
        let began = Instant::now();
        let answer = function.call(&event).await;
        let time = pennon_tests::figures::milliseconds(began.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "megabytes")]
        let peak = function.peak_memory() as f64 / 1e6;
        let size = file.len() / 1000;
        let status = answer.status;
        println!(
            "{:36} {size:5} kB imported: {status} {time:9.1}          {peak:8.1}",
            case.what
        );
        verdict.limit(MEMORY, peak, &format!("{}, imported", case.what));
        let expected = if case.may_be_written { 200 } else { 400 };
        let is_right = status == expected || file.len() > 4_000_000;
        verdict.require(
            is_right,
            &format!("the import of {} was answered {status}", case.what),
        );
    }
}
