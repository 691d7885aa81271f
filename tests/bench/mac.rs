//! The cost of authenticating a cache entry, compared with reading its JSON. Needs no server.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::time::{Duration, Instant};

// `mac.rs` imports these from its crate.
use pennon_core::{config, hex};

#[expect(dead_code, reason = "a part of it is measured")]
#[path = "../../crates/pennon-core/src/cache/mac.rs"]
mod mac;

const REPETITIONS: u32 = 20;

fn main() {
    let keys = mac::MacKeys::parse(config::Secret::new("k".repeat(64)));
    let keys = keys.expect("a valid key");
    println!("| Flags | Bytes | Digest of the fields | Reading their JSON |");
    println!("|---|---|---|---|");
    for count in [100_usize, 1_000, 10_000] {
        // In any order, as Redis returns them.
        let fields: Vec<(String, String)> = (0..count)
            .map(|number| (format!("flag-{}", number * 7_919 % count), flag(number)))
            .collect();
        let bytes: usize = fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let digest = best(|| {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable();
            let parts = sorted.into_iter();
            mac::digest_of(parts.flat_map(|(name, value)| [name.as_str(), value.as_str()])).len()
        });
        let json = best(|| {
            let values = fields.iter();
            values
                .filter_map(|(_, value)| serde_json::from_str::<serde_json::Value>(value).ok())
                .count()
        });
        println!("| {count} | {bytes} | {digest:.1?} | {json:.1?} |");
    }
    let parts = [
        "pennon cache entry 1",
        "0123456789abcdef0123456789abcdef",
        "production",
        "1700000000123",
        "1700000300000",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ];
    let signed = keys.sign(&mac::message_of(&parts));
    let check = best(|| {
        let checks = (0..1_000).filter(|_| keys.verify(&mac::message_of(&parts), &signed));
        checks.count()
    });
    println!(
        "\nThe header, which is checked with every read: {:.2?}",
        check / 1_000
    );
}

/// The JSON of a flag in an entry.
fn flag(number: usize) -> String {
    format!(
        r#"{{"enabled":true,"rolloutPercentage":{},"description":"The new checkout, for some users","overrides":{{"alice":"include"}}}}"#,
        number % 101
    )
}

/// The shortest of several repetitions.
fn best(mut work: impl FnMut() -> usize) -> Duration {
    let times = (0..REPETITIONS).map(|_| {
        let started = Instant::now();
        std::hint::black_box(work());
        started.elapsed()
    });
    times.min().unwrap_or_default()
}
