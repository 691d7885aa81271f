//! An upper bound of the size of the response with all flags of an environment.
//!
//! Lambda rejects responses above six megabytes, so one large flag could make all flags unavailable. The limit is
//! therefore enforced when flags are written. The bound holds for every caller if the stored data are readable:
//! each flag counts with its largest variant, or with the longest failure.

use pennon_eval::{Definition, EvaluationError, Flag, FlagKey, Reason, Settings};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::item::{Item, without_nested_values};
use crate::flag_sums::FlagSums;
use crate::key_kind::KeyKind;
use crate::wire_size::wire_size;

/// `,"metadata":` and the comma after the flag, with quotation marks counted twice.
const METADATA_NAME: usize = 15;
/// Upper bound of the bytes of a simple flag without its key and metadata.
const SIMPLE_FRAME: usize = 250;
/// The same for a typed flag, without its key, definition and metadata. Its failures are longer.
const TYPED_FRAME: usize = 350;
/// Upper bound of the bytes of the message of a failed rule.
const MAX_MESSAGE_LENGTH: usize = 160;
/// An item contains the key at most twice, with control characters as `\\u0000`.
const KEY_FACTOR: usize = 2 * 7;
/// Quotation marks and backslashes take twice the space; other characters of a definition do not.
const DEFINITION_FACTOR: usize = 2;

/// Computes sizes for an environment with certain settings, in bytes as Lambda counts them.
#[derive(Debug)]
pub struct BulkSize {
    common: Map<String, Value>,
    common_size: usize,
}

impl BulkSize {
    /// For an environment with these settings, whose metadata the response and each value include.
    #[must_use]
    pub fn with(settings: &Settings) -> Self {
        let common = without_nested_values(&settings.metadata);
        let common_size = wire_size(&common) + METADATA_NAME;
        Self {
            common,
            common_size,
        }
    }

    /// Upper bound of the response with these flags.
    pub fn of_all<'a>(&self, flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>) -> usize {
        let sizes = flags.map(|(key, flag)| self.of_flag(key, flag));
        sizes.fold(self.without_flags(), usize::saturating_add)
    }

    /// Upper bound of the item of one flag.
    #[must_use]
    pub fn of_flag(&self, key: &FlagKey, flag: &Flag) -> usize {
        let key = key.as_str();
        let item = |value: &Value, variant: &str| {
            wire_size(&Item {
                key,
                value: Some(value),
                // The longest.
                reason: Reason::TargetingMatch,
                variant,
                metadata: Map::new(),
            })
        };
        let failure = |error: &EvaluationError| {
            wire_size(&Failure::of_evaluation(key, error, KeyKind::Server).into_item(key))
        };
        match &flag.definition {
            None => {
                let off = item(&Value::Bool(false), "off");
                let failed = failure(&EvaluationError::TargetingKeyMissing)
                    .max(failure(&EvaluationError::no_steps_left()));
                off.max(failed) + self.common_size
            }
            Some(definition) => {
                let variants = definition.variants.iter();
                let values = variants.map(|(name, value)| item(value, name)).max();
                // The longest message names a variant that does not exist. The rule can take the name from the context,
                // but the message contains at most 32 characters of it.
                let failed = EvaluationError::General("x".repeat(MAX_MESSAGE_LENGTH));
                values.unwrap_or(0).max(failure(&failed)) + self.metadata_of(definition)
            }
        }
    }

    /// Upper bound of the response, from sums over the flags. Never less than [`Self::of_all`].
    #[must_use]
    pub fn at_most(&self, sums: FlagSums) -> usize {
        let flags = (sums.simple + sums.typed).saturating_mul(self.common_size)
            + sums.simple * SIMPLE_FRAME
            + sums.typed * TYPED_FRAME;
        flags
            .saturating_add(sums.keys.saturating_mul(KEY_FACTOR))
            .saturating_add(sums.definitions.saturating_mul(DEFINITION_FACTOR))
            .saturating_add(self.without_flags())
    }

    /// An upper bound of the size of the response without flags.
    #[must_use]
    pub fn without_flags(&self) -> usize {
        // `{"flags":[],"metadata":{}}`, with quotation marks counted twice.
        self.common_size + 32
    }

    /// The size of the metadata of the environment, which the response contains once, and once for each flag.
    #[must_use]
    pub fn of_common_metadata(&self) -> usize {
        if self.common.is_empty() {
            0
        } else {
            self.common_size
        }
    }

    fn metadata_of(&self, definition: &Definition) -> usize {
        let own = &definition.metadata;
        if own.is_empty() {
            return self.common_size;
        }
        let mut merged = self.common.clone();
        merged.extend(without_nested_values(own));
        wire_size(&merged) + METADATA_NAME
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ofrep_format::examples::{key, settings, typed};

    #[test]
    fn a_flag_counts_with_its_largest_variant_and_the_metadata_of_its_environment() {
        let plain = BulkSize::with(&Settings::default());
        let flag = |length: usize| typed(&json!({"variants": {"a": "x".repeat(length), "b": "y"}}));
        let (small, large) = (flag(10_000), flag(20_000));
        let grown = plain.of_flag(&key("k"), &large) - plain.of_flag(&key("k"), &small);
        assert_eq!(grown, 10_000);
        let common = BulkSize::with(&settings(&json!({"m": "z".repeat(1_000)})));
        let more = common.of_flag(&key("k"), &Flag::default())
            - plain.of_flag(&key("k"), &Flag::default());
        assert!((1_000..1_020).contains(&more), "{more}");
    }
}
