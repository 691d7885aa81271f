//! Converts a simple flag to a boolean flag that flagd can evaluate.

use serde_json::{Map, json};

use crate::{Definition, Rollout};

/// The boolean flag with the same percentage. flagd selects users by its own hash: in a partial rollout they are the
/// same users only with [`Bucketing::Fractional`](crate::Bucketing::Fractional).
pub(super) fn boolean_definition(rollout: Rollout, salt: Option<&str>) -> Definition {
    let percent = rollout.percent();
    let is_on = percent == 100;
    Definition {
        variants: [("on", true), ("off", false)]
            .into_iter()
            .map(|(name, on)| (name.to_owned(), on.into()))
            .collect(),
        default_variant: Some(if is_on { "on" } else { "off" }.to_owned()),
        targeting: (1..100).contains(&percent).then(|| {
            let buckets = [json!(["on", percent]), json!(["off", 100 - percent])];
            match salt.filter(|salt| !salt.is_empty()) {
                None => json!({ "fractional": buckets }),
                // Without the condition, flagd would put all callers without a targeting key into the same bucket.
                Some(salt) => {
                    let key = json!({"var": "targetingKey"});
                    let by = json!({"cat": [salt, key]});
                    let [on, off] = buckets;
                    json!({"if": [key, {"fractional": [by, on, off]}, null]})
                }
            }
        }),
        metadata: Map::new(),
        unreadable: None,
    }
}
