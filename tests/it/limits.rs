//! Limits of names and sizes for new flags. Flags from before a limit keep working.

use pennon_core::http::ENDPOINTS;
use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::local::API_KEY;
use pennon_tests::response::Response;
use pennon_tests::routes::path_for;
use pennon_tests::stack::Stack;
use serde_json::{Value, json};

const FLAGS: &str = "/api/admin/flags";
const CHECKOUT: &str = "/api/admin/flags/checkout";
const IMPORT: &str = "/api/admin/environments/production/import";
const EXPORT: &str = "/api/admin/environments/production/export";

/// The errors by field.
fn fields(answer: &Response) -> Value {
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.json()["details"]["fieldErrors"].clone()
}

/// The responses to a dry run and to the import.
async fn import(api: &Api, file: &Value) -> [Response; 2] {
    let dry = format!("{IMPORT}?dryRun=true");
    [
        api.admin_if("*", "POST", &dry, file).await,
        api.admin_if("*", "POST", IMPORT, file).await,
    ]
}

/// A name, percent-encoded for a query.
fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The JSON pointer to a flag of a file.
fn place(key: &str) -> String {
    format!("/flags/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[tokio::test]
async fn creation_and_import_reject_an_invisible_or_unreachable_key_and_name_the_rule() {
    for api in Api::of_both_kinds().await {
        for (key, rule) in [
            (String::new(), "1 to 255 characters"),
            ("k".repeat(256), "1 to 255 characters (got 256)"),
            ("a\u{7}b".to_owned(), "control characters (found U+0007)"),
            ("a\u{85}b".to_owned(), "control characters (found U+0085)"),
            ("pay\u{202e}tuo".to_owned(), "(found U+202E)"),
            ("check\u{200b}out".to_owned(), "(found U+200B)"),
            ("check\u{ad}out".to_owned(), "(found U+00AD)"),
            ("check\u{e0061}out".to_owned(), "(found U+E0061)"),
            ("check\u{2028}out".to_owned(), "(found U+2028)"),
            (" checkout".to_owned(), "begin or end with a space"),
            ("checkout\u{a0}".to_owned(), "begin or end with a space"),
            ("a/b".to_owned(), "any of / \\ ? # %"),
            ("CORP\\a".to_owned(), "any of / \\ ? # %"),
            ("a?b".to_owned(), "any of / \\ ? # %"),
            ("a#b".to_owned(), "any of / \\ ? # %"),
            ("a%2Fb".to_owned(), "any of / \\ ? # %"),
        ] {
            let answer = api.admin("POST", FLAGS, &json!({"key": key})).await;
            let message = fields(&answer)["key"].to_string();
            assert!(
                message.contains(&rule.replace('\\', "\\\\")),
                "{key:?} {message} on {}",
                api.store
            );
            let rule = if key.is_empty() {
                "must not be empty"
            } else {
                rule
            };
            let flag = json!({"state": "ENABLED", "variants": {"a": 1}});
            for answer in import(&api, &json!({"flags": {(key.as_str()): flag}})).await {
                let message = fields(&answer)[place(&key)].to_string();
                assert!(
                    message.contains(&rule.replace('\\', "\\\\")),
                    "{key:?} {answer:?} on {}",
                    api.store
                );
            }
        }
        let export = api.read(EXPORT).await.json();
        let flags = export["flags"].as_object().expect("flags");
        assert_eq!(flags.len(), 3, "a rejected request changed the flags");
    }
}

#[tokio::test]
async fn the_name_of_a_variant_is_short_and_has_no_control_characters() {
    for api in Api::of_both_kinds().await {
        for (name, rule) in [
            ("v".repeat(256), "1 to 255 characters (got 256)"),
            ("a\0".to_owned(), "control characters (found U+0000)"),
            ("a\nb".to_owned(), "control characters (found U+000A)"),
        ] {
            let definition = json!({"variants": {"good": 1, (name.as_str()): 2}});
            let at = format!("definition/variants/{name}");
            let new = json!({"key": "limit", "definition": definition});
            let created = api.admin("POST", FLAGS, &new).await;
            let changed = json!({"definition": definition});
            let changed = api.admin_if("*", "PATCH", CHECKOUT, &changed).await;
            for answer in [created, changed] {
                let message = fields(&answer)[&at].to_string();
                assert!(
                    message.contains(rule),
                    "{name:?} {message} on {}",
                    api.store
                );
            }
            let file = json!({"flags": {"limit": {
                "state": "ENABLED", "variants": {"good": 1, (name.as_str()): 2},
            }}});
            for answer in import(&api, &file).await {
                let message = fields(&answer)[format!("/flags/limit/variants/{name}")].to_string();
                assert!(
                    message.contains(rule),
                    "{name:?} {answer:?} on {}",
                    api.store
                );
            }
        }
        let longest = json!({"key": "limit", "definition": {"variants": {("ä".repeat(255)): 1}}});
        assert_eq!(api.admin("POST", FLAGS, &longest).await.status, 201);
    }
}

#[tokio::test]
async fn a_variant_from_before_the_limit_is_kept_and_the_flag_can_be_changed() {
    let api = Api::on_postgres().await;
    let long = "v".repeat(300);
    let definition = json!({"variants": {(long.as_str()): 1, "b": 2}, "defaultVariant": long});
    api.stack()
        .database
        .add_typed_flag("old", &definition)
        .await;
    let url = format!("{FLAGS}/old");
    let mut more = definition.clone();
    more["variants"]["c"] = json!(3);
    let body = json!({"definition": more});
    let answer = api.admin_if("*", "PATCH", &url, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut file = api.read(EXPORT).await.json();
    file["flags"]["old"]["state"] = json!("DISABLED");
    for answer in import(&api, &file).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    more["variants"]["w".repeat(300)] = json!(4);
    let body = json!({"definition": more});
    let refused = api.admin_if("*", "PATCH", &url, &body).await;
    assert_eq!(
        fields(&refused).as_object().map(serde_json::Map::len),
        Some(1)
    );
    // A revert may restore the long name, which the flag still has.
    let audit = api.read(&format!("{url}/audit")).await.json();
    let first = audit["entries"].as_array().and_then(|all| all.last());
    let back = json!({"auditId": first.expect("an entry")["id"], "state": "before"});
    let answer = api
        .admin_if("*", "POST", &format!("{url}/revert"), &back)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Both kinds of store with a flag with this key, enabled at 10 %, from before the limits.
async fn with_old_flag(key: &str) -> [Api; 2] {
    let on_postgres = Api::on_postgres().await;
    on_postgres.stack().database.add_flag(key, true, 10).await;
    let flags = json!({"production": {
        "checkout": {"enabled": true, "rolloutPercentage": 50},
        (key): {"enabled": true, "rolloutPercentage": 10},
    }});
    [on_postgres, Api::on_file_with(&flags).await]
}

#[tokio::test]
async fn a_flag_from_before_the_limits_can_be_managed_by_its_key_in_the_query() {
    for key in ["a/b", "a?b#c%2F", " \u{202e}x ", "..", "CORP\\alice"] {
        for api in with_old_flag(key).await {
            let query = format!("?flagKey={}", encoded(key));
            let url = |rest: &str| format!("{FLAGS}/-{rest}{query}");
            let on = format!("{key:?} on {}", api.store);
            let read = api.read(&url("")).await;
            assert_eq!(read.json()["key"], key, "{read:?} {on}");
            assert_eq!(read.json()["rolloutPercentage"], 10);
            for method in ["PATCH", "POST"] {
                let body = json!({"rolloutPercentage": 20});
                let answer = api.admin(method, &url(""), &body).await;
                assert_eq!(answer.json()["rolloutPercentage"], 20, "{answer:?} {on}");
            }
            let user = json!({"userId": "CORP/alice", "overrideType": "include"});
            let set = api.admin("POST", &url("/users"), &user).await;
            assert_eq!(set.status, 201, "{set:?} {on}");
            let list = api.read(&url("/users")).await.json();
            assert_eq!(list["includes"][0]["userId"], "CORP/alice", "{on}");
            let user = format!("{}&userId=CORP%2Falice", url("/users/-"));
            let gone = api.admin("DELETE", &user, &Value::Null).await;
            assert_eq!(gone.status, 204, "{gone:?} {on}");
            let plan =
                json!({"scheduledAt": "2099-01-01T00:00:00Z", "updates": {"enabled": false}});
            let scheduled = api.admin("POST", &url("/schedule"), &plan).await;
            assert_eq!(scheduled.json()["flagKey"], key, "{scheduled:?} {on}");
            let plans = api.read(&url("/schedule")).await.json();
            let id = plans[0]["id"].as_str().expect("an id").to_owned();
            let cancelled = url(&format!("/schedule/{id}"));
            let cancelled = api.admin("DELETE", &cancelled, &Value::Null).await;
            assert_eq!(cancelled.json()["status"], "cancelled", "{on}");
            assert_eq!(api.read(&url("/usage")).await.json()["key"], key, "{on}");

            // The export contains the flag, and the flag can be imported with a change.
            let mut file = api.read(EXPORT).await.json();
            file["flags"][key]["state"] = json!("DISABLED");
            for answer in import(&api, &file).await {
                assert_eq!(answer.json()["changed"][0]["key"], key, "{answer:?} {on}");
            }
            let archived = api.admin_if("*", "DELETE", &url(""), &Value::Null).await;
            assert_eq!(archived.status, 200, "{archived:?} {on}");
            let restore = url("/restore");
            let restored = api.admin_if("*", "POST", &restore, &Value::Null).await;
            assert_eq!(restored.status, 200, "{restored:?} {on}");
            api.admin_if("*", "DELETE", &url(""), &Value::Null).await;
            let forever = format!("{}&permanently=true", url(""));
            let gone = api.admin_if("*", "DELETE", &forever, &Value::Null).await;
            assert_eq!(gone.status, 204, "{gone:?} {on}");
            let audit = api.read(&url("/audit")).await.json();
            assert_eq!(audit["entries"][0]["action"], "flag.delete", "{on}");

            // The deleted flag is restored with this key, and no other flag can be created with it.
            let back = json!({"auditId": audit["entries"][0]["id"], "state": "before"});
            let answer = api.admin_if("*", "POST", &url("/revert"), &back).await;
            assert_eq!(answer.json()["key"], key, "{answer:?} {on}");
            let again = api.admin("POST", FLAGS, &json!({"key": key})).await;
            assert_eq!(again.status, 400, "{on}");
        }
    }
}

#[tokio::test]
async fn every_route_rejects_a_path_and_a_query_that_name_different_flags() {
    let stack = Stack::start().await;
    let mut tried = 0;
    for endpoint in ENDPOINTS {
        if !endpoint.is_admin() || !endpoint.path.contains("{flagKey}") {
            continue;
        }
        tried += 1;
        let function = stack.function(endpoint.function).await;
        let path = |key: &str| path_for(endpoint.path, key);
        let call = async |key: &str, query: &str| {
            let event = Event::admin(endpoint.method, &path(key), "{}").query(query);
            function.call(&event.header("if-match", "*")).await
        };
        let on = format!("{} {}", endpoint.method, endpoint.path);
        let message = fields(&call("checkout", "flagKey=search").await)["flagKey"].to_string();
        for word in ["'checkout'", "'search'", "-"] {
            assert!(message.contains(word), "{message} {on}");
        }
        for query in ["flagKey=", "flagKey=%00", "flagKey=a&flagKey=b"] {
            assert!(
                fields(&call("-", query).await)["flagKey"].is_array(),
                "{on}"
            );
        }
        // The same flag may be named twice, and a flag may have the key `-`.
        for (key, query) in [
            ("nowhere", "flagKey=nowhere"),
            ("-", "flagKey=-"),
            ("-", ""),
        ] {
            let answer = call(key, query).await;
            if answer.status == 400 {
                assert_eq!(fields(&answer).get("flagKey"), None, "{on}");
            } else {
                assert_eq!(answer.status, 404, "{answer:?} {on}");
            }
        }
    }
    assert!(tried >= 14, "only {tried} routes");
}

#[tokio::test]
async fn the_public_route_of_a_flag_uses_only_its_path() {
    let stack = Stack::start().await;
    let get = stack.function("get-flag").await;
    let event = Event::get("checkout").query("flagKey=search");
    assert_eq!(get.call(&event).await.json()["key"], "checkout");
}

#[tokio::test]
async fn a_typed_flag_rejects_a_percentage_a_salt_and_a_bucketing() {
    let definition = json!({"variants": {"a": 1, "b": 2}, "defaultVariant": "a"});
    let at = "2099-01-01T00:00:00Z";
    let theme = format!("{FLAGS}/theme");
    let plans = format!("{theme}/schedule");
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let no_effect = |answer: &Response, field: &str| {
            let message = fields(answer)[field].to_string();
            assert!(message.contains("no effect"), "{answer:?} on {on}");
        };
        let percentage = json!({"rolloutPercentage": 10});
        let salt = json!({"salt": "pepper"});
        let bucketing = json!({"bucketing": "sha256"});
        for (name, extra) in [
            ("rolloutPercentage", &percentage),
            ("salt", &salt),
            ("bucketing", &bucketing),
        ] {
            let new = json!({"key": "theme", "definition": definition, (name): extra[name]});
            no_effect(&api.admin("POST", FLAGS, &new).await, name);
            let typed = json!({"definition": definition, (name): extra[name]});
            no_effect(&api.admin_if("*", "PATCH", CHECKOUT, &typed).await, name);
        }
        let new = json!({"key": "theme", "definition": definition});
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
        for method in ["PATCH", "POST"] {
            no_effect(
                &api.admin(method, &theme, &percentage).await,
                "rolloutPercentage",
            );
            for (name, extra) in [("salt", &salt), ("bucketing", &bucketing)] {
                no_effect(&api.admin_if("*", method, &theme, extra).await, name);
            }
        }
        let plan = json!({"scheduledAt": at, "updates": {"enabled": true, "rolloutPercentage": 5}});
        no_effect(&api.admin("POST", &plans, &plan).await, "updates");
        assert_eq!(api.read(&plans).await.json(), json!([]), "on {on}");

        // Changes that have an effect are accepted.
        let plan = json!({"scheduledAt": at, "updates": {"enabled": true}});
        assert_eq!(api.admin("POST", &plans, &plan).await.status, 201);
        for body in [
            json!({"enabled": true, "description": "why"}),
            json!({"salt": null, "bucketing": null}),
            json!({"definition": null, "rolloutPercentage": 10, "salt": "pepper",
                "bucketing": "sha256"}),
            json!({"rolloutPercentage": 11}),
            // Percentage, salt and bucketing are kept, and apply again when the definition is removed.
            json!({"definition": definition}),
            json!({"definition": null}),
        ] {
            let answer = api.admin_if("*", "PATCH", &theme, &body).await;
            assert_eq!(answer.status, 200, "{body} {answer:?} on {on}");
        }
        let flag = api.read(&theme).await.json();
        assert_eq!(
            json!([flag["rolloutPercentage"], flag["salt"], flag["bucketing"]]),
            json!([11, "pepper", "sha256"])
        );
    }
}

#[tokio::test]
async fn a_flag_gets_no_definition_while_a_percentage_is_scheduled() {
    let definition = json!({"variants": {"on": true, "off": false}, "defaultVariant": "on"});
    for api in Api::of_both_kinds().await {
        let typed = json!({"definition": definition});
        assert_eq!(
            api.admin_if("*", "PATCH", CHECKOUT, &typed).await.status,
            200
        );
        let simple = json!({"definition": null});
        assert_eq!(
            api.admin_if("*", "PATCH", CHECKOUT, &simple).await.status,
            200
        );
        let plan =
            json!({"scheduledAt": "2099-01-01T00:00:00Z", "updates": {"rolloutPercentage": 5}});
        let scheduled = api
            .admin("POST", &format!("{CHECKOUT}/schedule"), &plan)
            .await;
        assert_eq!(scheduled.status, 201, "{scheduled:?}");
        let id = scheduled.json()["id"].as_str().expect("an id").to_owned();

        let mut file = api.read(EXPORT).await.json();
        file["flags"]["checkout"] = json!({
            "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on",
        });
        let audit = api.read(&format!("{CHECKOUT}/audit")).await.json();
        let entries = audit["entries"].as_array().expect("entries");
        let made_typed = entries
            .iter()
            .find(|entry| !entry["after"]["definition"].is_null())
            .expect("the entry of the definition");
        let revert = json!({"auditId": made_typed["id"]});
        let [dry, imported] = import(&api, &file).await;
        for answer in [
            api.admin_if("*", "PATCH", CHECKOUT, &typed).await,
            api.admin_if("*", "POST", &format!("{CHECKOUT}/revert"), &revert)
                .await,
            dry,
            imported,
        ] {
            assert_eq!(answer.status, 409, "{answer:?} on {}", api.store);
            let message = answer.json()["message"].to_string();
            for word in ["checkout", &id, "rollout percentage"] {
                assert!(message.contains(word), "{message} on {}", api.store);
            }
        }
        let cancel = format!("{CHECKOUT}/schedule/{id}");
        api.admin("DELETE", &cancel, &Value::Null).await;
        let answer = api.admin_if("*", "PATCH", CHECKOUT, &typed).await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
    }
}

/// A flag whose only value has this size as JSON.
fn sized(size: usize) -> Value {
    json!({"variants": {"only": "x".repeat(size - 2)}, "defaultVariant": "only"})
}

/// The same flag in flagd's format.
fn sized_in_file(size: usize) -> Value {
    let mut flag = sized(size);
    flag["state"] = json!("ENABLED");
    flag
}

/// The OFREP response with all flags.
async fn bulk(api: &Api) -> Response {
    let body = json!({"context": {"targetingKey": "alice"}}).to_string();
    let path = "/ofrep/v1/evaluate/flags";
    api.local().evaluate(path, API_KEY, &body).await
}

#[tokio::test]
async fn server_only_must_be_true_or_false() {
    let settings = "/api/admin/environments/production/settings";
    for api in Api::of_both_kinds().await {
        let with = |value: &Value| json!({"variants": {"a": 1}, "metadata": {"serverOnly": value, "owner": "us"}});
        for bad in [json!("true"), json!("yes"), json!(1), json!(0)] {
            let new = json!({"key": "secret", "definition": with(&bad)});
            let created = api.admin("POST", FLAGS, &new).await;
            let change = json!({"definition": with(&bad)});
            let changed = api.admin_if("*", "PATCH", CHECKOUT, &change).await;
            let metadata = json!({"metadata": {"serverOnly": bad}});
            let set = api.admin_if("*", "PUT", settings, &metadata).await;
            let mut flag = with(&bad);
            flag["state"] = json!("ENABLED");
            let file = json!({"flags": {"secret": flag}});
            let [dry, imported] = import(&api, &file).await;
            let file = json!({"flags": {}, "metadata": {"serverOnly": bad}});
            let [dry_set, imported_set] = import(&api, &file).await;
            for (answer, place) in [
                (created, "definition/metadata/serverOnly"),
                (changed, "definition/metadata/serverOnly"),
                (set, "/metadata/serverOnly"),
                (dry, "/flags/secret/metadata/serverOnly"),
                (imported, "/flags/secret/metadata/serverOnly"),
                (dry_set, "/metadata/serverOnly"),
                (imported_set, "/metadata/serverOnly"),
            ] {
                let message = fields(&answer)[place].to_string();
                assert!(
                    message.contains("true or false"),
                    "{place} {answer:?} on {}",
                    api.store
                );
            }
        }
        for good in [json!(true), json!(false)] {
            let change = json!({"definition": with(&good)});
            let answer = api.admin_if("*", "PATCH", CHECKOUT, &change).await;
            assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
        }
    }
}

#[tokio::test]
async fn a_variant_has_at_most_256_kb_and_an_existing_larger_one_is_kept() {
    for api in Api::of_both_kinds().await {
        let most = json!({"key": "large", "definition": sized(256_000)});
        assert_eq!(api.admin("POST", FLAGS, &most).await.status, 201);
        let url = format!("{FLAGS}/large");
        let new = json!({"key": "larger", "definition": sized(256_001)});
        let created = api.admin("POST", FLAGS, &new).await;
        let change = json!({"definition": sized(256_001)});
        let changed = api.admin_if("*", "PATCH", &url, &change).await;
        for answer in [created, changed] {
            let message = fields(&answer)["definition/variants/only"].to_string();
            for word in ["256000 bytes", "got 256001"] {
                assert!(message.contains(word), "{message} on {}", api.store);
            }
        }
        let file = json!({"flags": {"larger": sized_in_file(256_001)}});
        for answer in import(&api, &file).await {
            let message = fields(&answer)["/flags/larger/variants/only"].to_string();
            assert!(
                message.contains("256000 bytes"),
                "{answer:?} on {}",
                api.store
            );
        }
    }
    let api = Api::on_postgres().await;
    let database = &api.stack().database;
    database.add_typed_flag("old", &sized(300_000)).await;
    let url = format!("{FLAGS}/old");
    for (size, status) in [
        (300_000, 200),
        (299_000, 200),
        (299_001, 400),
        (1_000, 200),
        (299_000, 400),
    ] {
        let mut definition = sized(size);
        definition["variants"]["more"] = json!(format!("{size}"));
        let change = json!({"definition": definition});
        let answer = api.admin_if("*", "PATCH", &url, &change).await;
        assert_eq!(answer.status, status, "{size} {answer:?}");
    }
}

#[tokio::test]
async fn no_change_makes_the_response_with_all_flags_too_large_for_lambda() {
    let settings = "/api/admin/environments/production/settings";
    let refused = |answer: &Response, field: &str, names: &[&str], on: &str| {
        let message = fields(answer)[field].to_string();
        for word in names.iter().chain(&["5500000", "bytes"]) {
            assert!(message.contains(word), "{word} in {message} on {on}");
        }
    };
    for api in Api::of_both_kinds().await {
        let on = api.store;
        // 21 × 250,000 bytes fit; a 22nd flag does not.
        let key = |number: usize| format!("large-{number}");
        for number in 0..21 {
            let new = json!({"key": key(number), "enabled": true, "definition": sized(250_000)});
            let answer = api.admin("POST", FLAGS, &new).await;
            assert_eq!(answer.status, 201, "{number} {answer:?} on {on}");
        }
        let new = json!({"key": "one-more", "enabled": true, "definition": sized(250_000)});
        let created = api.admin("POST", FLAGS, &new).await;
        refused(&created, "definition", &["one-more", "250"], on);
        assert_eq!(bulk(&api).await.status, 200, "on {on}");

        // Changes that stay below the limit are accepted, and small flags still fit.
        let first = format!("{FLAGS}/large-0");
        for (body, status) in [
            (json!({"enabled": false}), 200),
            (json!({"definition": sized(249_000)}), 200),
            (json!({"definition": sized(100_000)}), 200),
            (json!({"definition": sized(256_000)}), 200),
        ] {
            let answer = api.admin_if("*", "PATCH", &first, &body).await;
            assert_eq!(answer.status, status, "on {on}");
        }
        let small = json!({"key": "small", "definition": {"variants": {"a": 1}}});
        assert_eq!(api.admin("POST", FLAGS, &small).await.status, 201);

        // An archived flag cannot be restored once its room is taken.
        let archived = api.admin_if("*", "DELETE", &first, &Value::Null).await;
        assert_eq!(archived.status, 200);
        let audit = api.read(&format!("{first}/audit?pageSize=1")).await.json();
        let undo = json!({"auditId": audit["entries"][0]["id"], "state": "before"});
        assert_eq!(api.admin("POST", FLAGS, &new).await.status, 201);
        let restore = format!("{first}/restore");
        let restored = api.admin_if("*", "POST", &restore, &Value::Null).await;
        refused(&restored, "definition", &["large-0"], on);
        let revert = format!("{first}/revert");
        let reverted = api.admin_if("*", "POST", &revert, &undo).await;
        refused(&reverted, "definition", &["large-0"], on);
        let back = json!({"definition": sized(249_000)});
        let other = format!("{FLAGS}/small");
        let grown = api.admin_if("*", "PATCH", &other, &back).await;
        refused(&grown, "definition", &["small", "249"], on);

        // The response contains the metadata of the environment for every flag.
        let metadata = json!({"metadata": {"notice": "n".repeat(20_000)}});
        let set = api.admin_if("*", "PUT", settings, &metadata).await;
        refused(&set, "metadata", &[], on);

        // A quotation mark takes four bytes in a response, as Lambda counts them, and two in a file.
        let mut flags = serde_json::Map::new();
        for number in 0..12 {
            let mut flag = sized_in_file(10);
            flag["variants"]["only"] = json!("\"".repeat(125_000));
            flags.insert(key(number), flag);
        }
        let file = json!({ "flags": flags });
        for answer in import(&api, &file).await {
            refused(&answer, "/flags", &["The largest are 'large-"], on);
        }
        flags.remove("large-0");
        flags.remove("large-1");
        let [dry, done] = import(&api, &json!({ "flags": flags })).await;
        assert_eq!((dry.status, done.status), (200, 200), "{done:?} on {on}");
        assert_eq!(bulk(&api).await.status, 200, "on {on}");
    }
}

#[tokio::test]
async fn an_environment_that_is_already_too_large_cannot_grow() {
    let api = Api::on_postgres().await;
    let database = &api.stack().database;
    for number in 0..9 {
        let key = format!("large-{number}");
        database.add_typed_flag(&key, &sized(700_000)).await;
    }
    let failed = |answer: &Response| {
        assert_eq!(answer.status, 200, "{}", answer.body.len());
        let flags = answer.json()["flags"].as_array().cloned();
        let failed = |flag: &&Value| flag["errorCode"] == "GENERAL";
        flags.expect("flags").iter().filter(failed).count()
    };
    assert_eq!(failed(&bulk(&api).await), 1);
    let first = format!("{FLAGS}/large-0");
    let same = json!({"enabled": false, "definition": sized(700_000)});
    assert_eq!(api.admin_if("*", "PATCH", &first, &same).await.status, 200);
    let new = api.admin("POST", FLAGS, &json!({"key": "new"})).await;
    let message = fields(&new)["key"].to_string();
    for word in ["'new'", "5500000", "production"] {
        assert!(message.contains(word), "{message}");
    }
    let smaller = json!({"definition": sized(100)});
    for number in 0..2 {
        let url = format!("{FLAGS}/large-{number}");
        let answer = api.admin_if("*", "PATCH", &url, &smaller).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(failed(&bulk(&api).await), 0);
    let new = api.admin("POST", FLAGS, &json!({"key": "new"})).await;
    assert_eq!(new.status, 201, "{new:?}");
}
