//! Inputs for the fuzz tests: examples with random edits.
//!
//! A fuzz test is a unit test beside the code under test, because most parsers are private. It has valid or nearly
//! valid examples, and a property that holds for every input. A normal run tries the same 2,000 inputs every time;
//! CONTRIBUTING.md has the command that tries ten million. A failing input is reduced before it is reported.

#![expect(clippy::panic, reason = "a harness reports a failure by a panic")]

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use serde_json::{Map, Value, json};

/// Inputs in a run of the tests: a second or less for most targets, also in a debug build.
const INPUTS: u32 = 2_000;
/// Environment variables of proptest.
const CHOSEN_INPUTS: &str = "PROPTEST_CASES";
const CHOSEN_SEED: &str = "PROPTEST_RNG_SEED";
/// The maximal number of edits of one input. More would leave little of the example.
const MAX_EDITS: usize = 6;
/// The maximal length of an input in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// One edit: its kind and two random numbers.
type Edit = (u8, u32, u32);

/// Calls `check`, which panics if a property is violated, with many inputs.
///
/// `PROPTEST_CASES` sets the number of inputs, 2,000 by default; `PROPTEST_RNG_SEED` sets the seed, 1 by default.
///
/// # Panics
/// If `check` panics, with the smallest failing input that was found.
pub fn for_all<S: Strategy>(inputs: &S, check: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let mut config = config();
    if std::env::var_os(CHOSEN_INPUTS).is_none() {
        config.cases = INPUTS;
    }
    let outcome = TestRunner::new(config).run(inputs, |input| {
        check(input);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, input)) => panic!("{why}\nfor the input {input:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// `count` inputs, for a test that evaluates all of them at once.
///
/// # Panics
/// If a strategy rejects its own values.
pub fn some<S: Strategy>(inputs: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::new(config());
    let tree = |_| match inputs.new_tree(&mut runner) {
        Ok(tree) => tree.current(),
        Err(why) => panic!("{why}"),
    };
    (0..count).map(tree).collect()
}

fn config() -> Config {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 10_000,
        ..Config::default()
    };
    if std::env::var_os(CHOSEN_SEED).is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Byte strings: an example after up to six edits, which may insert some of the words.
///
/// # Panics
/// If there is no example or no word.
pub fn bytes(
    examples: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    words: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    let examples: Vec<Vec<u8>> = examples.into_iter().map(Into::into).collect();
    assert!(!examples.is_empty() && !words.is_empty());
    (any::<u16>(), edits()).prop_map(move |(example, edits)| {
        let mut bytes = pick(&examples, u32::from(example)).clone();
        for edit in edits {
            edit_bytes(&mut bytes, edit, &examples, words);
            bytes.truncate(MAX_LENGTH);
        }
        bytes
    })
}

/// Texts, made as in [`bytes`]. Invalid UTF-8 becomes U+FFFD.
pub fn text(
    examples: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    words: &'static [&'static str],
) -> impl Strategy<Value = String> {
    bytes(examples, words).prop_map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Seeds for a generator of inputs, where edits of examples are not enough.
pub fn seeds() -> impl Strategy<Value = u64> {
    any::<u64>()
}

/// JSON: an example after up to six edits, each of which replaces, extends, shortens, removes, copies or nests a value.
///
/// # Panics
/// If there is no example.
pub fn json(examples: impl IntoIterator<Item = Value>) -> impl Strategy<Value = Value> {
    let examples: Vec<Value> = examples.into_iter().collect();
    assert!(!examples.is_empty());
    (any::<u16>(), edits()).prop_map(move |(example, edits)| {
        let mut value = pick(&examples, u32::from(example)).clone();
        for edit in edits {
            edit_json(&mut value, edit, &examples);
        }
        value
    })
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec((any::<u8>(), any::<u32>(), any::<u32>()), 0..=MAX_EDITS)
}

fn pick<T>(from: &[T], number: u32) -> &T {
    &from[number as usize % from.len()]
}

fn edit_bytes(bytes: &mut Vec<u8>, edit: Edit, examples: &[Vec<u8>], words: &[&str]) {
    let (kind, one, other) = edit;
    let at = one as usize % (bytes.len() + 1);
    // Mostly short ranges, sometimes the whole rest.
    let length = match other % 16 {
        0 => bytes.len(),
        short => short as usize,
    };
    let end = (at + length).min(bytes.len());
    match kind % 8 {
        0 | 1 => {
            let word = pick(words, other).bytes();
            bytes.splice(at..at, word);
        }
        2 => {
            let word = pick(words, other >> 4).bytes();
            bytes.splice(at..end, word);
        }
        3 => {
            bytes.drain(at..end);
        }
        4 => {
            let part = bytes[at..end].repeat(1 + (other >> 4) as usize % 64);
            bytes.splice(at..at, part);
        }
        5 => {
            let example = pick(examples, other >> 16);
            let from = other as usize % (example.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&example[from..]);
        }
        6 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = other.to_le_bytes()[1];
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (other % 8);
            }
        }
    }
}

fn edit_json(whole: &mut Value, edit: Edit, examples: &[Value]) {
    let (kind, one, other) = edit;
    let target = one as usize % count(whole);
    match kind % 8 {
        0..=2 => *nth(whole, target) = unusual(other),
        3 => {
            let example = pick(examples, other >> 16);
            let part = other as usize % count(example);
            *nth(whole, target) = nth(&mut example.clone(), part).clone();
        }
        4 => {
            let part = other as usize % count(whole);
            let part = nth(whole, part).clone();
            *nth(whole, target) = part;
        }
        5 => remove(nth(whole, target), other),
        6 => add(nth(whole, target), other),
        _ => {
            let inner = nth(whole, target).take();
            *nth(whole, target) = if other % 2 == 0 {
                json!([inner])
            } else {
                json!({ "a": inner })
            };
        }
    }
}

/// The number of values in a value, including itself.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// The value with this number, counted from 0 in preorder.
fn nth(value: &mut Value, number: usize) -> &mut Value {
    if number == 0 {
        return value;
    }
    let mut left = number - 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for child in children {
        let size = count(child);
        if left < size {
            return nth(child, left);
        }
        left -= size;
    }
    unreachable!("the number is not below the count")
}

/// One of 24 kinds of unusual values.
fn unusual(number: u32) -> Value {
    let size = (number >> 8) as usize % 300;
    match number % 24 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(i64::MIN),
        6 => json!(u64::MAX),
        7 => json!(1e308),
        8 => json!(-0.0),
        9 => json!(0.1),
        10 => json!(""),
        11 => json!(" "),
        12 => json!("\0"),
        13 => json!("a".repeat(size)),
        14 => json!("ä😀\u{202e}\u{feff}"),
        15 => json!("../..%2F%00"),
        16 => json!([]),
        17 => json!({}),
        18 => json!({"": null, "__rev": [], "$ref": "a"}),
        19 => (0..size).map(|item| json!(item)).collect(),
        20 => (0..size % 120).fold(json!(1), |inner, _| json!([inner])),
        21 => (0..size % 120).fold(json!("x"), |inner, _| json!({ "a": inner })),
        22 => json!("1"),
        _ => json!(size),
    }
}

fn remove(value: &mut Value, number: u32) {
    let number = number as usize;
    match value {
        Value::Array(items) if !items.is_empty() => {
            items.remove(number % items.len());
        }
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(number % fields.len()).cloned();
            name.map(|name| fields.shift_remove(&name));
        }
        Value::String(text) => {
            let mut rest: Vec<char> = text.chars().collect();
            rest.truncate(number % (rest.len() + 1));
            *text = rest.into_iter().collect();
        }
        Value::Array(_) | Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            *value = Value::Null;
        }
    }
}

fn add(value: &mut Value, number: u32) {
    let added = unusual(number);
    match value {
        Value::Array(items) => items.push(added),
        Value::Object(fields) => {
            let name = added.as_str().map(str::to_owned);
            let name = name.unwrap_or_else(|| format!("field-{}", number % 7));
            fields.insert(name, added);
        }
        Value::String(text) => {
            if let Value::String(more) = &added {
                text.push_str(more);
            } else {
                text.insert(0, ' ');
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let mut fields = Map::new();
            fields.insert("a".to_owned(), added);
            *value = Value::Object(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn every_run_has_the_same_inputs_and_some_are_longer_than_the_examples() {
        let hash_of_run = || {
            let hash = Cell::new(0_u64);
            let longest = Cell::new(0);
            for_all(&text(["one", "two, three"], &["word"]), |input| {
                let sum: u64 = input.bytes().map(u64::from).sum();
                hash.set(hash.get().wrapping_mul(31).wrapping_add(sum));
                longest.set(longest.get().max(input.len()));
            });
            (hash.get(), longest.get())
        };
        let (hash, longest) = hash_of_run();
        assert_eq!(hash_of_run(), (hash, longest));
        assert!(longest > 100, "{longest}");
    }

    #[test]
    fn a_property_that_does_not_hold_is_reported() {
        let inputs = bytes(["aaaaaaaaaa"], &["needle"]);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            for_all(&inputs, |input| {
                assert!(!input.windows(6).any(|part| part == b"needle"));
            });
        }));
        assert!(failed.is_err());
        let failed = catch_unwind(AssertUnwindSafe(|| {
            for_all(&json([json!({"a": [1, 2]})]), |value| {
                assert!(value["a"].is_array());
            });
        }));
        assert!(failed.is_err());
    }
}
