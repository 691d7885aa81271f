//! How often which variant was given, for as long as the process runs. A laptop needs no longer memory,
//! and a file that is written with every evaluation would be of little use to whoever edits it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pennon_eval::FlagKey;

use super::EmbeddedStore;
use crate::counts::Counts;
use crate::environment::Environment;
use crate::error::Error;
use crate::store::Usage;

/// Evaluations by environment and flag.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<String, BTreeMap<FlagKey, Usage>>);

impl EmbeddedStore {
    /// Nobody hands over a batch twice here.
    pub(in crate::store) fn count(
        &self,
        _batch: &str,
        counts: &Counts,
        until: SystemTime,
    ) -> Result<bool, Error> {
        let mut inner = self.current()?;
        for one in counts.iter() {
            let Ok(key) = FlagKey::parse(one.flag) else {
                continue;
            };
            let flags = inner.counted.0.entry(one.environment.to_owned());
            let usage = flags.or_default().entry(key).or_default();
            usage.evaluations = usage.evaluations.saturating_add(one.count);
            usage.last_evaluated_at = usage.last_evaluated_at.max(Some(until));
        }
        Ok(true)
    }

    pub(in crate::store) fn usage(
        &self,
        environment: &Environment,
    ) -> Result<BTreeMap<FlagKey, Usage>, Error> {
        let inner = self.current()?;
        Ok(inner
            .counted
            .0
            .get(environment.as_str())
            .cloned()
            .unwrap_or_default())
    }
}
