//! Instructions and allocations of one warm invocation, counted by valgrind: figures that do not depend on the load of
//! the machine. Each count is the difference between two runs of a function, divided by the number of additional
//! invocations in the longer one, so that the start of the function does not count.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench instructions`

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use std::path::Path;
use std::process::Command;

use pennon_tests::event::{EXAMPLE_KEY, Event};
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::process::{find_program, new_folder};
use pennon_tests::stack::Stack;
use serde_json::json;

/// The invocations of the shorter run; the longer one has twice as many.
const REQUESTS: u64 = 100;

/// A tool of valgrind, and the number that it prints at the end of a run.
#[derive(Clone, Copy)]
enum Count {
    Instructions,
    Allocations,
}

impl Count {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Instructions => &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
            Self::Allocations => &["--tool=dhat", "--dhat-out-file=/dev/null"],
        }
    }

    /// Callgrind: `==7== Collected : 1234`. DHAT: `==7== Total:     1,234 bytes in 56 blocks`.
    fn read(self, log: &str) -> Option<u64> {
        let number = |text: &str| text.replace(',', "").parse().ok();
        log.lines().find_map(|line| match self {
            Self::Instructions => number(line.split_once("Collected : ")?.1.trim()),
            Self::Allocations => {
                let blocks = line.split_once("Total:")?.1.strip_suffix(" blocks")?;
                number(blocks.rsplit_once(' ')?.1)
            }
        })
    }
}

/// The count of a run with this many invocations.
async fn run(stack: &Stack, name: &str, event: &Event, count: Count, requests: u64) -> u64 {
    let log = new_folder("valgrind").join("log");
    let valgrind = find_program("valgrind", &[], "Install the package valgrind.");
    let mut command = Command::new(valgrind);
    command
        .args(count.arguments())
        // `env` replaces itself by the function.
        .arg("--trace-children=yes")
        .arg(format!("--log-file={}", log.display()))
        .arg("env");
    // The functions run many times slower than usual. The stack sets the longest timeouts for Redis that they accept.
    let environment = stack.environment();
    let own = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let environment: Vec<_> = own.chain([("AWS_LAMBDA_LOG_LEVEL", "INFO")]).collect();
    let function = Function::start_by(command, name, &environment).await;
    for _ in 0..requests {
        match name {
            "hello-world" => {
                function.invoke(event.value()).await.expect("a response");
            }
            _ => assert_eq!(function.call(event).await.status, 200, "{name}"),
        }
    }
    let pid = function.process().pid().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill runs").success());
    eventually("valgrind prints its count", async || {
        read(&log, count).is_some()
    })
    .await;
    read(&log, count).expect("a count")
}

fn read(log: &Path, count: Count) -> Option<u64> {
    count.read(&std::fs::read_to_string(log).ok()?)
}

/// Replaces all flags with `count` flags of production. `columns` are SQL expressions over the number `n` of a flag.
async fn set_flags(stack: &Stack, count: u32, columns: &str) {
    let statement = format!(
        "delete from feature_flags;
         insert into feature_flags (flag_key, enabled, rollout_percentage, definition)
         select 'flag-' || n, true, {columns} from generate_series(1, {count}) as n"
    );
    let inserted = stack.database.sql().batch_execute(&statement).await;
    inserted.expect("flags");
}

/// Simple flags, of which most have a partial rollout.
const SIMPLE: &str = "n % 101, null";
/// Flags with three variants and a rule.
const RULES: &str = r#"0, json_build_object(
    'variants', json_build_object('control', 'control', 'first', 'first', 'second', 'second'),
    'defaultVariant', 'control',
    'targeting', '{"if": [{"and": [{"ends_with": [{"var": "email"}, "@example.com"]},
        {"in": [{"var": "country"}, ["DE", "AT", "CH"]]}]}, "first",
        {"fractional": [["control", 50], ["second", 50]]}]}'::json)"#;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let context = json!({"targetingKey": "alice", "email": "alice@example.org", "country": "DE"});
    let scenarios = [
        ("an empty function", "hello-world", 1, SIMPLE, Event::list()),
        ("get-flag", "get-flag", 100, SIMPLE, Event::get("flag-7")),
        (
            "evaluate-flag, a rule",
            "evaluate-flag",
            100,
            RULES,
            Event::evaluate("flag-7", &context),
        ),
        (
            "evaluate-flags, 100 simple",
            "evaluate-flags",
            100,
            SIMPLE,
            Event::evaluate_all(&context),
        ),
        (
            "evaluate-flags, 100 rules",
            "evaluate-flags",
            100,
            RULES,
            Event::evaluate_all(&context),
        ),
        (
            "list-flags, 100 simple",
            "list-flags",
            100,
            SIMPLE,
            Event::list(),
        ),
        (
            "list-flags, 10,000 simple",
            "list-flags",
            10_000,
            SIMPLE,
            Event::list(),
        ),
    ];
    println!("| Warm invocation | Instructions | Allocations |\n|---|---:|---:|");
    for (title, function, flags, columns, event) in scenarios {
        let stack = Stack::start().await;
        stack.database.add_key(EXAMPLE_KEY).await;
        set_flags(&stack, flags, columns).await;
        let mut counts = Vec::new();
        for count in [Count::Instructions, Count::Allocations] {
            let short = run(&stack, function, &event, count, REQUESTS).await;
            let long = run(&stack, function, &event, count, 2 * REQUESTS).await;
            counts.push(long.saturating_sub(short) as f64 / REQUESTS as f64);
        }
        println!("| {title} | {:.0} | {:.0} |", counts[0], counts[1]);
    }
}
