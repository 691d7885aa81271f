//! Writes an environment as a flagd file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::fields::{
    BUCKETING, DESCRIPTION, META_ANONYMOUS, META_BUCKETING, META_FRACTIONAL, META_ROLLOUT,
    META_SALT, OVERRIDES, RESERVED_FLAG_METADATA, RESERVED_SETTINGS_METADATA, ROLLOUT, SALT, STATE,
    UNREADABLE,
};
use super::simple::boolean_definition;
use crate::{Bucketing, Flag, FlagKey, FractionalVersion, Settings};

/// The form of a written file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For flagd and for imports: simple flags become boolean flags with metadata. Overrides are omitted, because they
    /// contain ids of people and the file may be shared.
    Export,
    /// For `flags.json`: simple flags in their short form, and overrides.
    Local,
}

/// Writes an environment as a flagd file. Flags with an unreadable definition are omitted and listed in the field
/// `pennon.unreadable`. Metadata whose name is reserved for fields of Pennon is omitted.
#[must_use]
pub fn write(flags: &BTreeMap<FlagKey, Flag>, settings: &Settings, form: Form) -> Value {
    let is_unreadable = |flag: &Flag| {
        let definition = flag.definition.as_ref();
        definition.is_some_and(|definition| definition.unreadable.is_some())
    };
    let (unreadable, readable): (Vec<_>, Vec<_>) =
        flags.iter().partition(|(_, flag)| is_unreadable(flag));
    let flags: Map<String, Value> = readable
        .into_iter()
        .map(|(key, flag)| (key.to_string(), write_flag(flag, form)))
        .collect();
    let mut metadata = without_reserved(&settings.metadata, &RESERVED_SETTINGS_METADATA);
    match settings.fractional {
        FractionalVersion::V2 => {
            metadata.insert(META_FRACTIONAL.to_owned(), "v2".into());
        }
        FractionalVersion::V3 => {}
    }
    if let Some(anonymous) = settings.anonymous_rollout {
        metadata.insert(META_ANONYMOUS.to_owned(), anonymous.into());
    }
    if let Some(bucketing) = settings.bucketing {
        metadata.insert(META_BUCKETING.to_owned(), bucketing.name().into());
    }
    let mut file = settings.other.clone();
    file.insert("flags".to_owned(), Value::Object(flags));
    if !settings.evaluators.is_empty() {
        let evaluators = settings.evaluators.clone();
        file.insert("$evaluators".to_owned(), Value::Object(evaluators));
    }
    if !metadata.is_empty() {
        file.insert("metadata".to_owned(), Value::Object(metadata));
    }
    if !unreadable.is_empty() || settings.unreadable.is_some() {
        let keys: Vec<&FlagKey> = unreadable.into_iter().map(|(key, _)| key).collect();
        let omitted = json!({ "flags": keys, "settings": settings.unreadable.is_some() });
        file.insert(UNREADABLE.to_owned(), omitted);
    }
    Value::Object(file)
}

fn write_flag(flag: &Flag, form: Form) -> Value {
    let mut fields = Map::new();
    let state = if flag.enabled { "ENABLED" } else { "DISABLED" };
    fields.insert(STATE.to_owned(), state.into());
    let percent = flag.rollout_percentage.percent();
    let definition = match (&flag.definition, form) {
        (Some(definition), _) => Some(Cow::Borrowed(definition)),
        (None, Form::Export) => {
            let simple = boolean_definition(flag.rollout_percentage, flag.salt.as_deref());
            Some(Cow::Owned(simple))
        }
        (None, Form::Local) => None,
    };
    let salt = flag.salt.as_deref();
    let bucketing = flag.bucketing.map(Bucketing::name);
    match definition {
        None => {
            fields.insert(ROLLOUT.to_owned(), percent.into());
            fields.extend(salt.map(|salt| (SALT.to_owned(), salt.into())));
            fields.extend(bucketing.map(|name| (BUCKETING.to_owned(), name.into())));
            write_description(flag, &mut fields);
        }
        Some(definition) => {
            let variants = definition.variants.clone();
            fields.insert("variants".to_owned(), Value::Object(variants));
            if let Some(name) = &definition.default_variant {
                fields.insert("defaultVariant".to_owned(), name.as_str().into());
            }
            if let Some(targeting) = &definition.targeting {
                fields.insert("targeting".to_owned(), targeting.clone());
            }
            write_description(flag, &mut fields);
            let mut metadata = without_reserved(&definition.metadata, &RESERVED_FLAG_METADATA);
            if flag.definition.is_none() {
                metadata.insert(META_ROLLOUT.to_owned(), percent.into());
            }
            metadata.extend(salt.map(|salt| (META_SALT.to_owned(), salt.into())));
            metadata.extend(bucketing.map(|name| (META_BUCKETING.to_owned(), name.into())));
            if !metadata.is_empty() {
                fields.insert("metadata".to_owned(), Value::Object(metadata));
            }
        }
    }
    for (name, value) in &flag.other {
        fields.entry(name).or_insert_with(|| value.clone());
    }
    if form == Form::Local && !flag.overrides.is_empty() {
        fields.insert(OVERRIDES.to_owned(), json!(flag.overrides));
    }
    Value::Object(fields)
}

/// Metadata without fields that a reader of the file would take for fields of Pennon. Earlier versions stored such
/// metadata.
fn without_reserved(metadata: &Map<String, Value>, reserved: &[&str]) -> Map<String, Value> {
    let mut metadata = metadata.clone();
    metadata.retain(|name, _| !reserved.contains(&name.as_str()));
    metadata
}

fn write_description(flag: &Flag, fields: &mut Map<String, Value>) {
    if let Some(text) = &flag.description {
        fields.insert(DESCRIPTION.to_owned(), text.as_str().into());
    }
}
