//! How large the answer with all flags of an environment can become.
//!
//! Lambda refuses an answer above six megabytes, whoever asks, so one large flag could take all others
//! from every caller. A bound over all callers is kept when flags are written instead: each flag counts
//! with its largest variant, or with the longest reason why it has no value.

use pennon_eval::{Definition, EvaluationError, Flag, FlagKey, Reason, Settings};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::item::{Item, flat};
use crate::flag_sums::FlagSums;
use crate::snapshot::KeyKind;
use crate::wire_size::wire_size;

/// `,"metadata":` and the comma after the flag.
const METADATA_NAME: usize = 15;
/// What a flag takes beside its key, its definition and its metadata, at most: a simple one, and one with
/// a definition, which may fail in more words.
const SIMPLE_FRAME: usize = 250;
/// See [`SIMPLE_FRAME`].
const TYPED_FRAME: usize = 350;
/// The most bytes of a reason why a rule has no value for a caller.
const LONGEST_REASON: usize = 160;
/// A key stands in a flag's answer twice at most, and a control character in it as `\\u0000`.
const KEY_FACTOR: usize = 2 * 7;
/// A quotation mark is the only kind of character that takes twice the place.
const DEFINITION_FACTOR: usize = 2;

/// Sizes in an environment with certain settings, in bytes on the way out of Lambda.
#[derive(Debug)]
pub struct BulkSize {
    common: Map<String, Value>,
    common_size: usize,
}

impl BulkSize {
    /// For an environment with these settings, whose metadata every flag has.
    #[must_use]
    pub fn with(settings: &Settings) -> Self {
        let common = flat(&settings.metadata);
        let common_size = wire_size(&common) + METADATA_NAME;
        Self {
            common,
            common_size,
        }
    }

    /// The answer with these flags, at most.
    pub fn of_all<'a>(&self, flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>) -> usize {
        let sizes = flags.map(|(key, flag)| self.of_flag(key, flag));
        sizes.fold(self.around(), usize::saturating_add)
    }

    /// One flag in the answer, at most.
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
                let failed = failure(&EvaluationError::TargetingKeyMissing);
                off.max(failed) + self.common_size
            }
            Some(definition) => {
                let variants = definition.variants.iter();
                let values = variants.map(|(name, value)| item(value, name)).max();
                // The longest: that there is no variant of a name out of the context.
                let failed = EvaluationError::General("x".repeat(LONGEST_REASON));
                values.unwrap_or(0).max(failure(&failed)) + self.metadata_of(definition)
            }
        }
    }

    /// The answer with flags of which only sums are known. It is never less than [`Self::of_all`].
    #[must_use]
    pub fn at_most(&self, sums: FlagSums) -> usize {
        let flags = (sums.simple + sums.typed).saturating_mul(self.common_size)
            + sums.simple * SIMPLE_FRAME
            + sums.typed * TYPED_FRAME;
        flags
            .saturating_add(sums.keys.saturating_mul(KEY_FACTOR))
            .saturating_add(sums.definitions.saturating_mul(DEFINITION_FACTOR))
            .saturating_add(self.around())
    }

    /// What stands around the flags.
    #[must_use]
    pub fn around(&self) -> usize {
        // `{"flags":[],"metadata":{}}`, and its quotation marks a second time.
        self.common_size + 32
    }

    fn metadata_of(&self, definition: &Definition) -> usize {
        let own = &definition.metadata;
        if own.is_empty() {
            return self.common_size;
        }
        let mut merged = self.common.clone();
        merged.extend(flat(own));
        wire_size(&merged) + METADATA_NAME
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(metadata: &Value) -> Settings {
        serde_json::from_value(json!({ "metadata": metadata })).expect("settings")
    }

    fn typed(definition: &Value) -> Flag {
        Flag {
            enabled: true,
            definition: Some(serde_json::from_value(definition.clone()).expect("a definition")),
            ..Flag::default()
        }
    }

    fn key(text: &str) -> FlagKey {
        FlagKey::parse(text).expect("a key")
    }

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
