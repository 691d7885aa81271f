//! The cost of one change of a flag: the bytes that Redis sends, and the processor time of the instances that read
//! after it, in an environment of 1,000 flags with 10,000 overrides and 20 warm instances.
//!
//! `cargo bench --locked --profile driver -p pennon-tests --bench change_cost`

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark"
)]

use pennon_tests::event::Event;
use pennon_tests::join_all;
use pennon_tests::lambda::Function;
use pennon_tests::redis::Resp;
use pennon_tests::stack::{Stack, database_loads};
use pennon_tests::statistics::milliseconds;
use serde_json::json;

const INSTANCES: usize = 20;
const CHANGES: u32 = 50;
/// Every second flag has variants and a rule.
const FLAGS: &str = r#"
    insert into feature_flags (flag_key, enabled, rollout_percentage, description, definition)
    select 'flag-' || n, true, n % 101, rpad('The new checkout for customers', 40, '.'),
        case when n % 2 = 0 then json_build_object(
            'variants', json_build_object('control', 'control', 'first', 'first', 'second', 'second'),
            'defaultVariant', 'control',
            'targeting', '{"if": [{"and": [{"ends_with": [{"var": "email"}, "@example.com"]},
                {"in": [{"var": "country"}, ["DE", "AT", "CH"]]}]}, "first",
                {"fractional": [["control", 50], ["second", 50]]}]}'::json) end
    from generate_series(4, 1000) as n"#;
const OVERRIDES: &str = "
    insert into feature_flag_user_overrides (flag_id, user_id, override_type)
    select id, 'user-' || n || '@example.com', 'include'
    from feature_flags, generate_series(1, 25) as n
    where flag_key in (select 'flag-' || (5 + 2 * m) from generate_series(0, 399) as m)";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let stack = Stack::start().await;
    for insert in [FLAGS, OVERRIDES] {
        stack
            .database
            .sql()
            .batch_execute(insert)
            .await
            .expect("rows");
    }
    let admin = stack.function("update-flag").await;
    let mut instances: Vec<Function> = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(stack.function("get-flag").await);
    }
    let read = Event::get("checkout");
    let read_everywhere = async || {
        join_all(instances.iter().map(|instance| instance.call(&read))).await;
    };
    read_everywhere().await;
    let unchanged = measure(&stack, &instances, async || read_everywhere().await).await;
    let mut percent = 0;
    let changed = measure(&stack, &instances, async || {
        percent = percent % 100 + 1;
        let change = json!({"rolloutPercentage": percent});
        let answer = admin.call(&Event::update("checkout", &change)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        read_everywhere().await;
    })
    .await;
    println!(
        "per change, all {INSTANCES} instances together: Redis sends {:.1} kB, the instances take {:.1} ms of \
         processor time and load {:.2} times from the database",
        (changed.sent - unchanged.sent) / 1e3,
        changed.processor - unchanged.processor,
        changed.loads - unchanged.loads
    );
}

/// Means of one repetition.
struct Cost {
    sent: f64,
    /// In milliseconds.
    processor: f64,
    loads: f64,
}

async fn measure(stack: &Stack, instances: &[Function], mut repeat: impl AsyncFnMut()) -> Cost {
    let now = || {
        let processor = instances.iter().map(|it| it.process().processor_time());
        let loads: u64 = instances.iter().map(database_loads).sum();
        let processor = processor.map(milliseconds).sum::<f64>();
        (sent_bytes(stack), processor, loads)
    };
    let before = now();
    for _ in 0..CHANGES {
        repeat().await;
    }
    let after = now();
    let each = f64::from(CHANGES);
    Cost {
        sent: (after.0 - before.0) as f64 / each,
        processor: (after.1 - before.1) / each,
        loads: (after.2 - before.2) as f64 / each,
    }
}

/// The bytes that Redis has sent to all its clients.
fn sent_bytes(stack: &Stack) -> u64 {
    let Resp::Text(info) = stack.redis.command(&["INFO", "stats"]) else {
        panic!("INFO returned no text");
    };
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.expect("a counter").trim().parse().expect("a number")
}
