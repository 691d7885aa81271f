//! flagd files as they occur in practice: what an import accepts, keeps, does not change, and warns about.

use pennon_tests::api::Api;
use pennon_tests::response::Response;
use pennon_tests::rng::Rng;
use serde_json::{Map, Value, json};

const FLAGS: &str = "/api/admin/flags";
const SETTINGS: &str = "/api/admin/environments/production/settings";
const IMPORT: &str = "/api/admin/environments/production/import";
const EXPORT: &str = "/api/admin/environments/production/export";

/// A flag in flagd's format with additional fields.
fn flag(more: &Value) -> Value {
    let mut flag = json!({
        "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
    });
    let fields = flag.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().expect("an object"));
    flag
}

/// A flag with this targeting rule.
fn ruled(targeting: &Value) -> Value {
    flag(&json!({ "targeting": targeting }))
}

/// Imports a file after a dry run, whose response must be the same.
async fn import(api: &Api, query: &str, file: &Value) -> Value {
    let dry = format!("{IMPORT}?dryRun=true&{query}");
    let dry = api.admin("POST", &dry, file).await;
    assert_eq!(dry.status, 200, "{dry:?} on {}", api.store);
    let tag = dry.header("etag").expect("an ETag").to_owned();
    let done = api
        .admin_if(&tag, "POST", &format!("{IMPORT}?{query}"), file)
        .await;
    assert_eq!(done.status, 200, "{done:?} on {}", api.store);
    let mut response = dry.json();
    response["dryRun"] = json!(false);
    assert_eq!(done.json(), response, "on {}", api.store);
    response
}

/// The responses to an import that is rejected, and to its dry run.
async fn rejected_imports(api: &Api, query: &str, file: &str) -> [Response; 2] {
    let mut answers = Vec::new();
    for path in [
        format!("{IMPORT}?{query}"),
        format!("{IMPORT}?dryRun=true&{query}"),
    ] {
        let answer = api.admin_text(&path, file).await;
        assert_eq!(answer.status, 400, "{file} {answer:?} on {}", api.store);
        answers.push(answer);
    }
    answers.try_into().expect("two")
}

fn keys(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter()
        .filter_map(|entry| entry["key"].as_str())
        .collect()
}

fn pointers(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter()
        .filter_map(|entry| entry["pointer"].as_str())
        .collect()
}

/// The field errors of a rejection.
fn field_errors(answer: &Response) -> Map<String, Value> {
    let details = answer.json()["details"]["fieldErrors"].clone();
    details.as_object().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_description_and_unknown_fields_are_kept_and_exported() {
    for api in Api::of_both_kinds().await {
        let file = json!({
            "$schema": "https://flagd.dev/schema/v0/flags.json",
            "$comment": {"by": ["us"]},
            "flags": {
                "described": flag(&json!({"description": "Makes the cart slow"})),
                "typed": flag(&json!({"owner": {"team": ["shop"], "cost": 2.0}, "key": "t", "tags": null})),
                "odd": flag(&json!({"description": ["no", "text"]})),
                "simple": {
                    "state": "ENABLED",
                    "variants": {"on": true, "off": false},
                    "defaultVariant": "off",
                    "targeting": {"fractional": [["on", 5], ["off", 95]]},
                    "description": "For 5 %",
                    "metadata": {"pennon.rolloutPercentage": 5},
                    "owner": "us",
                },
            },
        });
        let response = import(&api, "", &file).await;
        assert_eq!(
            response["kept"],
            json!([
                "/$schema",
                "/$comment",
                "/flags/typed/owner",
                "/flags/typed/key",
                "/flags/typed/tags",
                "/flags/odd/description",
                "/flags/simple/owner"
            ]),
            "on {}",
            api.store
        );
        assert_eq!(response["warnings"], json!([]));
        assert_eq!(api.read(EXPORT).await.json(), file, "on {}", api.store);
        let described = api.read(&format!("{FLAGS}/described")).await.json();
        assert_eq!(described["description"], "Makes the cart slow");
        let simple = api.read(&format!("{FLAGS}/simple")).await.json();
        assert_eq!(
            (&simple["rolloutPercentage"], &simple["definition"]),
            (&json!(5), &Value::Null)
        );

        // Changes through the API, archiving and reverting keep the unknown fields.
        for key in ["typed", "simple"] {
            let path = format!("{FLAGS}/{key}");
            let body = json!({"description": "Another"});
            assert_eq!(api.admin("PATCH", &path, &body).await.status, 200);
            assert_eq!(
                api.admin_if("*", "DELETE", &path, &Value::Null)
                    .await
                    .status,
                200
            );
            let restore = format!("{path}/restore");
            assert_eq!(
                api.admin_if("*", "POST", &restore, &Value::Null)
                    .await
                    .status,
                200
            );
            let entries = api.read(&format!("{path}/audit")).await.json()["entries"].clone();
            let entries = entries.as_array().cloned().expect("entries");
            let imported = entries
                .iter()
                .find(|entry| entry["action"] == "flag.import");
            let back = json!({"auditId": imported.expect("an import")["id"]});
            let revert = format!("{path}/revert");
            let reverted = api.admin_if("*", "POST", &revert, &back).await;
            assert_eq!(reverted.status, 200, "{reverted:?} on {}", api.store);
        }
        assert_eq!(api.read(EXPORT).await.json(), file, "on {}", api.store);
        let again = import(&api, "", &file).await;
        assert_eq!(
            (&again["unchanged"], &again["settings"]),
            (&json!(4), &Value::Null)
        );
        // The unknown fields stay when a client writes a definition without them.
        let patch = json!({"definition": {"variants": {"on": true}}});
        api.admin_if("*", "PATCH", &format!("{FLAGS}/typed"), &patch)
            .await;
        let exported = api.read(EXPORT).await.json();
        assert_eq!(
            exported["flags"]["typed"]["owner"],
            file["flags"]["typed"]["owner"]
        );
    }
}

#[tokio::test]
async fn flags_may_be_an_array_of_objects_with_a_key() {
    for api in Api::of_both_kinds().await {
        let file = json!({"flags": [
            flag(&json!({"key": "b", "owner": "us"})),
            flag(&json!({"key": "a", "description": "First"})),
        ]});
        let response = import(&api, "", &file).await;
        assert_eq!(keys(&response["created"]), ["a", "b"]);
        assert_eq!(response["kept"], json!(["/flags/0/owner"]));
        let expected = json!({"flags": {
            "a": flag(&json!({"description": "First"})), "b": flag(&json!({"owner": "us"})),
        }});
        assert_eq!(api.read(EXPORT).await.json(), expected, "on {}", api.store);
        for (more, place) in [
            (
                json!({"key": "a", "variants": {"on": 1, "off": true}}),
                "/flags/0/variants/off",
            ),
            (
                json!({"key": "a", "description": "d".repeat(501)}),
                "/flags/0/description",
            ),
            (
                json!({"key": "a", "metadata": {"pennon.salt": ""}}),
                "/flags/0/metadata/pennon.salt",
            ),
            (
                json!({"key": "a", "overrides": {"alice": "include"}}),
                "/flags/0/overrides",
            ),
            (json!({"key": "x\ty"}), "/flags/0"),
            (json!({"key": ""}), "/flags/0"),
            (json!({}), "/flags/0/key"),
        ] {
            let file = json!({"flags": [flag(&more)]}).to_string();
            for answer in rejected_imports(&api, "", &file).await {
                let found = field_errors(&answer);
                assert!(
                    found.contains_key(place),
                    "{more} {found:?} on {}",
                    api.store
                );
            }
        }
        let twice = json!({"flags": [flag(&json!({"key": "a"})), flag(&json!({"key": "a"}))]});
        for answer in rejected_imports(&api, "", &twice.to_string()).await {
            assert!(
                field_errors(&answer).contains_key("/flags/1/key"),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_duplicate_key_anywhere_in_a_file_is_an_error_with_its_pointer() {
    for api in Api::of_both_kinds().await {
        let before = api.read(EXPORT).await.body;
        for (file, places) in [
            (
                r#"{"flags": {"a": {"state": "ENABLED", "variants": {"x": 1}}, "a": {"state": "DISABLED", "variants": {"x": 1}}}}"#,
                &["/flags/a"][..],
            ),
            (
                r#"{"flags": {"a": {"state": "ENABLED", "variants": {"x": 1, "\u0078": 2}}}}"#,
                &["/flags/a/variants/x"],
            ),
            (
                r#"{"flags": {"a": {"state": "ENABLED", "state": "DISABLED", "variants": {"x": 1}}}}"#,
                &["/flags/a/state"],
            ),
            (
                r#"{"flags": [{"key": "a", "key": "b", "state": "ENABLED", "variants": {"x": {"y": 1, "y": 1}}}]}"#,
                &["/flags/0/key", "/flags/0/variants/x/y"],
            ),
            (
                r#"{"flags": {}, "metadata": {"a": 1, "a": 1}, "flags": {}}"#,
                &["/metadata/a", "/flags"],
            ),
            (
                r#"{"flags": {}, "$evaluators": {"a/b": {}, "a/b": {}}}"#,
                &["/$evaluators/a~1b"],
            ),
        ] {
            for answer in rejected_imports(&api, "", file).await {
                let found = field_errors(&answer);
                let found: Vec<&str> = found.keys().map(String::as_str).collect();
                let mut places = places.to_vec();
                places.sort_unstable();
                assert_eq!(found, places, "{file} on {}", api.store);
            }
        }
        assert_eq!(api.read(EXPORT).await.body, before);
    }
}

#[tokio::test]
async fn a_setting_that_a_file_does_not_contain_stays_as_it_is() {
    let colour = json!({"flags": {"colour": {
        "state": "ENABLED",
        "variants": {"red": "r", "blue": "b", "green": "g"},
        "defaultVariant": "red",
        "targeting": {"fractional": [["red", 50], ["blue", 25], ["green", 25]]},
    }}});
    for api in Api::of_both_kinds().await {
        let staff = json!({"ends_with": [{"var": "email"}, "@example.com"]});
        let settings = json!({
            "fractional": "v2", "metadata": {"team": "shop"}, "evaluators": {"staff": staff},
        });
        assert_eq!(
            api.admin_if("*", "PUT", SETTINGS, &settings).await.status,
            200
        );
        let first = json!({"flags": {}, "$schema": "s", "metadata": {"team": "shop"}});
        import(&api, "", &first).await;
        let settings_now = async || {
            let mut now = api.read(SETTINGS).await.json();
            let fields = now.as_object_mut().expect("an object");
            fields.retain(|name, _| {
                ["fractional", "metadata", "evaluators"].contains(&name.as_str())
            });
            now
        };
        for mode in ["", "mode=merge"] {
            let response = import(&api, mode, &colour).await;
            assert_eq!(response["settings"], Value::Null, "on {}", api.store);
            assert_eq!(settings_now().await, settings, "on {}", api.store);
            assert_eq!(api.read(EXPORT).await.json()["$schema"], "s");
        }
        // A rule of the file may refer to an evaluator that is kept.
        let mut file = colour.clone();
        file["flags"]["colour"]["targeting"] = json!({"if": [{"$ref": "staff"}, "red"]});
        import(&api, "", &file).await;

        file["metadata"] = json!({"version": "3"});
        import(&api, "", &file).await;
        let mut expected = settings.clone();
        expected["metadata"] = json!({"version": "3"});
        assert_eq!(settings_now().await, expected, "unexpected settings");

        file["metadata"] = json!({"pennon.fractional": "v3"});
        import(&api, "", &file).await;
        expected["fractional"] = json!("v3");
        assert_eq!(settings_now().await, expected, "unexpected settings");

        file["metadata"] = json!({});
        file["$evaluators"] = json!({"staff": {"==": [1, 1]}});
        import(&api, "", &file).await;
        expected["metadata"] = json!({});
        expected["evaluators"] = file["$evaluators"].clone();
        assert_eq!(settings_now().await, expected);

        file["$evaluators"] = json!({});
        for answer in rejected_imports(&api, "", &file.to_string()).await {
            let place = "/flags/colour/targeting/if/0/$ref";
            assert!(field_errors(&answer).contains_key(place), "{answer:?}");
        }
        file["environments"] = json!({"staging": {"flags": {}}});
        for answer in rejected_imports(&api, "", &file.to_string()).await {
            assert!(
                field_errors(&answer).contains_key("/environments"),
                "{answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_merge_adds_and_changes_flags_but_archives_none() {
    for api in Api::of_both_kinds().await {
        let settings = json!({"metadata": {"team": "shop", "cost": 1}, "evaluators": {
            "staff": {"ends_with": [{"var": "email"}, "@example.com"]},
            "choice": {"if": [{"var": "x"}, "on", "off"]},
        }});
        assert_eq!(
            api.admin_if("*", "PUT", SETTINGS, &settings).await.status,
            200
        );
        let there = json!({"key": "there", "definition": {
            "variants": {"on": 1, "off": 2}, "defaultVariant": "off", "targeting": {"$ref": "choice"},
        }});
        assert_eq!(api.admin("POST", FLAGS, &there).await.status, 201);
        let before = api.read(EXPORT).await.json();
        let file = json!({
            "flags": {"new": ruled(&json!({"if": [{"$ref": "staff"}, "on"]})), "checkout": flag(&json!({}))},
            "metadata": {"cost": 2},
            "$evaluators": {"extra": {"==": [1, 1]}},
        });
        let response = import(&api, "mode=merge", &file).await;
        assert_eq!(
            (
                keys(&response["created"]),
                keys(&response["changed"]),
                keys(&response["archived"])
            ),
            (vec!["new"], vec!["checkout"], vec![]),
            "on {}",
            api.store
        );
        let after = api.read(EXPORT).await.json();
        for key in ["search", "export", "there"] {
            assert_eq!(
                after["flags"][key], before["flags"][key],
                "{key} on {}",
                api.store
            );
        }
        assert_eq!(after["flags"].as_object().expect("flags").len(), 5);
        assert_eq!(after["metadata"], json!({"team": "shop", "cost": 2}));
        assert_eq!(
            after["$evaluators"].as_object().expect("evaluators").len(),
            3
        );
        let again = import(&api, "mode=merge", &file).await;
        assert_eq!(
            (&again["unchanged"], &again["settings"]),
            (&json!(2), &Value::Null)
        );

        // An evaluator of the file breaks a flag that the file does not contain.
        let named =
            json!({"flags": {}, "$evaluators": {"choice": {"if": [{"var": "x"}, "on", "ghost"]}}});
        let response = import(&api, "mode=merge", &named).await;
        assert_eq!(
            pointers(&response["warnings"]),
            ["/flags/there/targeting/$ref"],
            "{response}"
        );
        let broken = json!({"flags": {}, "$evaluators": {"choice": {"$ref": "gone"}}});
        for answer in rejected_imports(&api, "mode=merge", &broken.to_string()).await {
            let found = field_errors(&answer);
            assert!(found.contains_key("/$evaluators/choice/$ref"), "{found:?}");
        }
        let archived = import(&api, "mode=replace", &json!({"flags": {}})).await;
        assert_eq!(keys(&archived["archived"]).len(), 5);
        for mode in ["mode=Merge", "mode=add"] {
            for answer in rejected_imports(&api, mode, "{\"flags\": {}}").await {
                assert!(field_errors(&answer).contains_key("mode"), "{answer:?}");
            }
        }
    }
}

/// Rules that cannot work, and the position of each below `targeting`.
fn wrong_rules() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"if": [{"var": "x"}, "on", "ghost"]}), "/if/2"),
        (json!({"if": [{"var": "x"}, true, null]}), "/if/1"),
        (json!({"or": [{"var": "plan"}, "ghost"]}), "/or/1"),
        (json!({"var": ["plan", "ghost"]}), "/var/1"),
        (
            json!({"fractional": [["on", 1], ["ghost", 1]]}),
            "/fractional/1/0",
        ),
        (
            json!({"fractional": [["on", 0], ["off", 0]]}),
            "/fractional",
        ),
        (
            json!({"fractional": [["on", 2_147_483_647], ["off", 1]]}),
            "/fractional",
        ),
        (
            json!({"if": [{"var": "x"}, {"fractional": [["on", 0]]}]}),
            "/if/1/fractional",
        ),
    ]
}

#[tokio::test]
async fn an_invalid_rule_is_rejected_by_the_routes_of_flags_and_is_a_warning_of_an_import() {
    for api in Api::of_both_kinds().await {
        let path = format!("{FLAGS}/rule");
        let definition = |targeting: &Value| json!({"variants": {"on": true, "off": false}, "defaultVariant": "off", "targeting": targeting});
        let good = json!({"if": [{"var": "x"}, "on", null]});
        let new = json!({"key": "rule", "enabled": true, "definition": definition(&good)});
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
        for (rule, place) in wrong_rules() {
            let place = format!("definition/targeting{place}");
            let new = json!({"key": "new", "definition": definition(&rule)});
            let created = api.admin("POST", FLAGS, &new).await;
            let change = json!({"definition": definition(&rule)});
            let changed = api.admin_if("*", "PATCH", &path, &change).await;
            for answer in [created, changed] {
                assert_eq!(answer.status, 400, "{rule} {answer:?} on {}", api.store);
                let found = field_errors(&answer);
                let found: Vec<&String> = found.keys().collect();
                assert_eq!(found, [&place], "{rule} on {}", api.store);
            }
        }
        let flags = wrong_rules()
            .into_iter()
            .enumerate()
            .map(|(number, (rule, _))| (format!("rule{number}"), ruled(&rule)));
        let flags: Map<String, Value> = flags.collect();
        let file = json!({"flags": flags, "$evaluators": {"nobody": {"fractional": [["on", 0]]}}});
        let response = import(&api, "", &file).await;
        let mut expected = vec!["/$evaluators/nobody/fractional".to_owned()];
        for (number, (_, place)) in wrong_rules().into_iter().enumerate() {
            expected.push(format!("/flags/rule{number}/targeting{place}"));
        }
        assert_eq!(
            pointers(&response["warnings"]),
            expected,
            "on {}",
            api.store
        );
        assert!(
            response["warnings"][1]["message"]
                .as_str()
                .is_some_and(|text| text.contains("'ghost'"))
        );

        // Such a flag can still be changed, archived and restored.
        let path = format!("{FLAGS}/rule0");
        let off = json!({"enabled": false, "description": "Broken"});
        assert_eq!(api.admin("PATCH", &path, &off).await.status, 200);
        assert_eq!(
            api.admin_if("*", "DELETE", &path, &Value::Null)
                .await
                .status,
            200
        );
        let restore = format!("{path}/restore");
        let restored = api.admin_if("*", "POST", &restore, &Value::Null).await;
        assert_eq!(restored.status, 200, "{restored:?} on {}", api.store);
    }
}

#[tokio::test]
async fn evaluators_that_break_a_flag_are_rejected_by_settings_and_are_a_warning_of_an_import() {
    for api in Api::of_both_kinds().await {
        let with = |choice: &Value| json!({"evaluators": {"choice": choice}});
        let good = json!({"if": [{"var": "x"}, "on", "off"]});
        assert_eq!(
            api.admin_if("*", "PUT", SETTINGS, &with(&good))
                .await
                .status,
            200
        );
        let new = json!({"key": "rule", "definition": {
            "variants": {"on": 1, "off": 2}, "targeting": {"if": [{"var": "y"}, {"$ref": "choice"}]},
        }});
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
        let ghost = json!({"if": [{"var": "x"}, "on", "ghost"]});
        let nobody = json!({"fractional": [["on", 0]]});
        let in_flag = "flags/rule/targeting/if/1/$ref";
        for (evaluator, places) in [
            (&ghost, &[in_flag][..]),
            (&nobody, &["/evaluators/choice/fractional", in_flag]),
        ] {
            let answer = api.admin_if("*", "PUT", SETTINGS, &with(evaluator)).await;
            assert_eq!(answer.status, 400, "{answer:?} on {}", api.store);
            let found = field_errors(&answer);
            let found: Vec<&str> = found.keys().map(String::as_str).collect();
            assert_eq!(found, places, "on {}", api.store);
        }
        let mut file = api.read(EXPORT).await.json();
        file["$evaluators"]["choice"] = ghost.clone();
        let response = import(&api, "", &file).await;
        assert_eq!(
            pointers(&response["warnings"]),
            ["/flags/rule/targeting/if/1/$ref"],
            "on {}",
            api.store
        );

        // A flag that is already broken does not block other changes.
        let mut settings = with(&ghost);
        settings["metadata"] = json!({"team": "shop"});
        settings["evaluators"]["other"] = json!({"==": [1, 1]});
        let answer = api.admin_if("*", "PUT", SETTINGS, &settings).await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
        // A new flag may not refer to the broken evaluator either.
        let new = json!({"key": "second", "definition": {"variants": {"on": 1}, "targeting": {"$ref": "choice"}}});
        let answer = api.admin("POST", FLAGS, &new).await;
        assert!(
            field_errors(&answer).contains_key("definition/targeting/$ref"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn the_short_form_of_a_simple_flag_is_imported() {
    for api in Api::of_both_kinds().await {
        let file = json!({"flags": {"five": {
            "state": "ENABLED", "rolloutPercentage": 5, "salt": "s", "bucketing": "sha256",
            "description": "For 5 %",
        }}});
        import(&api, "", &file).await;
        let five = api.read(&format!("{FLAGS}/five")).await.json();
        assert_eq!(
            (
                &five["rolloutPercentage"],
                &five["salt"],
                &five["bucketing"],
                &five["description"],
                &five["definition"]
            ),
            (
                &json!(5),
                &json!("s"),
                &json!("sha256"),
                &json!("For 5 %"),
                &Value::Null
            )
        );
        let exported = api.read(EXPORT).await.json();
        assert!(
            exported["flags"]["five"]["variants"].is_object(),
            "not plain flagd on {}",
            api.store
        );
        let metadata = &exported["flags"]["five"]["metadata"];
        assert_eq!(metadata["pennon.bucketing"], "sha256", "on {}", api.store);
        for (more, place) in [
            (
                json!({"metadata": {"pennon.rolloutPercentage": 6}}),
                "/metadata/pennon.rolloutPercentage",
            ),
            (json!({"rolloutPercentage": 101}), "/rolloutPercentage"),
            (json!({"variants": {"on": true}}), "/rolloutPercentage"),
            (json!({"salt": "s".repeat(101)}), "/salt"),
            (json!({"bucketing": "md5"}), "/bucketing"),
        ] {
            let mut file = file.clone();
            let fields = file["flags"]["five"].as_object_mut().expect("a flag");
            fields.extend(more.as_object().cloned().expect("an object"));
            for answer in rejected_imports(&api, "", &file.to_string()).await {
                let place = format!("/flags/five{place}");
                assert!(
                    field_errors(&answer).contains_key(&place),
                    "{answer:?} on {}",
                    api.store
                );
            }
        }
    }
}

/// Generates files that an import accepts.
struct FileGenerator(Rng);

impl FileGenerator {
    fn one_of<'a>(&self, all: &[&'a str]) -> &'a str {
        all[self.0.roll(u32::try_from(all.len()).expect("few")) as usize]
    }

    fn set_sometimes(&self, fields: &mut Value, name: &str, value: Value) {
        if self.0.roll(2) == 0 {
            fields[name] = value;
        }
    }

    fn value(&self, depth: u32) -> Value {
        match self.0.roll(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.0.roll(2) == 0),
            2 => json!(self.0.roll(1_000)),
            3 => json!(f64::from(self.0.roll(100)) / 4.0),
            4 => json!(self.one_of(&["", "text", "ünï \"quoted\" \\", "a/b~c", "\u{0}"])),
            5 => (0..self.0.roll(3)).map(|_| self.value(depth - 1)).collect(),
            _ => json!({"x": self.value(depth - 1), "": self.value(depth - 1)}),
        }
    }

    fn rule(&self) -> Value {
        match self.0.roll(5) {
            0 => json!({"fractional": [["a", self.0.roll(3)], ["b", self.0.roll(3)]]}),
            1 => json!({"if": [{"$ref": "staff"}, self.one_of(&["a", "b", "ghost"]), null]}),
            2 => json!({"var": ["plan", self.one_of(&["a", "ghost"])]}),
            3 => json!({}),
            _ => json!({"or": [{"and": [{"var": "x"}, "a"]}, true]}),
        }
    }

    fn flag(&self) -> Value {
        let mut flag = json!({"state": self.one_of(&["ENABLED", "DISABLED"])});
        if self.0.roll(3) == 0 {
            flag["rolloutPercentage"] = json!(self.0.roll(101));
            self.set_sometimes(&mut flag, "salt", json!("salt"));
            self.set_sometimes(&mut flag, "bucketing", json!("fractional"));
        } else {
            flag["variants"] = match self.0.roll(3) {
                0 => json!({"b": 1, "a": 2.0}),
                1 => json!({"a": {"deep": self.value(3)}, "b": {}}),
                _ => json!({"a": "1", "b": ""}),
            };
            self.set_sometimes(
                &mut flag,
                "defaultVariant",
                json!(self.one_of(&["a", "b", ""])),
            );
            self.set_sometimes(&mut flag, "targeting", self.rule());
            self.set_sometimes(
                &mut flag,
                "metadata",
                json!({"owner": "us", "cost": 1.5, "pennon.new": true}),
            );
        }
        self.set_sometimes(
            &mut flag,
            "description",
            json!(self.one_of(&["", "A text", "\"ä\""])),
        );
        self.set_sometimes(&mut flag, "owner", self.value(3));
        self.set_sometimes(&mut flag, "$comment", self.value(2));
        flag
    }

    fn file(&self) -> Value {
        let staff = json!({"staff": {"ends_with": [{"var": "email"}, "@example.com"]}});
        let keys = ["a", "ä ö", "~0", "x.y", "__rev", "a:b", "flags"];
        let flags: Map<String, Value> = keys
            .iter()
            .filter(|_| self.0.roll(3) > 0)
            .map(|key| ((*key).to_owned(), self.flag()))
            .collect();
        let mut file = json!({ "flags": flags, "$evaluators": staff });
        if self.0.roll(3) == 0 {
            let items = flags_as_array(&file);
            file["flags"] = items;
        }
        self.set_sometimes(
            &mut file,
            "$schema",
            json!("https://flagd.dev/schema/v0/flags.json"),
        );
        self.set_sometimes(&mut file, "x", self.value(3));
        let version = self.one_of(&["v2", "v3"]);
        self.set_sometimes(
            &mut file,
            "metadata",
            json!({"flagSetId": "us", "pennon.fractional": version}),
        );
        file
    }
}

fn flags_as_array(file: &Value) -> Value {
    let flags = file["flags"].as_object().cloned().expect("an object");
    let items = flags.into_iter().map(|(key, mut flag)| {
        flag["key"] = json!(key);
        flag
    });
    items.collect()
}

#[tokio::test]
async fn an_export_is_imported_without_a_change_whatever_was_imported_before() {
    let seed: u64 = match std::env::var("PENNON_SEED") {
        Ok(text) => text.parse().expect("PENNON_SEED is a number"),
        Err(_unset) => std::process::id().into(),
    };
    println!("PENNON_SEED={seed}");
    let generator = FileGenerator(Rng::new(seed));
    for api in Api::of_both_kinds().await {
        for round in 0..12 {
            let file = generator.file();
            let mode = generator.one_of(&["", "mode=merge"]);
            let result = import(&api, mode, &file).await;
            let exported = api.read(EXPORT).await;
            for mode in ["", "mode=merge"] {
                let mut response = import(&api, mode, &exported.json()).await;
                assert_eq!(
                    (
                        &response["created"],
                        &response["changed"],
                        &response["archived"],
                        &response["settings"]
                    ),
                    (&json!([]), &json!([]), &json!([]), &Value::Null),
                    "round {round} of seed {seed} on {}: {file} {result}",
                    api.store
                );
                let count = exported.json()["flags"].as_object().map_or(0, Map::len);
                assert_eq!(response["unchanged"].take(), json!(count));
            }
            let again = api.read(EXPORT).await;
            assert_eq!(
                again.body, exported.body,
                "round {round} of seed {seed} on {}",
                api.store
            );
        }
    }
}

#[tokio::test]
async fn an_export_leaves_out_stored_metadata_that_would_mean_something_else_in_a_file() {
    let api = Api::on_postgres().await;
    let metadata = json!({"tempo": "sha256", "team": "shop"});
    let typed = json!({"definition": {"variants": {"on": true}, "metadata": metadata}});
    let path = format!("{FLAGS}/checkout");
    let set = api.admin_if("*", "PATCH", &path, &typed).await;
    assert_eq!(set.status, 200, "{set:?}");
    let settings = json!({ "metadata": metadata });
    let set = api.admin_if("*", "PUT", SETTINGS, &settings).await;
    assert_eq!(set.status, 200, "{set:?}");
    // Earlier versions accepted these names.
    let renamed = r#"
        update feature_flags set definition = replace(definition::text, '"tempo"', '"pennon.salt"')::json;
        update pennon_environment_settings
        set settings = replace(settings::text, '"tempo"', '"pennon.bucketing"')::json"#;
    let sql = api.stack().database.sql();
    sql.batch_execute(renamed).await.expect("statements");
    let file = api.read(EXPORT).await.json();
    let team = json!({"team": "shop"});
    assert_eq!(file["metadata"], team, "{file}");
    assert_eq!(file["flags"]["checkout"]["metadata"], team, "{file}");
    import(&api, "", &file).await;
    let settings = api.read(SETTINGS).await.json();
    let inherited = json!(["anonymousRollout", "bucketing"]);
    assert_eq!(settings["inherited"], inherited, "{settings}");
    assert_eq!(api.read(EXPORT).await.json(), file);
    // The stored name does not prevent a change of other metadata.
    let settings = "update pennon_environment_settings
        set settings = replace(settings::text, '\"team\"', '\"pennon.bucketing\"')::json";
    sql.batch_execute(settings).await.expect("a statement");
    let file = json!({"flags": {}, "metadata": {"team": "search"}});
    import(&api, "mode=merge", &file).await;
    let metadata = api.read(EXPORT).await.json()["metadata"].clone();
    assert_eq!(metadata, file["metadata"]);
}
