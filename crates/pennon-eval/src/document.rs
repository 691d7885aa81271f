//! The document with everything that a program needs to evaluate flags itself: Pennon's own format of `GET /v1/flags`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{EvaluationDefaults, Flag, FlagKey, Ruleset, Settings};

/// All flags of an environment at one revision, overrides included.
///
/// A reader rejects a document with an unknown field, because the field could change a value. A version of Pennon
/// that adds a field to [`Flag`] or [`Settings`] that changes values must therefore also add one here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document<'a> {
    /// The revision of this state. A later state has a higher revision.
    pub revision: i64,
    /// The name of the environment.
    pub environment: Cow<'a, str>,
    /// The settings of the environment.
    pub settings: Cow<'a, Settings>,
    /// The defaults of the installation, for settings that the environment does not have.
    pub defaults: EvaluationDefaults,
    /// Every flag that is not archived.
    pub flags: Cow<'a, BTreeMap<FlagKey, Flag>>,
    /// Whether any flag has its own bucketing. Earlier versions of the extension would ignore it, so they must reject
    /// the document: they do not know this field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_bucketing: bool,
}

impl<'a> Document<'a> {
    /// The document of an environment.
    #[must_use]
    pub fn new(
        revision: i64,
        environment: &'a str,
        settings: &'a Settings,
        defaults: EvaluationDefaults,
        flags: &'a BTreeMap<FlagKey, Flag>,
    ) -> Self {
        Self {
            revision,
            environment: Cow::Borrowed(environment),
            settings: Cow::Borrowed(settings),
            defaults,
            own_bucketing: flags.values().any(|flag| flag.bucketing.is_some()),
            flags: Cow::Borrowed(flags),
        }
    }
}

impl Document<'_> {
    /// The content type, and the value of `Accept` that requests it.
    pub const CONTENT_TYPE: &'static str = "application/vnd.pennon.flags+json";

    /// Parses a document.
    ///
    /// # Errors
    /// If it is not JSON, a field of [`Document`] is missing or unknown, or a value is invalid.
    pub fn parse(bytes: &[u8]) -> Result<Document<'static>, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Compiles the flags.
    #[must_use]
    pub fn compile(&self) -> Ruleset {
        Ruleset::compile(&self.flags, &self.settings, self.defaults)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Context, UserId};

    fn example() -> Value {
        json!({
            "revision": 1_764_000_000_042_i64,
            "environment": "production",
            "settings": {"fractional": "v2", "bucketing": "sha256", "metadata": {"team": "web"}},
            "defaults": "new",
            "flags": {
                "simple": {
                    "enabled": true, "rolloutPercentage": 25, "description": null, "salt": "s",
                    "overrides": {"alice": "include", "bob": "exclude", "carol": {"variant": "x"}},
                },
                "typed": {
                    "enabled": true, "rolloutPercentage": 0, "description": "a \"typed\" flag",
                    "definition": {
                        "variants": {"b": 0.1, "a": {"z": 1, "y": [null, 1e300]}},
                        "defaultVariant": "a",
                        "targeting": {"if": [{"==": [{"var": "plan"}, "pro"]}, "b", null]},
                    },
                },
            },
        })
    }

    #[test]
    fn a_serialised_document_is_parsed_again() {
        let text = example().to_string();
        let document = Document::parse(text.as_bytes()).expect("a document");
        let written = serde_json::to_string(&document).expect("serialises");
        assert_eq!(written, text);
        assert_eq!(
            Document::parse(written.as_bytes()).expect("again"),
            document
        );
        assert!(!document.own_bucketing);
        let unreadable = Document {
            defaults: EvaluationDefaults::Unreadable,
            ..document
        };
        let written = serde_json::to_vec(&unreadable).expect("serialises");
        assert_eq!(Document::parse(&written).expect("again"), unreadable);
    }

    #[test]
    fn a_document_with_an_unknown_or_missing_field_is_rejected() {
        let rejected = |change: fn(&mut Value)| {
            let mut document = example();
            change(&mut document);
            let error = Document::parse(document.to_string().as_bytes());
            error.expect_err("rejected").to_string()
        };
        let unknown = rejected(|document| document["segments"] = json!({}));
        assert!(unknown.contains("unknown field `segments`"), "{unknown}");
        for field in ["revision", "environment", "settings", "defaults", "flags"] {
            let mut document = example();
            document.as_object_mut().expect("an object").remove(field);
            let error = Document::parse(document.to_string().as_bytes());
            let error = error.expect_err("rejected").to_string();
            assert!(
                error.contains(&format!("missing field `{field}`")),
                "{error}"
            );
        }
        rejected(|document| document["defaults"] = json!("newer"));
        rejected(|document| document["flags"][""] = json!({}));
        rejected(|document| document["flags"]["simple"]["rolloutPercentage"] = json!(101));
    }

    #[test]
    fn a_document_with_the_bucketing_of_a_flag_has_a_field_that_earlier_readers_reject() {
        let mut document = example();
        for (bucketing, is_marked) in [(None, false), (Some("sha256"), true)] {
            if let Some(bucketing) = bucketing {
                document["flags"]["simple"]["bucketing"] = json!(bucketing);
            }
            let parsed = Document::parse(document.to_string().as_bytes()).expect("a document");
            let new = Document::new(
                parsed.revision,
                &parsed.environment,
                &parsed.settings,
                parsed.defaults,
                &parsed.flags,
            );
            let written = json!(new);
            assert_eq!(written.get("own_bucketing").is_some(), is_marked);
            let again = Document::parse(written.to_string().as_bytes()).expect("again");
            assert_eq!(again.flags, parsed.flags);
        }
    }

    #[test]
    fn a_document_evaluates_with_the_settings_and_defaults_that_it_contains() {
        let document = Document::parse(example().to_string().as_bytes()).expect("a document");
        let rules = document.compile();
        let context: Value = json!({"targetingKey": "carol", "plan": "pro"});
        let context = Context::parse(context).expect("a context");
        let evaluation = rules.evaluate("typed", &context, 0).expect("a value");
        assert_eq!(evaluation.value, Some(&json!(0.1)));
        // This user is in a bucket below 25 only by SHA-256 with the salt.
        let user = UserId::parse("user-1");
        let is_on = |user: Option<&UserId>| rules.is_on("simple", &Context::of(user), 0);
        assert_eq!(is_on(user.as_ref()), Some(true));
        // With the defaults `existing`, the flag would be on without a user.
        assert_eq!(is_on(None), Some(false));
    }
}
