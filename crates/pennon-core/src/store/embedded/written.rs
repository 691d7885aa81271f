//! Flags as people write them into the file. A name that means nothing is most likely a mistake, and
//! would be gone with the next change that is written; so nothing is passed over.

use std::collections::BTreeMap;

use pennon_eval::{Definition, Flag, FlagKey, Override, Rollout};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

/// A flag.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenFlag {
    enabled: bool,
    rollout_percentage: Rollout,
    description: Option<String>,
    salt: Option<String>,
    definition: Option<WrittenDefinition>,
    overrides: BTreeMap<String, Override>,
    other: Map<String, Value>,
}

/// What a flag is beyond a switch.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenDefinition {
    variants: Map<String, Value>,
    default_variant: Option<String>,
    targeting: Option<Value>,
    metadata: Map<String, Value>,
}

/// The flags of the environment of this name.
pub(super) struct FlagsOf<'a>(pub(super) &'a str);

impl<'de> DeserializeSeed<'de> for FlagsOf<'_> {
    type Value = BTreeMap<FlagKey, Flag>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// Reads flag by flag, so that a mistake is reported with the flag that it is in.
impl<'de> Visitor<'de> for FlagsOf<'_> {
    type Value = BTreeMap<FlagKey, Flag>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "an object with the flags of '{}'", self.0)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let environment = self.0;
        let in_environment =
            |error: M::Error| M::Error::custom(format!("in '{environment}': {error}"));
        let mut flags = BTreeMap::new();
        while let Some(key) = map.next_key::<FlagKey>().map_err(in_environment)? {
            let in_flag = |error: M::Error| {
                M::Error::custom(format!("flag '{key}' of '{environment}': {error}"))
            };
            let written: WrittenFlag = map.next_value().map_err(in_flag)?;
            let definition = written.definition.map(|definition| Definition {
                variants: definition.variants,
                default_variant: definition.default_variant,
                targeting: definition.targeting,
                metadata: definition.metadata,
            });
            if definition
                .as_ref()
                .is_some_and(|definition| definition.variants.is_empty())
            {
                return Err(in_flag(M::Error::custom(
                    "a definition must have a variant",
                )));
            }
            let flag = Flag {
                enabled: written.enabled,
                rollout_percentage: written.rollout_percentage,
                description: written.description,
                salt: written.salt,
                definition,
                overrides: written.overrides,
                other: written.other,
            };
            flags.insert(key, flag);
        }
        Ok(flags)
    }
}
