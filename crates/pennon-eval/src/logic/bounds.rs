//! How much a rule may be, and how much work one evaluation may take.
//!
//! Rules come from administrators and contexts from anyone, so that neither may stall a function or
//! overflow its stack. Real rules stay far below all of these.

/// How deep a rule may be nested, after references are replaced. Compiling and evaluating recurse
/// this deep; the frames fit many times into the smallest stack of a thread (2 MB).
pub(crate) const RULE_DEPTH: usize = 64;

/// How deep the JSON of a rule may be nested, lists of arguments included: as deep as `serde_json` reads
/// it.
pub(crate) const RULE_JSON_DEPTH: usize = 2 * RULE_DEPTH;

/// How many values a rule may hold, after references are replaced: about a megabyte of JSON.
pub(crate) const RULE_NODES: usize = 50_000;

/// How deep a context, or a list that a rule builds, may be nested.
pub(crate) const DATA_DEPTH: usize = 32;

/// How many values a context may hold.
pub(crate) const CONTEXT_NODES: usize = 10_000;

/// How many steps one evaluation may take: a step is an operator that is run, an item that is looked
/// at or sixteen bytes of text. All of them take about two milliseconds.
pub(super) const STEPS: u32 = 100_000;

/// How many bytes of text count as a step.
pub(super) const BYTES_PER_STEP: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_bound() {
        let manual = include_str!("../../../../docs/targeting.md");
        assert_eq!(
            (RULE_NODES, CONTEXT_NODES, STEPS),
            (50_000, 10_000, 100_000)
        );
        for bound in [
            format!("| {RULE_DEPTH} operations |"),
            format!("| {DATA_DEPTH} |"),
            format!("{BYTES_PER_STEP} bytes of text"),
            "| 50,000 values |".to_owned(),
            "| 10,000 values |".to_owned(),
            "| 100,000 steps |".to_owned(),
        ] {
            assert!(manual.contains(&bound), "{bound}");
        }
    }
}
