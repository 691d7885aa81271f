//! Limits of all flags of an environment together.

use std::collections::BTreeMap;

use pennon_eval::{EVALUATION_STEPS, Evaluators, Flag, FlagKey, REQUEST_STEPS, Settings};

use crate::flag_sums::FlagSums;
use crate::ofrep_format::BulkSize;

/// The largest answer with all flags of an environment that a change may lead to, in bytes on its way out
/// of Lambda. The rest of what Lambda takes is left for what evaluations may say more in a later version.
const LARGEST_BULK: usize = 5_500_000;
/// How many values the flags in use of an environment and its settings may have, see [`Flag::size`]. An
/// instance keeps two or three forms of each, and those of the revision before while it reads another one.
const MOST_VALUES: usize = 500_000;
/// Of flags that take too much together, so many are named.
const MOST_LARGEST: usize = 10;

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

    pub(crate) fn most(self) -> usize {
        match self {
            Self::Bytes => LARGEST_BULK,
            Self::Values => MOST_VALUES,
            Self::Steps => usize::try_from(REQUEST_STEPS).unwrap_or(usize::MAX),
        }
    }

    /// The error for a total above the limit.
    pub(crate) fn message(self, environment: &str, total: usize, largest: &str) -> String {
        let most = self.most();
        match self {
            Self::Bytes => format!(
                "The answer with all flags of '{environment}' could have {total} bytes, more than {most}; \
                 make variants smaller, or archive flags. Most bytes take {largest}"
            ),
            Self::Values => format!(
                "The flags of '{environment}' and its settings would have {total} values, more than {most}; \
                 make definitions smaller, or archive flags. Most values take {largest}"
            ),
            Self::Steps => format!(
                "To evaluate all flags of '{environment}' would take up to {total} steps, more than {most}; \
                 make rules simpler, or archive flags. Most steps take {largest}"
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

    /// The use of everything but the flags.
    pub(crate) fn around(&self, measure: Measure) -> usize {
        match measure {
            Measure::Bytes => self.bulk.around(),
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
        sizes.fold(self.around(measure), usize::saturating_add)
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
            // An operator is a step or two, and its operands may have to be converted.
            Measure::Steps => {
                let costly = usize::try_from(EVALUATION_STEPS).unwrap_or(usize::MAX);
                sums.costly.saturating_mul(costly)
                    + sums.simple
                    + sums.typed
                    + sums.values.saturating_mul(10)
                    + sums.definitions / 4
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
        // Equal ones by their keys.
        sizes.sort_by(|(a, key_a), (b, key_b)| b.cmp(a).then_with(|| key_a.cmp(key_b)));
        let told = sizes.iter().take(MOST_LARGEST);
        let told: Vec<String> = told
            .map(|(size, key)| format!("'{key}' ({size})"))
            .collect();
        match sizes.len().saturating_sub(told.len()) {
            0 => told.join(", "),
            more => format!("{} and {more} other flags", told.join(", ")),
        }
    }
}

/// How large the answer with all flags of an environment could become when that is too large, and a
/// sentence about it. An environment that had `known` bytes before the limit existed may keep them.
pub(crate) fn too_large<'a>(
    environment: &str,
    flags: impl Iterator<Item = (&'a FlagKey, &'a Flag)> + Clone,
    settings: &Settings,
    known: usize,
) -> Option<(usize, String)> {
    let (scale, measure) = (Scale::with(settings), Measure::Bytes);
    let total = scale.of_all(measure, flags.clone());
    (total > measure.most().max(known)).then(|| {
        let largest = scale.largest(measure, flags);
        (total, measure.message(environment, total, &largest))
    })
}

/// Why flags and settings of an environment take too much memory or work, when together they do, and more
/// than before.
pub(crate) fn check_together(
    environment: &str,
    before: Option<(&BTreeMap<FlagKey, Flag>, &Settings)>,
    after: (&BTreeMap<FlagKey, Flag>, &Settings),
) -> Option<String> {
    let before = before.map(|(flags, settings)| (flags.iter(), settings));
    let measures = &[Measure::Values, Measure::Steps];
    let found = too_much(measures, environment, before, (after.0.iter(), after.1));
    found.map(|(_, message)| message)
}

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
        let was = || {
            let before = before.as_ref();
            before.map_or(0, |(flags, scale)| scale.of_all(measure, flags.clone()))
        };
        (total > measure.most() && total > was()).then(|| {
            let largest = scale.largest(measure, flags.clone());
            (measure, measure.message(environment, total, &largest))
        })
    })
}
