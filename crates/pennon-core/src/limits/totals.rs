//! Limits of all flags of an environment together.

use pennon_eval::{Evaluators, Flag, FlagKey, REQUEST_STEPS, Settings};

use crate::flag_sums::FlagSums;
use crate::ofrep_format::BulkSize;

/// Limit on the response with all flags of an environment, in bytes as Lambda counts them. The rest of Lambda's limit
/// is reserved for fields that a later version may add.
const MAX_BULK_SIZE: usize = 5_500_000;
/// Limit on the values of the flags in use and the settings of an environment, see [`Flag::size`]. An instance keeps
/// two or three forms of each value, and those of the previous revision while it reads a new one.
const MAX_VALUES: usize = 500_000;
/// Limit on the items that an error message names: flags, and the settings.
const MAX_NAMED: usize = 10;

/// A resource that the flags of an environment use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Bytes of the response with all flags.
    Bytes,
    /// Values that an instance keeps in memory.
    Values,
    /// Steps of an evaluation of all flags, for a context with only a targeting key.
    Steps,
}

impl Measure {
    pub(crate) const ALL: [Self; 3] = [Self::Bytes, Self::Values, Self::Steps];

    pub(crate) fn limit(self) -> usize {
        match self {
            Self::Bytes => MAX_BULK_SIZE,
            Self::Values => MAX_VALUES,
            Self::Steps => usize::try_from(REQUEST_STEPS).unwrap_or(usize::MAX),
        }
    }
}

/// Measures flags in an environment with certain settings.
pub(crate) struct FlagMeter<'s> {
    bulk: BulkSize,
    settings: &'s Settings,
    evaluators: Evaluators<'s>,
}

impl<'s> FlagMeter<'s> {
    pub(crate) fn with(settings: &'s Settings) -> Self {
        Self {
            bulk: BulkSize::with(settings),
            settings,
            evaluators: Evaluators::of(settings),
        }
    }

    pub(crate) fn of_flag(&self, measure: Measure, key: &FlagKey, flag: &Flag) -> usize {
        match measure {
            Measure::Bytes => self.bulk.of_flag(key, flag),
            Measure::Values => flag.size(),
            Measure::Steps => usize::try_from(flag.cost(&self.evaluators)).unwrap_or(usize::MAX),
        }
    }

    /// What an environment without flags uses.
    pub(crate) fn without_flags(&self, measure: Measure) -> usize {
        match measure {
            Measure::Bytes => self.bulk.without_flags(),
            Measure::Values => self.settings.size(),
            Measure::Steps => 0,
        }
    }

    pub(crate) fn of_all<'a>(
        &self,
        measure: Measure,
        flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    ) -> usize {
        let sizes = flags.map(|(key, flag)| self.of_flag(measure, key, flag));
        sizes.fold(self.without_flags(measure), usize::saturating_add)
    }

    /// An upper bound of [`Self::of_all`], from sums alone.
    pub(crate) fn at_most(&self, measure: Measure, sums: FlagSums) -> usize {
        match measure {
            Measure::Bytes => self.bulk.at_most(sums),
            // Texts count by their length as well, see `Flag::size`.
            Measure::Values => {
                self.settings.size()
                    + sums.simple
                    + sums.typed
                    + sums.values
                    + sums.definitions / 64
            }
            // Steps that count against the request only (`Fuel::charge_request_limit`) are not capped by the limit of
            // one evaluation. A costly rule may take any number of them, so the flags are measured one by one.
            Measure::Steps if sums.costly > 0 => usize::MAX,
            // An operator is a step or two, and its operands may have to be converted.
            Measure::Steps => {
                sums.simple + sums.typed + sums.values.saturating_mul(10) + sums.definitions / 4
            }
        }
    }

    /// The error message for a total above the limit. It names what uses the most.
    pub(crate) fn message<'a>(
        &self,
        measure: Measure,
        environment: &str,
        total: usize,
        flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    ) -> String {
        let limit = measure.limit();
        let largest = self.largest(measure, flags);
        match measure {
            Measure::Bytes => format!(
                "The response with all flags of '{environment}' could have {total} bytes, more than {limit}; \
                 make variants or metadata smaller, or archive flags. The largest are {largest}"
            ),
            Measure::Values => format!(
                "The flags of '{environment}' and its settings would have {total} values, more than {limit}; \
                 make definitions or settings smaller, or archive flags. The largest are {largest}"
            ),
            Measure::Steps => format!(
                "The evaluation of all flags of '{environment}' would take up to {total} steps, more than {limit}; \
                 make rules simpler, or archive flags. The largest are {largest}"
            ),
        }
    }

    /// What the settings use, with this number of flags. The response contains their metadata once, and once more
    /// for each flag; the steps of evaluators belong to the flags that refer to them.
    fn of_settings(&self, measure: Measure, flags: usize) -> usize {
        match measure {
            Measure::Bytes => self.bulk.of_common_metadata().saturating_mul(flags + 1),
            Measure::Values => self.settings.size(),
            Measure::Steps => 0,
        }
    }

    /// Names the largest flags, and the settings if they are as large.
    fn largest<'a>(
        &self,
        measure: Measure,
        flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    ) -> String {
        let mut sizes: Vec<(usize, Option<&FlagKey>)> = flags
            .map(|(key, flag)| (self.of_flag(measure, key, flag), Some(key)))
            .collect();
        let of_settings = self.of_settings(measure, sizes.len());
        if of_settings > 0 {
            sizes.push((of_settings, None));
        }
        sizes.sort_by(|(a, key_a), (b, key_b)| b.cmp(a).then_with(|| key_a.cmp(key_b)));
        let (named, others) = sizes.split_at(sizes.len().min(MAX_NAMED));
        let named = named.iter().map(|(size, key)| match key {
            Some(key) => format!("'{key}' ({size})"),
            None => format!("the settings ({size})"),
        });
        let named = named.collect::<Vec<_>>().join(", ");
        match others.iter().filter(|(_, key)| key.is_some()).count() {
            0 => named,
            more => format!("{named} and {more} other flags"),
        }
    }
}

/// Returns the first of these measures that exceeds its limit and has grown, with the error message.
pub(crate) fn first_exceeded<'a>(
    measures: &[Measure],
    environment: &str,
    before: Option<(
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    )>,
    (flags, settings): (
        impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
        &Settings,
    ),
) -> Option<(Measure, String)> {
    let meter = FlagMeter::with(settings);
    let before = before.map(|(flags, settings)| (flags, FlagMeter::with(settings)));
    measures.iter().copied().find_map(|measure| {
        let total = meter.of_all(measure, flags.clone());
        let previous = || {
            let before = before.as_ref();
            before.map_or(0, |(flags, meter)| meter.of_all(measure, flags.clone()))
        };
        (total > measure.limit() && total > previous()).then(|| {
            let message = meter.message(measure, environment, total, flags.clone());
            (measure, message)
        })
    })
}

#[cfg(test)]
mod tests {
    use pennon_eval::Definition;
    use serde_json::{Value, json};

    use super::*;
    use crate::ofrep_format::examples::{key, settings, typed};

    /// Sums over one flag, as PostgreSQL computes them.
    fn sums(flag: &Flag) -> FlagSums {
        let definition = flag.definition.as_ref();
        let text = definition.map_or_else(String::new, |one| json!(one).to_string());
        FlagSums {
            simple: usize::from(definition.is_none()),
            typed: usize::from(definition.is_some()),
            keys: 1,
            definitions: text.len(),
            values: text.matches([',', '[', '{']).count(),
            costly: usize::from(definition.is_some_and(Definition::may_be_costly)),
        }
    }

    /// Operations with every operator that is not costly, around the operand [`INNER`].
    fn operations(text: &str) -> Vec<Value> {
        let condition = json!({"var": "plan"});
        let binary = "and or == != === !== < <= > >= + * - / % min max in starts_with ends_with";
        let mut operations: Vec<Value> = binary
            .split(' ')
            .flat_map(|operator| {
                [
                    json!({operator: [INNER, text]}),
                    json!({operator: [text, INNER]}),
                ]
            })
            .collect();
        operations.extend([
            json!({"if": [condition, INNER, text]}),
            json!({"if": [condition, text, INNER]}),
            json!({"if": [INNER, text, 1]}),
            json!({"?:": [condition, INNER, text]}),
            json!({"log": [INNER]}),
            json!({"!": INNER}),
            json!({"!!": [INNER]}),
            json!({"-": [INNER]}),
            json!({"<": [text, INNER, text]}),
            json!({"in": [text, [INNER, text]]}),
            json!({"in": [INNER, ["a", text]]}),
            json!({"sem_ver": [INNER, "=", text]}),
            json!({"var": ["plan", INNER]}),
            json!({"var": [INNER]}),
            json!({"var": [INNER, text]}),
            json!([INNER, text]),
            json!([INNER]),
            json!({"fractional": [INNER, ["on", 1]]}),
            json!({"fractional": {"if": [condition, INNER, text]}}),
            json!({"fractional": [text, [INNER, 1]]}),
            json!({"fractional": [{"if": [condition, [INNER, 1]]}, ["on", 1]]}),
            json!({"fractional": [{"var": "plan"}, [INNER, 1], [text, 2]]}),
            json!({"fractional": [{"var": ["plan", text]}, [INNER, 1]]}),
            json!({"fractional": [{"var": ["plan", INNER]}, ["on", 1]]}),
            json!({"fractional": [[INNER, 1], ["on", INNER]]}),
        ]);
        operations
    }

    const INNER: &str = "the operand";

    fn replace_operand(operation: &Value, by: &Value) -> Value {
        match operation {
            Value::String(text) if text == INNER => by.clone(),
            Value::Array(items) => items.iter().map(|item| replace_operand(item, by)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter();
                fields
                    .map(|(name, value)| (name.clone(), replace_operand(value, by)))
                    .collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => operation.clone(),
        }
    }

    #[test]
    fn the_bound_from_sums_is_never_lower_than_the_measure_of_the_flags() {
        let settings = settings(&json!({"owner": "us"}));
        let meter = FlagMeter::with(&settings);
        let mut cheap = 0;
        for text in ["9".repeat(2_000), "x".repeat(40)] {
            let operations = operations(&text);
            let pairs = operations
                .iter()
                .flat_map(|outer| operations.iter().map(move |inner| [inner, outer]));
            for pair in pairs {
                let mut rule = json!({"if": [{"var": "plan"}, text, 1]});
                for operation in pair.iter().cycle().take(10) {
                    let nested = replace_operand(operation, &rule);
                    if nested.to_string().len() > 20_000 {
                        break;
                    }
                    rule = nested;
                }
                let flag = typed(&json!({"variants": {"on": true}, "targeting": rule}));
                let sums = sums(&flag);
                cheap += usize::from(sums.costly == 0);
                for measure in Measure::ALL {
                    let exact = meter.of_all(measure, [(&key("a"), &flag)].into_iter());
                    let bound = meter.at_most(measure, sums);
                    assert!(exact <= bound, "{measure:?} {exact} > {bound}: {rule}");
                }
            }
        }
        assert!(cheap > 1_000, "only {cheap} rules are not costly");
    }

    #[test]
    fn a_message_names_the_settings_if_they_take_the_most() {
        let evaluators = json!({"numbers": {"merge": [vec![1; 49_000]]}});
        let with_evaluators = Settings {
            evaluators: evaluators.as_object().cloned().expect("an object"),
            ..Settings::default()
        };
        let with_metadata = settings(&json!({"notice": "n".repeat(10_000)}));
        let large = typed(&json!({"variants": {"a": "x".repeat(20_000)}}));
        let keys: Vec<FlagKey> = (0..12).map(|number| key(&format!("{number:02}"))).collect();
        let message = |settings: &Settings, measure, flags: usize| {
            let flags = keys.iter().take(flags).map(|key| (key, &large));
            FlagMeter::with(settings).message(measure, "staging", 1, flags)
        };
        for (settings, measure) in [
            (&with_evaluators, Measure::Values),
            (&with_metadata, Measure::Bytes),
        ] {
            let alone = message(settings, measure, 0);
            let (_, named) = alone.split_once("The largest are ").expect("a list");
            assert!(named.starts_with("the settings ("), "{alone}");
            assert!(named.ends_with(')') && !named.contains(','), "{alone}");
            let among = message(settings, measure, 12);
            assert!(among.contains("are the settings ("), "{among}");
            assert!(among.ends_with(") and 3 other flags"), "{among}");
        }
        let small = message(&Settings::default(), Measure::Bytes, 12);
        assert!(small.contains("are '00' ("), "{small}");
        assert!(!small.contains("the settings"), "{small}");
    }
}
