//! What an evaluation costs. datalogic-rs, another `JsonLogic` engine, runs the same rule in the same run,
//! so that its figure is the measure on any machine.
//!
//! `cargo bench -p pennon-eval`

#![expect(
    clippy::expect_used,
    missing_docs,
    reason = "a bench may stop, and criterion's macro makes a function"
)]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pennon_eval::{Context, EvaluationDefaults, Flag, FlagKey, Rollout, Ruleset, Settings};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

/// Two conditions on the caller, one of them over a list: what most rules look like.
fn rule() -> Value {
    json!({"if": [
        {"and": [
            {"in": [{"var": "country"}, ["DE", "FR", "ES", "IT"]]},
            {">=": [{"var": "user.age"}, 18]}
        ]},
        "on",
        {"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "on", "off"]}
    ]})
}

fn attributes(number: usize) -> Value {
    json!({
        "targetingKey": format!("user-{number}"),
        "country": "IT",
        "email": "someone@example.com",
        "user": {"age": 30, "plan": "pro"}
    })
}

fn context() -> Context {
    Context::parse(attributes(123)).expect("a context")
}

fn simple() -> Flag {
    Flag {
        enabled: true,
        rollout_percentage: Rollout::parse(50).expect("in range"),
        ..Flag::default()
    }
}

fn typed(targeting: &Value) -> Flag {
    let definition = json!({
        "variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": targeting
    });
    Flag {
        enabled: true,
        definition: Some(serde_json::from_value(definition).expect("a definition")),
        ..Flag::default()
    }
}

fn compile(
    flags: impl IntoIterator<Item = (String, Flag)>,
    defaults: EvaluationDefaults,
) -> Ruleset {
    let keyed = flags
        .into_iter()
        .map(|(key, flag)| (FlagKey::parse(key).expect("a key"), flag));
    Ruleset::compile(
        &keyed.collect::<BTreeMap<_, _>>(),
        &Settings::default(),
        defaults,
    )
}

fn benches(criterion: &mut Criterion) {
    let flags = [
        ("simple", simple()),
        (
            "salted",
            Flag {
                salt: Some("salt".to_owned()),
                ..simple()
            },
        ),
        ("rule", typed(&rule())),
        (
            "fractional",
            typed(&json!({"fractional": [["on", 50], ["off", 50]]})),
        ),
    ];
    let flags = flags.map(|(key, flag)| (key.to_owned(), flag));
    let new = compile(flags.clone(), EvaluationDefaults::New);
    let ruleset = compile(flags, EvaluationDefaults::Existing);
    let known = context();

    criterion.bench_function("simple, bucket known", |bencher| {
        bencher.iter(|| ruleset.evaluate(black_box("simple"), &known, NOW).is_ok());
    });
    // A salt makes the bucket the flag's own, so it is hashed each time.
    criterion.bench_function("simple, hashing", |bencher| {
        bencher.iter(|| ruleset.evaluate(black_box("salted"), &known, NOW).is_ok());
    });
    // By flagd's hash each flag has an order of its own.
    criterion.bench_function("simple, by fractional", |bencher| {
        bencher.iter(|| new.evaluate(black_box("simple"), &known, NOW).is_ok());
    });
    criterion.bench_function("rule", |bencher| {
        bencher.iter(|| ruleset.evaluate(black_box("rule"), &known, NOW).is_ok());
    });
    criterion.bench_function("fractional", |bencher| {
        bencher.iter(|| {
            ruleset
                .evaluate(black_box("fractional"), &known, NOW)
                .is_ok()
        });
    });

    let hundred = |flag: fn() -> Flag, defaults| {
        compile((0..100).map(|n| (format!("flag-{n:02}"), flag())), defaults)
    };
    let keys: Vec<String> = (0..100).map(|n| format!("flag-{n:02}")).collect();
    for (name, ruleset) in [
        (
            "bulk of 100 simple flags",
            hundred(simple, EvaluationDefaults::Existing),
        ),
        (
            "bulk of 100 simple flags, by fractional",
            hundred(simple, EvaluationDefaults::New),
        ),
        (
            "bulk of 100 rules",
            hundred(|| typed(&rule()), EvaluationDefaults::New),
        ),
    ] {
        criterion.bench_function(name, |bencher| {
            // A caller of his own each time: his bucket is hashed once for all flags.
            bencher.iter_batched_ref(
                context,
                |context| {
                    let done = keys
                        .iter()
                        .filter(|key| ruleset.evaluate(key, context, NOW).is_ok());
                    done.count()
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }

    // Its quickest way: parsed once into its own values, the arena of results reused.
    let engine = datalogic_rs::Engine::new();
    let compiled = engine.compile(&rule().to_string()).expect("a rule");
    let data = attributes(123).to_string();
    let data = datalogic_rs::ParsedData::from_json(&data).expect("JSON");
    let mut session = engine.session();
    criterion.bench_function("datalogic-rs, the same rule", |bencher| {
        bencher.iter(|| {
            session.reset();
            let result = session.eval_borrowed(black_box(&compiled), &data);
            result.is_ok_and(|result| result.as_str() == Some("on"))
        });
    });
}

criterion_group!(group, benches);
criterion_main!(group);
