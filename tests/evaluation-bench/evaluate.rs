//! The duration of evaluations. datalogic-rs, another `JsonLogic` engine, evaluates the same rule in the same run, so
//! that results from different machines can be compared.
//!
//! `cargo bench --locked -p pennon-evaluation-bench`

#![expect(
    clippy::expect_used,
    missing_docs,
    reason = "a bench may panic, and criterion's macro creates a public function"
)]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pennon_eval::{
    Context, EvaluationDefaults, Flag, FlagKey, RequestFuel, Rollout, Ruleset, Settings, explain,
};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

/// A typical rule: three conditions on the caller, one of them with a list. The callers here meet the first two, which
/// decide.
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

    criterion.bench_function("simple, bucket cached", |bencher| {
        bencher.iter(|| ruleset.evaluate(black_box("simple"), &known, NOW).is_ok());
    });
    // With a salt, the bucket depends on the flag and is computed for each evaluation.
    criterion.bench_function("simple, hashing", |bencher| {
        bencher.iter(|| ruleset.evaluate(black_box("salted"), &known, NOW).is_ok());
    });
    // With flagd's hash, the bucket depends on the flag too.
    criterion.bench_function("simple, by fractional", |bencher| {
        bencher.iter(|| new.evaluate(black_box("simple"), &known, NOW).is_ok());
    });
    criterion.bench_function("rule", |bencher| {
        bencher.iter(|| ruleset.evaluate(black_box("rule"), &known, NOW).is_ok());
    });
    // As in a response with all flags, and as in datalogic-rs below.
    let position = ruleset
        .variants()
        .position(|flag| flag.key.as_str() == "rule");
    let position = position.expect("the flag");
    criterion.bench_function("rule, without lookup", |bencher| {
        let mut fuel = RequestFuel::default();
        bencher.iter(|| {
            let decision = ruleset.decide_at(black_box(position), &known, NOW, &mut fuel);
            decision.is_ok()
        });
    });
    criterion.bench_function("fractional", |bencher| {
        bencher.iter(|| {
            ruleset
                .evaluate(black_box("fractional"), &known, NOW)
                .is_ok()
        });
    });

    // Compiles the flag for a trace, evaluates it, and records the steps.
    let (key, flag) = (FlagKey::parse("rule").expect("a key"), typed(&rule()));
    criterion.bench_function("explained rule", |bencher| {
        let settings = Settings::default();
        let subject = (black_box(&key), &flag);
        bencher.iter(|| explain(subject, &settings, EvaluationDefaults::New, &known, NOW).outcome);
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
            // A new context each time: the bucket is computed once per context, for all flags.
            bencher.iter_batched_ref(
                context,
                |context| {
                    let evaluated = keys
                        .iter()
                        .filter(|key| ruleset.evaluate(key, context, NOW).is_ok());
                    evaluated.count()
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }

    // The fastest API of datalogic-rs: the data is parsed once, and the arena of results is reused.
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
