//! Limits of all flags of an environment together.

use std::collections::BTreeMap;

use pennon_eval::{Evaluators, Flag, FlagKey, REQUEST_STEPS, Settings};

use crate::flag_sums::FlagSums;
use crate::ofrep_format::BulkSize;

/// Limit on the response with all flags of an environment, in bytes as Lambda counts them. The rest of Lambda's limit
/// is reserved for fields that a later version may add.
const MAX_BULK_SIZE: usize = 5_500_000;
/// Limit on the values of the active flags and the settings of an environment, see [`Flag::size`]. An instance keeps
/// two or three forms of each value, and those of the previous revision while it reads a new one.
const MAX_VALUES: usize = 500_000;
/// Limit on the flags that an error message names.
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

    /// The error message for a total above the limit.
    pub(crate) fn message(self, environment: &str, total: usize, largest: &str) -> String {
        let limit = self.limit();
        match self {
            Self::Bytes => format!(
                "The response with all flags of '{environment}' could have {total} bytes, more than {limit}; \
                 make variants smaller, or archive flags. The largest are {largest}"
            ),
            Self::Values => format!(
                "The flags of '{environment}' and its settings would have {total} values, more than {limit}; \
                 make definitions smaller, or archive flags. The largest are {largest}"
            ),
            Self::Steps => format!(
                "The evaluation of all flags of '{environment}' would take up to {total} steps, more than {limit}; \
                 make rules simpler, or archive flags. The largest are {largest}"
            ),
        }
    }
}

/// Measures flags in an environment with certain settings.
pub(crate) struct Scale<'s> {
    bulk: BulkSize,
    settings: &'s Settings,
    evaluators: Evaluators<'s>,
}

impl<'s> Scale<'s> {
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
            // Steps that count against the request only (`Fuel::charge_request`) are not capped by the limit of one
            // evaluation. A costly rule may take any number of them, so its sums give no bound.
            Measure::Steps if sums.costly > 0 => usize::MAX,
            // An operator is a step or two, and its operands may have to be converted.
            Measure::Steps => {
                sums.simple + sums.typed + sums.values.saturating_mul(10) + sums.definitions / 4
            }
        }
    }

    /// Names the largest flags for an error message.
    pub(crate) fn largest<'a>(
        &self,
        measure: Measure,
        flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)>,
    ) -> String {
        let mut sizes: Vec<(usize, &FlagKey)> = flags
            .map(|(key, flag)| (self.of_flag(measure, key, flag), key))
            .collect();
        sizes.sort_by(|(a, key_a), (b, key_b)| b.cmp(a).then_with(|| key_a.cmp(key_b)));
        let named: Vec<String> = sizes
            .iter()
            .take(MAX_NAMED)
            .map(|(size, key)| format!("'{key}' ({size})"))
            .collect();
        match sizes.len().saturating_sub(named.len()) {
            0 => named.join(", "),
            more => format!("{} and {more} other flags", named.join(", ")),
        }
    }
}

/// Returns the size of the response with all flags if it exceeds the limit, and the error message. An environment that
/// was larger when this limit was introduced may keep its size, `known`.
pub(crate) fn too_large<'a>(
    environment: &str,
    flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
    settings: &Settings,
    known: usize,
) -> Option<(usize, String)> {
    let (scale, measure) = (Scale::with(settings), Measure::Bytes);
    let total = scale.of_all(measure, flags.clone());
    (total > measure.limit().max(known)).then(|| {
        let largest = scale.largest(measure, flags);
        (total, measure.message(environment, total, &largest))
    })
}

/// Returns an error message if the flags and settings of an environment together need too much memory or computation,
/// and more than before.
pub(crate) fn check_together(
    environment: &str,
    before: Option<(&BTreeMap<FlagKey, Flag>, &Settings)>,
    after: (&BTreeMap<FlagKey, Flag>, &Settings),
) -> Option<String> {
    let before = before.map(|(flags, settings)| (flags.iter(), settings));
    let measures = &[Measure::Values, Measure::Steps];
    let found = too_much(measures, environment, before, (after.0.iter(), after.1));
    found.map(|(_, error)| error)
}

/// Returns the first of these measures that exceeds its limit and has grown, with the error message.
pub(crate) fn too_much<'a>(
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
    let scale = Scale::with(settings);
    let before = before.map(|(flags, settings)| (flags, Scale::with(settings)));
    measures.iter().copied().find_map(|measure| {
        let total = scale.of_all(measure, flags.clone());
        let previous = || {
            let before = before.as_ref();
            before.map_or(0, |(flags, scale)| scale.of_all(measure, flags.clone()))
        };
        (total > measure.limit() && total > previous()).then(|| {
            let largest = scale.largest(measure, flags.clone());
            (measure, measure.message(environment, total, &largest))
        })
    })
}
