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
pub(crate) const STEPS: u32 = 100_000;

/// How many bytes of text count as a step.
pub(crate) const BYTES_PER_STEP: usize = 16;

/// How many steps a request may take beyond those that its rules take for a caller of whom nothing but the
/// id is known: for walking the lists and comparing the texts of its context. About 70 milliseconds.
pub(crate) const REQUEST_STEPS: u64 = 5_000_000;

/// How large constants may become, all of an environment together, that are computed from constants which
/// rules share. Beyond it such an operation is run for each caller, as if its operands were not constant.
pub(super) const FOLDED_VALUES: usize = 200_000;

/// How many values are looked at for parts that cannot work, in one file or change. A rule that refers to
/// others is looked at with them, each time that it does.
pub(super) const LINT_VALUES: usize = 5_000_000;

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
