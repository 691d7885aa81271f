//! Flags and settings for tests.

use pennon_eval::{Flag, FlagKey, Settings};
use serde_json::{Value, json};

pub(crate) fn settings(metadata: &Value) -> Settings {
    serde_json::from_value(json!({ "metadata": metadata })).expect("settings")
}

pub(crate) fn typed(definition: &Value) -> Flag {
    Flag {
        enabled: true,
        definition: Some(serde_json::from_value(definition.clone()).expect("a definition")),
        ..Flag::default()
    }
}

pub(crate) fn key(text: &str) -> FlagKey {
    FlagKey::parse(text).expect("a key")
}
