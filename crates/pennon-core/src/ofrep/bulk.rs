//! Evaluation of one flag, or of all flags that the caller may see.

use std::sync::Arc;

use lambda_http::http::StatusCode;
use pennon_eval::{Context, RequestFuel};
use serde::Serialize;
use serde_json::{Map, Value};

use super::api_client::ApiClient;
use crate::counts::Tally;
use crate::http::{
    ETag, Incoming, MAX_RESPONSE_SIZE, Response, json, json_body, not_modified, replace_largest,
    size_above_limit, with_etag,
};
use crate::ofrep_format::{Code, Failure, FailureItem, Item, without_nested_values};
use crate::snapshot::fragments::{self, BodyText, Choice, Fragments};
use crate::timestamp::unix_seconds;

/// An item of a bulk response: a value, or the reason why there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Value(Item<'a>),
    Failure(FailureItem<'a>),
}

/// The body of a response with all flags, as values.
#[derive(Debug, Serialize)]
struct Bulk<'a> {
    flags: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    metadata: Map<String, Value>,
}

/// What a response serves, for the counts.
enum Served<'a> {
    Choices(&'a Arc<Fragments>, Vec<Choice>),
    Values(Bulk<'a>),
}

impl Item<'_> {
    /// The response.
    ///
    /// # Errors
    /// If the response exceeds the limit of Lambda. Only a value written by SQL, or before the limit existed, can.
    pub fn answer(&self) -> Result<Response, Failure> {
        let response = json(StatusCode::OK, self);
        match size_above_limit(&response) {
            None => Ok(response),
            Some(size) => Err(too_large(self.key, size)),
        }
    }
}

/// The failure of a flag whose value exceeds the limit of a response.
fn too_large(key: &str, size: usize) -> Failure {
    let details = format!(
        "The value of flag '{key}' is too large: it takes {size} bytes, more than the limit of {MAX_RESPONSE_SIZE}; make \
         its variants smaller"
    );
    Failure::new(Code::General, details)
}

impl Bulk<'_> {
    /// The flags with a value, and the variants served.
    fn served(&self) -> impl Iterator<Item = (&str, &str)> {
        self.flags.iter().filter_map(|entry| match entry {
            Entry::Value(item) => Some(item.served()),
            Entry::Failure(_) => None,
        })
    }

    /// The response, 200. If it exceeds the limit of Lambda, failures replace the largest values until the others fit.
    /// If that is not enough, the response is 500 with the reason. The gateway would return 500 without a reason.
    fn answer(&mut self) -> Response {
        let response = json(StatusCode::OK, self);
        let Some(size) = size_above_limit(&response) else {
            return response;
        };
        drop(response);
        self.omit_largest(size);
        let response = json(StatusCode::OK, self);
        let Some(size) = size_above_limit(&response) else {
            return response;
        };
        let details = format!(
            "All flags together take {size} bytes, more than the limit of {MAX_RESPONSE_SIZE}; evaluate single flags, \
             or make variants smaller"
        );
        tracing::error!(
            domain = "config",
            size,
            "the flags exceed the limit of a response"
        );
        Failure::general(StatusCode::INTERNAL_SERVER_ERROR, details).answer(None)
    }

    /// Replaces the largest values by failures until a response of this size fits. A value stays if its failure, which
    /// contains the key twice, would not be smaller.
    fn omit_largest(&mut self, size: usize) {
        let omitted = replace_largest(size, self.flags.iter_mut(), |entry, bytes| {
            let Entry::Value(Item { key, .. }) = entry else {
                return None;
            };
            let details = format!(
                "The value of flag '{key}' ({bytes} bytes) was omitted: all flags together exceed the limit of \
                 {MAX_RESPONSE_SIZE} bytes; evaluate this flag by itself, or make variants smaller"
            );
            let failure = Failure::new(Code::General, details);
            Some(Entry::Failure(failure.into_item(key)))
        });
        for (entry, size) in omitted {
            let Entry::Value(Item { key, .. }) = entry else {
                continue;
            };
            tracing::error!(
                domain = "config",
                flag_key = key,
                size,
                "a value was omitted because the flags exceed the limit of a response"
            );
        }
    }
}

impl ApiClient {
    /// Evaluates one flag.
    ///
    /// # Errors
    /// The reason why the flag has no value.
    pub fn evaluate<'a>(&'a self, key: &'a str, context: &Context) -> Result<Item<'a>, Failure> {
        let snapshot = &self.reading.snapshot;
        let flag = snapshot.flags.get(key);
        if !flag.is_some_and(|flag| snapshot.shows(flag, self.kind)) {
            return Err(Failure::new(
                Code::FlagNotFound,
                format!("Flag '{key}' not found"),
            ));
        }
        self.item(key, context, unix_seconds(), &mut RequestFuel::default())
    }

    /// The response with all flags that the caller may see, in the order of their keys, or 304 if the caller has the
    /// response with this tag. Counts what is served.
    ///
    /// The response is put together from prepared parts. Only if it is too large, it is made from values, which can be
    /// omitted.
    #[must_use]
    pub fn answer_all(
        &self,
        incoming: &Incoming,
        context: &Context,
        tag: &ETag,
        tally: &Tally,
    ) -> Response {
        self.answer(incoming, tag, tally, |as_json_string| {
            let now = unix_seconds();
            let (body, choices) = self.write_all(context, now, as_json_string);
            let response = json_body(StatusCode::OK, body);
            if size_above_limit(&response).is_none() {
                return (response, Served::Choices(self.items(), choices));
            }
            let mut bulk = self.evaluate_all(context, now);
            (bulk.answer(), Served::Values(bulk))
        })
    }

    /// The response with an object of booleans by flag key, without flags of other types and flags that the caller may
    /// not see. Otherwise like [`Self::answer_all`].
    #[must_use]
    pub fn list_switches(
        &self,
        incoming: &Incoming,
        context: &Context,
        tag: &ETag,
        tally: &Tally,
    ) -> Response {
        self.answer(incoming, tag, tally, |as_json_string| {
            let (body, choices) = self.write_switches(context, unix_seconds(), as_json_string);
            let response = json_body(StatusCode::OK, body);
            (response, Served::Choices(self.switches(), choices))
        })
    }

    /// Evaluates and counts, unless the caller has the response. If a rule reads the time, flags are always evaluated,
    /// because the tag then depends on the body. The argument of `evaluate` says whether to write a JSON string.
    fn answer<'a>(
        &self,
        incoming: &Incoming,
        tag: &ETag,
        tally: &Tally,
        evaluate: impl FnOnce(bool) -> (Response, Served<'a>),
    ) -> Response {
        let depends_on_time = self.reading.snapshot.rules().depends_on_time();
        if !depends_on_time && incoming.has_current(tag) {
            return not_modified(tag);
        }
        // If a rule reads the time, the tag contains a hash of the body, and must not depend on how the body is sent.
        let as_json_string = !depends_on_time && incoming.takes_json_string();
        let (response, served) = evaluate(as_json_string);
        if response.status() != StatusCode::OK {
            return response;
        }
        let response = with_etag(response, tag, depends_on_time, |tag| {
            incoming.has_current(tag)
        });
        if response.status() != StatusCode::NOT_MODIFIED {
            match served {
                Served::Choices(fragments, choices) => {
                    tally.add_choices(&self.environment, fragments, &choices);
                }
                Served::Values(bulk) => tally.add(&self.environment, bulk.served()),
            }
        }
        response
    }

    fn items(&self) -> &Arc<Fragments> {
        self.reading.snapshot.items()
    }

    fn switches(&self) -> &Arc<Fragments> {
        self.reading.snapshot.switches()
    }

    fn write_switches(
        &self,
        context: &Context,
        now: i64,
        as_json_string: bool,
    ) -> (BodyText, Vec<Choice>) {
        let snapshot = &self.reading.snapshot;
        let (fragments, rules) = (self.switches(), snapshot.rules());
        let mut body = fragments.begin("{", as_json_string);
        let mut served = Vec::with_capacity(snapshot.flags.len());
        for flag in fragments.visible(self.kind) {
            if let Some(on) = rules.is_on_at(flag, context, now) {
                let choice = fragments.choice(flag, Some(usize::from(on)));
                fragments.write(choice, None, served.is_empty(), &mut body);
                served.push(choice);
            }
        }
        fragments.end(&mut body);
        (body, served)
    }

    /// The body with all flags, and the choices in it.
    fn write_all(
        &self,
        context: &Context,
        now: i64,
        as_json_string: bool,
    ) -> (BodyText, Vec<Choice>) {
        let snapshot = &self.reading.snapshot;
        let (fragments, rules) = (self.items(), snapshot.rules());
        let mut fuel = RequestFuel::default();
        let mut body = fragments.begin("{\"flags\":[", as_json_string);
        let mut served = Vec::with_capacity(snapshot.flags.len());
        let mut is_first = true;
        for flag in fragments.visible(self.kind) {
            match rules.decide_at(flag, context, now, &mut fuel) {
                Ok(decision) => {
                    let choice = fragments.choice(flag, decision.variant);
                    fragments.write(choice, Some(decision.reason), is_first, &mut body);
                    served.push(choice);
                }
                Err(error) => {
                    if !is_first {
                        body.push(",");
                    }
                    let key = fragments.key(flag);
                    let failure = Failure::of_evaluation(&key, &error, self.kind);
                    body.push(&fragments::json(&failure.into_item(&key)));
                }
            }
            is_first = false;
        }
        fragments.end(&mut body);
        (body, served)
    }

    /// Evaluates all flags that the caller may see, in the order of their keys.
    fn evaluate_all(&self, context: &Context, now: i64) -> Bulk<'_> {
        let mut fuel = RequestFuel::default();
        let snapshot = &self.reading.snapshot;
        let visible = snapshot
            .flags
            .iter()
            .filter(|(_, flag)| snapshot.shows(flag, self.kind));
        let flags = visible.map(|(key, _)| {
            let key = key.as_str();
            match self.item(key, context, now, &mut fuel) {
                Ok(item) => Entry::Value(item),
                Err(failure) => Entry::Failure(failure.into_item(key)),
            }
        });
        Bulk {
            flags: flags.collect(),
            metadata: without_nested_values(&snapshot.settings.metadata),
        }
    }

    fn item<'a>(
        &'a self,
        key: &'a str,
        context: &Context,
        now: i64,
        fuel: &mut RequestFuel,
    ) -> Result<Item<'a>, Failure> {
        let evaluation = self
            .reading
            .snapshot
            .rules()
            .evaluate_within(key, context, now, fuel)
            .map_err(|error| Failure::of_evaluation(key, &error, self.kind))?;
        Ok(Item {
            key,
            value: evaluation.value,
            reason: evaluation.reason,
            variant: evaluation.variant,
            metadata: without_nested_values(evaluation.metadata),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use pennon_eval::{Flag, FlagKey, Override, Rollout, Settings};
    use serde_json::json;

    use super::*;
    use crate::environment::Environment;
    use crate::flag_sums::FlagSums;
    use crate::key_kind::KeyKind;
    use crate::ofrep_format::BulkSize;
    use crate::ofrep_format::examples::{key, settings, typed};
    use crate::service::{Reading, Source};
    use crate::snapshot::Snapshot;
    use crate::telemetry::CacheOutcome;
    use crate::wire_size::wire_size;

    fn sums(flags: &BTreeMap<FlagKey, Flag>) -> FlagSums {
        let text = |flag: &Flag| {
            let definition = flag.definition.as_ref();
            definition.map_or(0, |one| json!(one).to_string().len())
        };
        FlagSums {
            simple: flags
                .values()
                .filter(|flag| flag.definition.is_none())
                .count(),
            typed: flags
                .values()
                .filter(|flag| flag.definition.is_some())
                .count(),
            keys: flags.keys().map(|key| key.as_str().len()).sum(),
            definitions: flags.values().map(text).sum(),
            ..FlagSums::default()
        }
    }

    #[test]
    fn no_response_exceeds_the_bound_and_the_bound_from_sums_is_never_lower() {
        let quotes = "\"\\\n\u{1}".repeat(50);
        let half = Rollout::parse(50).expect("in range");
        let flags = BTreeMap::from([
            (
                key("simple"),
                Flag {
                    enabled: true,
                    rollout_percentage: half,
                    ..Flag::default()
                },
            ),
            (
                key("\"\u{1}\\"),
                Flag {
                    enabled: true,
                    rollout_percentage: half,
                    ..Flag::default()
                },
            ),
            (key("off"), Flag::default()),
            (
                key("text"),
                typed(&json!({
                    "variants": {"short": "a", (quotes.as_str()): quotes},
                    "defaultVariant": quotes,
                    "metadata": {"owner": quotes, "deep": {"not": "shown"}},
                })),
            ),
            (
                key("object"),
                typed(&json!({
                    "variants": {"o": {"list": [1, 2.0, null, "x"]}, "p": {}},
                    "defaultVariant": "p",
                    "targeting": {"if": [{"var": "beta"}, "o", {"var": "named"}]},
                })),
            ),
        ]);
        for metadata in [json!({}), json!({"flagSetId": "ours", "owner": "\"us\""})] {
            let settings = settings(&metadata);
            let size = BulkSize::with(&settings);
            let bound = size.of_all(flags.iter());
            assert!(size.at_most(sums(&flags)) >= bound);
            let snapshot = Arc::new(Snapshot {
                flags: flags
                    .iter()
                    .map(|(key, flag)| (key.clone(), Arc::new(flag.clone())))
                    .collect(),
                settings: settings.clone(),
                ..Snapshot::empty()
            });
            let caller = ApiClient {
                environment: Environment::production(),
                kind: KeyKind::Server,
                reading: Reading {
                    snapshot,
                    source: Source::Memory,
                    cache: CacheOutcome::Hit,
                },
            };
            for context in [
                json!({}),
                json!({"targetingKey": "alice"}),
                json!({"targetingKey": "alice", "beta": true}),
                json!({"targetingKey": "alice", "named": "\u{1}".repeat(100)}),
            ] {
                let context = Context::parse(context).expect("a context");
                let sent = wire_size(&caller.evaluate_all(&context, 0));
                assert!(sent <= bound, "{sent} bytes exceed the bound {bound}");
                assert!(bound < sent + 5 * 800, "{bound} is far above {sent}");
            }
        }
    }

    /// A client with a server key.
    fn server(flags: &BTreeMap<FlagKey, Flag>) -> ApiClient {
        let flags = flags.iter();
        let snapshot = Snapshot {
            flags: flags
                .map(|(key, flag)| (key.clone(), Arc::new(flag.clone())))
                .collect(),
            ..Snapshot::empty()
        };
        ApiClient {
            environment: Environment::production(),
            kind: KeyKind::Server,
            reading: Reading {
                snapshot: Arc::new(snapshot),
                source: Source::Memory,
                cache: CacheOutcome::Hit,
            },
        }
    }

    /// Simple flags at 50 %, with keys of this length.
    fn partial_rollouts(number: usize, key_length: usize) -> BTreeMap<FlagKey, Flag> {
        let flag = Flag {
            enabled: true,
            rollout_percentage: Rollout::parse(50).expect("in range"),
            ..Flag::default()
        };
        let keys = (0..number).map(|number| key(&format!("{number:0key_length$}")));
        keys.map(|key| (key, flag.clone())).collect()
    }

    #[test]
    fn no_response_exceeds_the_bound_once_the_request_has_no_steps_left() {
        let flags = partial_rollouts(100, 10);
        let bound = BulkSize::with(&Settings::default()).of_all(flags.iter());
        // The steps of five flags are more than a request may take.
        let long = json!({"targetingKey": "a".repeat(16 * 1_100_000)});
        let context = Context::parse(long).expect("a context");
        let client = server(&flags);
        let bulk = client.evaluate_all(&context, 0);
        assert_eq!(bulk.served().count(), 4);
        let sent = wire_size(&bulk);
        assert!(sent <= bound, "{sent} bytes exceed the bound {bound}");
    }

    #[test]
    fn a_failure_that_replaces_a_response_which_is_too_large_has_no_etag() {
        // Each failure contains the key twice.
        let client = server(&partial_rollouts(1_300, 2_400));
        let tag = ETag::of(client.reading.snapshot.revision, &client.environment);
        let (incoming, tally) = (Incoming::default(), Tally::default());
        let response = client.answer_all(&incoming, &Context::default(), &tag, &tally);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers().get("etag"), None);
    }

    #[test]
    fn a_value_whose_failure_would_be_larger_stays_and_others_are_omitted() {
        let text = |length: usize| {
            let variants = json!({"a": "x".repeat(length)});
            typed(&json!({"variants": variants, "defaultVariant": "a"}))
        };
        let mut flags: BTreeMap<FlagKey, Flag> = (0..6_000)
            .map(|number| (key(&format!("{number:04}")), text(1_000)))
            .collect();
        let long = "k".repeat(1_000);
        flags.insert(key(&long), text(900));
        let client = server(&flags);
        let tag = ETag::of(client.reading.snapshot.revision, &client.environment);
        let (incoming, tally) = (Incoming::default(), Tally::default());
        let response = client.answer_all(&incoming, &Context::default(), &tag, &tally);
        assert_eq!(response.status(), StatusCode::OK);
        let mut bulk = client.evaluate_all(&Context::default(), 0);
        bulk.answer();
        assert!(bulk.served().count() > 5_000);
        assert!(bulk.served().any(|(key, _)| key == long));
    }

    /// Flags of all kinds, with texts that need escapes.
    fn flags() -> BTreeMap<FlagKey, Flag> {
        let simple = |percent: i64| Flag {
            enabled: true,
            rollout_percentage: Rollout::parse(percent).expect("in range"),
            ..Flag::default()
        };
        let unreadable =
            json!({"variants": {"a": 1}, "unreadable": {"text": "[]", "reason": "\"no\""}});
        let mut overridden =
            typed(&json!({"variants": {"b": 2.50, "a": 1e30}, "defaultVariant": "a"}));
        overridden.overrides = [
            ("alice".to_owned(), Override::Variant("b".to_owned())),
            ("bob".to_owned(), Override::Variant("gone".to_owned())),
            ("carol".to_owned(), Override::Unreadable),
        ]
        .into();
        BTreeMap::from([
            (key("a"), simple(100)),
            (key("partial"), simple(50)),
            (key("b\"\\\n\u{1}ä😀\u{2028}"), simple(0)),
            (key("off"), Flag::default()),
            (key("overridden"), overridden),
            (key("unreadable"), typed(&unreadable)),
            (
                key("switch"),
                typed(&json!({
                    "variants": {"yes": true, "no": false, "\"": true},
                    "targeting": {"if": [{"var": "beta"}, "yes", {"var": "named"}]},
                })),
            ),
            (
                key("object"),
                typed(&json!({
                    "variants": {"z\n": {"b": [1, null, "\"x\""], "a": {}}, "": "empty", "y": null},
                    "defaultVariant": "z\n",
                    "targeting": {"if": [{"var": "beta"}, "y", null]},
                    "metadata": {"owner": "\"us\"", "deep": {}, "serverOnly": true, "version": 2},
                })),
            ),
            (
                key("default"),
                typed(&json!({"variants": {"a": "x"}, "targeting": {"/": [1, {"var": "zero"}]}})),
            ),
        ])
    }

    #[test]
    fn prepared_responses_equal_those_made_from_values_and_count_the_same() {
        let contexts = [
            json!({}),
            json!({"targetingKey": "alice", "zero": 0}),
            json!({"targetingKey": "bob", "beta": true}),
            json!({"targetingKey": "carol", "named": "\"", "zero": 2}),
            json!({"targetingKey": "dora", "named": "no"}),
        ];
        for metadata in [
            json!({}),
            json!({"flagSetId": "\"ours\"", "owner": "them", "list": []}),
            json!({"serverOnly": true}),
        ] {
            let snapshot = Arc::new(Snapshot {
                flags: flags()
                    .into_iter()
                    .map(|(key, flag)| (key, Arc::new(flag)))
                    .collect(),
                settings: settings(&metadata),
                ..Snapshot::empty()
            });
            for (kind, context) in [KeyKind::Server, KeyKind::Client]
                .into_iter()
                .flat_map(|kind| contexts.iter().map(move |context| (kind, context)))
            {
                let caller = ApiClient {
                    environment: Environment::production(),
                    kind,
                    reading: Reading {
                        snapshot: Arc::clone(&snapshot),
                        source: Source::Memory,
                        cache: CacheOutcome::Hit,
                    },
                };
                let context = Context::parse(context.clone()).expect("a context");
                let bulk = caller.evaluate_all(&context, 7);
                let (body, served) = caller.write_all(&context, 7, false);
                assert_eq!(body.text, fragments::json(&bulk));
                let (as_json_string, _) = caller.write_all(&context, 7, true);
                assert_eq!(as_json_string.text, fragments::json(&body.text));
                let (by_name, by_number) = (Tally::default(), Tally::default());
                by_name.add(&caller.environment, bulk.served());
                by_number.add_choices(&caller.environment, snapshot.items(), &served);
                assert_eq!(by_number.take(), by_name.take());

                let visible = snapshot
                    .flags
                    .iter()
                    .filter(|(_, flag)| snapshot.shows(flag, kind));
                let values: BTreeMap<&str, bool> = visible
                    .filter_map(|(key, _)| {
                        let key = key.as_str();
                        Some((key, snapshot.rules().is_on(key, &context, 7)?))
                    })
                    .collect();
                let (body, served) = caller.write_switches(&context, 7, false);
                assert_eq!(body.text, fragments::json(&values));
                let (as_json_string, _) = caller.write_switches(&context, 7, true);
                assert_eq!(as_json_string.text, fragments::json(&body.text));
                let names = values
                    .iter()
                    .map(|(key, on)| (*key, if *on { "on" } else { "off" }));
                by_name.add(&caller.environment, names);
                by_number.add_choices(&caller.environment, snapshot.switches(), &served);
                assert_eq!(by_number.take(), by_name.take());
            }
        }
    }
}
