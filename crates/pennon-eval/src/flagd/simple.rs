//! A simple flag as the boolean flag that flagd evaluates.

use serde_json::{Map, json};

use crate::{Definition, Rollout};

/// What a simple flag is in flagd's terms: as many callers get `true`, placed by flagd's hash. They are
/// the same as here where the environment has [`Bucketing::Fractional`](crate::Bucketing::Fractional).
pub(super) fn simple(rollout: Rollout, salt: Option<&str>) -> Definition {
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
                // Without the condition, flagd would place all callers without a key together.
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
