//! Overrides for single users: the contract of the existing service, on PostgreSQL and on a file.

use pennon_tests::api::Api;
use pennon_tests::event::Event;
use pennon_tests::response::Response;
use pennon_tests::stack::{Stack, database_loads};
use serde_json::{Value, json};

const USERS: &str = "/api/admin/flags/checkout/users";

fn include(user: &str) -> Value {
    json!({"userId": user, "overrideType": "include"})
}

fn exclude(user: &str) -> Value {
    json!({"userId": user, "overrideType": "exclude"})
}

fn fields(answer: &Response) -> Value {
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.json()["error"], "Validation failed");
    answer.json()["details"]["fieldErrors"].clone()
}

#[tokio::test]
async fn an_override_is_created_replaced_and_removed() {
    for api in Api::of_both_kinds().await {
        let body = json!({"userId": "alice", "overrideType": "include", "reason": "They asked"});
        let first = api.admin("POST", USERS, &body).await;
        assert_eq!(first.status, 201, "{first:?} on {}", api.store);
        let created = first.json();
        let names: Vec<&String> = created.as_object().expect("an object").keys().collect();
        assert_eq!(
            names,
            ["userId", "overrideType", "reason", "createdBy", "createdAt"]
        );
        assert_eq!(created["userId"], "alice");
        assert_eq!(created["overrideType"], "include");
        assert_eq!(created["reason"], "They asked");
        assert_eq!(created["createdBy"], "local-admin");
        let at = created["createdAt"].as_str().expect("a time");
        assert_eq!(at.len(), "2026-11-21T09:00:00.000Z".len(), "{at}");

        let mut odd = exclude("alice");
        odd["until"] = json!("tomorrow");
        let second = api.admin("POST", USERS, &odd).await;
        assert_eq!(second.header("x-ignored-fields"), Some("until"));
        assert_eq!(second.status, 201, "a replacement did not return 201");
        let replaced = second.json();
        assert_eq!(replaced["overrideType"], "exclude");
        assert_eq!(replaced["reason"], Value::Null);
        assert_eq!(replaced["createdAt"], created["createdAt"], "changed");

        let url = format!("{USERS}/alice");
        let gone = api.admin("DELETE", &url, &Value::Null).await;
        assert_eq!((gone.status, gone.body.as_str()), (204, ""));
        let again = api.admin("DELETE", &url, &Value::Null).await;
        assert_eq!(again.status, 404);
        assert_eq!(again.json()["error"], "NOT_FOUND");
    }
}

#[tokio::test]
async fn overrides_decide_on_the_next_read() {
    for api in Api::of_both_kinds().await {
        // user-8 has bucket 49, user-51 bucket 50; checkout is at 50 %.
        let value = async |user: &str| {
            let answer = api.get(&format!("/api/config/flags?userId={user}")).await;
            answer.json()["checkout"].clone()
        };
        assert_eq!(
            (value("user-8").await, value("user-51").await),
            (json!(true), json!(false))
        );
        api.admin("POST", USERS, &exclude("user-8")).await;
        api.admin("POST", USERS, &include("user-51")).await;
        assert_eq!(
            (value("user-8").await, value("user-51").await),
            (json!(false), json!(true))
        );
        api.admin("DELETE", &format!("{USERS}/user-8"), &Value::Null)
            .await;
        assert_eq!(value("user-8").await, true, "on {}", api.store);
        // A disabled flag is off even for included users.
        let off = json!({"enabled": false});
        api.admin("PATCH", "/api/admin/flags/checkout", &off).await;
        assert_eq!(value("user-51").await, false);
    }
}

#[tokio::test]
async fn an_override_is_seen_by_another_instance_on_its_next_read() {
    let stack = Stack::start().await;
    let overrides = stack.function("overrides").await;
    let list = stack.function("list-flags").await;
    let event = Event::list().user("user-51", "[]");
    assert_eq!(list.call(&event).await.json()["checkout"], false);
    for round in 0..5 {
        let set = Event::admin("POST", USERS, &include("user-51").to_string());
        let answer = overrides.call(&set).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
        assert_eq!(list.call(&event).await.json()["checkout"], true, "{round}");
        let remove = Event::admin("DELETE", &format!("{USERS}/user-51"), "");
        assert_eq!(overrides.call(&remove).await.status, 204);
        assert_eq!(list.call(&event).await.json()["checkout"], false, "{round}");
    }
}

#[tokio::test]
async fn pages_contain_both_kinds_of_overrides_newest_first() {
    for api in Api::of_both_kinds().await {
        for number in 0..7 {
            let user = format!("user-{number}");
            let body = if number % 2 == 0 {
                include(&user)
            } else {
                exclude(&user)
            };
            assert_eq!(api.admin("POST", USERS, &body).await.status, 201);
            // Times have milliseconds; the order within a millisecond is undefined.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let users = |list: &Value| -> Vec<String> {
            let list = list.as_array().expect("a list");
            let id = |entry: &Value| entry["userId"].as_str().expect("an id").to_owned();
            list.iter().map(id).collect()
        };
        let all = api.read(USERS).await;
        assert_eq!(all.status, 200);
        let all = all.json();
        assert_eq!(
            users(&all["includes"]),
            ["user-6", "user-4", "user-2", "user-0"]
        );
        assert_eq!(users(&all["excludes"]), ["user-5", "user-3", "user-1"]);
        assert_eq!(
            all["pagination"],
            json!({"page": 1, "pageSize": 50, "total": 7})
        );
        let page = api.read(&format!("{USERS}?page=2&pageSize=3")).await.json();
        assert_eq!(users(&page["includes"]), ["user-2"], "on {}", api.store);
        assert_eq!(users(&page["excludes"]), ["user-3", "user-1"]);
        assert_eq!(
            page["pagination"],
            json!({"page": 2, "pageSize": 3, "total": 7})
        );
        let behind = api.read(&format!("{USERS}?page=9")).await.json();
        assert_eq!(behind["includes"], json!([]));
        assert_eq!(behind["pagination"]["total"], 7);
    }
}

#[tokio::test]
async fn every_mistake_is_reported_and_validation_comes_before_existence() {
    for api in Api::of_both_kinds().await {
        let nowhere = "/api/admin/flags/no-such-flag/users";
        for (body, field) in [
            (json!({}), "userId"),
            (json!({}), "overrideType"),
            (json!({"userId": "", "overrideType": "include"}), "userId"),
            (json!({"userId": 5, "overrideType": "include"}), "userId"),
            (
                json!({"userId": "a\u{0}", "overrideType": "include"}),
                "userId",
            ),
            (include(&"ä".repeat(256)), "userId"),
            (
                json!({"userId": "a", "overrideType": "maybe"}),
                "overrideType",
            ),
            (json!({"userId": "a", "overrideType": true}), "overrideType"),
            (
                json!({"userId": "a", "overrideType": "include", "reason": "x".repeat(501)}),
                "reason",
            ),
            (
                json!({"userId": "a", "overrideType": "exclude", "variant": "blue"}),
                "variant",
            ),
        ] {
            let found = fields(&api.admin("POST", nowhere, &body).await);
            assert!(found[field].is_array(), "{body}: {found}");
        }
        for body in ["", "{", "[]", "null"] {
            let answer = api
                .local()
                .send(
                    "POST",
                    nowhere,
                    &[("authorization", "Bearer local-test-token")],
                    body,
                )
                .await;
            assert_eq!(answer.status, 400, "{body}: {answer:?}");
            let errors = answer.json()["details"]["formErrors"].clone();
            assert!(errors[0].is_string(), "{body}: {answer:?}");
        }
        for query in [
            "page=0",
            "page=x",
            "page=-1",
            "page=1.5",
            "page=99999999999",
        ] {
            let found = fields(&api.read(&format!("{nowhere}?{query}")).await);
            assert!(found["page"].is_array(), "{query}");
        }
        for (method, path, body) in [
            ("POST", nowhere.to_owned(), include("a")),
            ("DELETE", format!("{nowhere}/a"), Value::Null),
            ("GET", nowhere.to_owned(), Value::Null),
            ("POST", format!("{USERS}?environment=nowhere"), include("a")),
        ] {
            let answer = api.admin(method, &path, &body).await;
            assert_eq!(answer.status, 404, "{method} {path}");
            assert_eq!(answer.json()["error"], "NOT_FOUND");
        }
        let longest = include(&"ä".repeat(255));
        assert_eq!(api.admin("POST", USERS, &longest).await.status, 201);
        let environment = fields(&api.read(&format!("{USERS}?environment=a%20b")).await);
        assert!(environment["environment"].is_array());
        let nul = api
            .admin("DELETE", &format!("{USERS}/%00"), &Value::Null)
            .await;
        assert_eq!(nul.status, 400);
    }
}

#[tokio::test]
async fn a_user_id_may_contain_spaces_slashes_quotes_and_emoji() {
    for api in Api::of_both_kinds().await {
        for (user, encoded) in [
            ("a b", "a%20b"),
            ("käse/😀", "k%C3%A4se%2F%F0%9F%98%80"),
            (
                "x'; drop table feature_flags; --",
                "x'%3B%20drop%20table%20feature_flags%3B%20--",
            ),
        ] {
            let answer = api.admin("POST", USERS, &include(user)).await;
            assert_eq!(answer.json()["userId"], user);
            let url = format!("{USERS}/{encoded}");
            let gone = api.admin("DELETE", &url, &Value::Null).await;
            assert_eq!(gone.status, 204, "{user} on {}", api.store);
        }
    }
}

#[tokio::test]
async fn a_path_that_does_not_decode_names_no_user() {
    for api in Api::of_both_kinds().await {
        let created = api.admin("POST", USERS, &include("%FF")).await;
        assert_eq!(created.status, 201, "{created:?}");
        for (segment, status) in [("%FF", 404), ("%25FF", 204)] {
            let path = format!("{USERS}/{segment}");
            let answer = api.admin("DELETE", &path, &Value::Null).await;
            assert_eq!(answer.status, status, "{segment} on {}", api.store);
        }
    }
}

#[tokio::test]
async fn callers_without_a_role_may_not_see_or_change_overrides() {
    let stack = Stack::start().await;
    let overrides = stack.function("overrides").await;
    let body = include("alice").to_string();
    for event in [
        Event::admin("POST", USERS, &body),
        Event::admin("GET", USERS, ""),
        Event::admin("DELETE", &format!("{USERS}/alice"), ""),
    ] {
        let nobody = overrides.call(&event.clone().anonymous()).await;
        assert_eq!(
            (nobody.status, nobody.json()["error"].clone()),
            (401, json!("Unauthorized"))
        );
        let user = overrides.call(&event.user("u-1", "[users]")).await;
        assert_eq!(
            (user.status, user.json()["error"].clone()),
            (403, json!("Forbidden"))
        );
    }
    let count = stack
        .database
        .sql()
        .query_one("select count(*) from feature_flag_user_overrides", &[])
        .await
        .expect("a count");
    assert_eq!(count.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_variant_can_be_given_to_a_user_if_the_flag_has_it() {
    for api in Api::of_both_kinds().await {
        let flag = json!({"key": "theme", "enabled": true, "definition": {
            "variants": {"red": "#c00", "blue": "#00c"}, "defaultVariant": "red",
        }});
        let made = api.admin("POST", "/api/admin/flags", &flag).await;
        assert_eq!(made.status, 201, "{made:?}");
        let url = "/api/admin/flags/theme/users";
        let body = |variant: &str| json!({"userId": "alice", "overrideType": "include", "variant": variant});
        let answer = api.admin("POST", url, &body("blue")).await;
        assert_eq!(
            (answer.status, answer.json()["variant"].clone()),
            (201, json!("blue"))
        );
        let list = api.read(url).await.json();
        assert_eq!(list["includes"][0]["variant"], "blue", "on {}", api.store);
        assert!(fields(&api.admin("POST", url, &body("green")).await)["variant"].is_array());
        let simple = api.admin("POST", USERS, &body("on")).await;
        assert!(
            fields(&simple)["variant"].is_array(),
            "a simple flag accepted a variant"
        );
    }
}

#[tokio::test]
async fn the_hourly_limit_is_one_hundred_changes() {
    for api in Api::of_both_kinds().await {
        for number in 0..100 {
            let user = format!("user-{number}");
            assert_eq!(api.admin("POST", USERS, &include(&user)).await.status, 201);
            // A removal does not count.
            if number < 60 {
                let url = format!("{USERS}/{user}");
                assert_eq!(api.admin("DELETE", &url, &Value::Null).await.status, 204);
            }
        }
        let answer = api.admin("POST", USERS, &include("one-more")).await;
        assert_eq!(answer.status, 429, "on {}", api.store);
        assert_eq!(answer.json()["error"], "RATE_LIMITED");
        let wait: u64 = answer
            .header("retry-after")
            .and_then(|text| text.parse().ok())
            .expect("whole seconds");
        assert!((3_500..=3_601).contains(&wait), "{wait}");
        // A removal is accepted even when the limit is reached.
        let gone = api
            .admin("DELETE", &format!("{USERS}/user-70"), &Value::Null)
            .await;
        assert_eq!(gone.status, 204, "{gone:?} on {}", api.store);
        let audit = "/api/admin/flags/checkout/audit?pageSize=2";
        let set = api.read(audit).await.json()["entries"][1].clone();
        assert_eq!(set["after"]["userId"], "user-99", "{set}");
        let undo = json!({"auditId": set["id"], "state": "before"});
        let revert = "/api/admin/flags/checkout/revert";
        let undone = api.admin_if("*", "POST", revert, &undo).await;
        assert_eq!(undone.status, 200, "{undone:?} on {}", api.store);
        let redo = json!({"auditId": set["id"]});
        let redone = api.admin_if("*", "POST", revert, &redo).await;
        assert_eq!(redone.status, 429, "{redone:?} on {}", api.store);
        // Reading and removing are not limited, and other flags have their own limit.
        assert_eq!(api.read(USERS).await.status, 200);
        let missing = api
            .admin("DELETE", &format!("{USERS}/nobody"), &Value::Null)
            .await;
        assert_eq!(missing.status, 404);
        let other = "/api/admin/flags/search/users";
        assert_eq!(api.admin("POST", other, &include("a")).await.status, 201);
    }
}

#[tokio::test]
async fn the_hourly_limit_holds_across_instances() {
    let api = Api::on_postgres().await;
    let other = api.another_instance().await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..130 {
        let client = if number % 2 == 0 {
            api.client()
        } else {
            other.client()
        };
        requests.spawn(async move {
            let body = include(&format!("user-{number}"));
            // All wait for the same row. On a busy machine some time out and try again.
            loop {
                let status = client.send("POST", USERS, &[], &body).await.status;
                if status != 503 {
                    return status;
                }
            }
        });
    }
    let statuses = requests.join_all().await;
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(201), count(429)), (100, 30), "{statuses:?}");
    assert_eq!(api.read(USERS).await.json()["pagination"]["total"], 100);

    // An hour later.
    api.stack()
        .database
        .sql()
        .batch_execute("update pennon_audit set at = at - interval '1 hour'")
        .await
        .expect("time passes");
    let later = api.admin("POST", USERS, &include("late")).await;
    assert_eq!(later.status, 201);
}

#[tokio::test]
async fn ten_thousand_overrides_cost_one_load_and_no_query_after_it() {
    let stack = Stack::start().await;
    stack
        .database
        .sql()
        .batch_execute(
            "insert into feature_flag_user_overrides (flag_id, user_id, override_type)
             select id, 'user-' || n, case n % 2 when 0 then 'include' else 'exclude' end
             from feature_flags, generate_series(1, 10000) as n where flag_key = 'search'",
        )
        .await
        .expect("overrides");
    let one = stack.function("list-flags").await;
    let other = stack.function("list-flags").await;
    for (user, expected) in [
        ("user-9999", false),
        ("user-10000", true),
        ("user-10001", true),
    ] {
        let event = Event::list().user(user, "[]");
        for instance in [&one, &other] {
            let answer = instance.call(&event).await;
            assert_eq!(answer.json()["search"], expected, "{user}");
        }
    }
    assert_eq!((database_loads(&one), database_loads(&other)), (1, 0));
    // Printed with --nocapture. A limit would only fail on slow machines.
    for (name, instance) in [("from the database", &one), ("from Redis", &other)] {
        let took: Vec<f64> = instance
            .requests()
            .iter()
            .filter_map(|line| line["duration"].as_f64())
            .collect();
        println!("10,000 overrides, first {name}, then from memory: {took:?} ms");
    }
}

const MERGE: &str = "/api/admin/flags/checkout/users?mode=merge";
const AUDIT: &str = "/api/admin/flags/checkout/audit";
const REVERT: &str = "/api/admin/flags/checkout/revert";

fn list(overrides: &[Value]) -> Value {
    json!({ "overrides": overrides })
}

/// All overrides: user, and kind or variant.
async fn state(api: &Api, url: &str) -> Vec<(String, String)> {
    let page = api.read(&format!("{url}?pageSize=1000")).await.json();
    let of = |kind: &str| {
        let all = page[kind].as_array().expect("a list").clone();
        all.into_iter().map(|one| {
            let text = |name: &str| one[name].as_str().map(str::to_owned);
            let what = text("variant").or_else(|| text("overrideType"));
            (text("userId").expect("a user"), what.expect("a kind"))
        })
    };
    let mut all: Vec<_> = of("includes").chain(of("excludes")).collect();
    all.sort();
    all
}

fn users(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(user, kind): &(&str, &str)| ((*user).to_owned(), (*kind).to_owned());
    all.iter().map(owned).collect()
}

#[tokio::test]
async fn overrides_are_replaced_or_merged_as_one_change() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        api.admin("POST", USERS, &include("alice")).await;
        api.admin("POST", USERS, &include("bob")).await;
        let read = api.read(USERS).await;
        let tag = read.header("etag").expect("an ETag").to_owned();
        let alice = read.json()["includes"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["userId"] == "alice").cloned())
            .expect("alice");

        let body = list(&[exclude("bob"), include("carol"), alice.clone()]);
        let merged = api.admin_if(&tag, "PUT", MERGE, &body).await;
        assert_eq!(merged.status, 200, "{merged:?} on {on}");
        assert_eq!(
            merged.json(),
            json!({"created": 1, "changed": 1, "removed": 0, "unchanged": 1, "total": 3})
        );
        let expected = [
            ("alice", "include"),
            ("bob", "exclude"),
            ("carol", "include"),
        ];
        assert_eq!(state(&api, USERS).await, users(&expected), "on {on}");
        let now = api.read(USERS).await;
        assert_eq!(now.header("etag"), merged.header("etag"), "on {on}");
        assert!(
            now.json()["includes"]
                .as_array()
                .expect("a list")
                .contains(&alice),
            "an unchanged override lost its fields"
        );

        // The state has changed since it was read.
        let late = api.admin_if(&tag, "PUT", USERS, &list(&[])).await;
        assert_eq!(late.status, 412, "{late:?} on {on}");
        let flag = api.read("/api/admin/flags/checkout").await;
        let flag = flag.header("etag").expect("an ETag");
        let other = api.admin_if(flag, "PUT", USERS, &list(&[])).await;
        assert_eq!(
            other.status, 412,
            "the ETag of the flag was accepted for its overrides"
        );
        let without_tag = api.admin("PUT", USERS, &list(&[])).await;
        assert_eq!(without_tag.status, 428, "{without_tag:?} on {on}");

        let body = list(&[include("dave"), exclude("bob")]);
        let tag = now.header("etag").expect("an ETag");
        let replaced = api.admin_if(tag, "PUT", USERS, &body).await;
        assert_eq!(
            replaced.json(),
            json!({"created": 1, "changed": 0, "removed": 2, "unchanged": 1, "total": 2}),
            "on {on}"
        );
        let expected = [("bob", "exclude"), ("dave", "include")];
        assert_eq!(state(&api, USERS).await, users(&expected), "on {on}");
        // The new overrides apply immediately.
        let value = api.get("/api/config/flags?userId=dave").await.json();
        assert_eq!(value["checkout"], true);

        // One entry for each change, with the overrides that differ.
        let audit = api.read(AUDIT).await.json();
        assert_eq!(audit["pagination"]["total"], 4, "{audit} on {on}");
        let entry = &audit["entries"][0];
        assert_eq!(entry["action"], "overrides.set");
        let named = |side: &str| -> Vec<String> {
            let all = entry[side]["overrides"].as_array().expect("a list");
            let mut names: Vec<String> = all.iter().map(|one| one["userId"].to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(named("before"), ["\"alice\"", "\"carol\""]);
        assert_eq!(named("after"), ["\"dave\""]);
        let nothing = api.admin_if("*", "PUT", MERGE, &list(&[])).await;
        assert_eq!(nothing.json()["total"], 2, "{nothing:?}");
        let again = api.read(AUDIT).await.json();
        assert_eq!(again["pagination"]["total"], 4, "audited without a change");

        // A revert to the state before or after the change is one change.
        let undo = json!({"auditId": entry["id"], "state": "before"});
        let undone = api.admin_if("*", "POST", REVERT, &undo).await;
        assert_eq!(undone.status, 200, "{undone:?} on {on}");
        let expected = [
            ("alice", "include"),
            ("bob", "exclude"),
            ("carol", "include"),
        ];
        assert_eq!(state(&api, USERS).await, users(&expected), "on {on}");
        let redo = json!({"auditId": entry["id"]});
        assert_eq!(api.admin_if("*", "POST", REVERT, &redo).await.status, 200);
        let expected = [("bob", "exclude"), ("dave", "include")];
        assert_eq!(state(&api, USERS).await, users(&expected), "on {on}");

        let gone = api.admin_if("*", "PUT", USERS, &list(&[])).await;
        assert_eq!(gone.json()["removed"], 2);
        let last = api.read(&format!("{AUDIT}?pageSize=1")).await.json();
        assert_eq!(last["entries"][0]["action"], "overrides.delete");
        assert_eq!(state(&api, USERS).await, [], "on {on}");
    }
}

#[tokio::test]
async fn the_first_fifty_mistakes_in_a_list_of_overrides_are_named_with_their_places() {
    for api in Api::of_both_kinds().await {
        let flag = json!({"key": "theme", "definition": {"variants": {"red": 1, "blue": 2}}});
        assert_eq!(
            api.admin("POST", "/api/admin/flags", &flag).await.status,
            201
        );
        let theme = "/api/admin/flags/theme/users";
        let many: Vec<Value> = (0..10_001)
            .map(|number| include(&format!("u-{number}")))
            .collect();
        let variant =
            |name: &str| json!({"userId": "v", "overrideType": "include", "variant": name});
        for (body, places) in [
            (json!({}), vec!["overrides"]),
            (json!({"overrides": {}}), vec!["overrides"]),
            (json!({"overrides": [], "mode": "merge"}), vec!["mode"]),
            (list(&many), vec!["overrides"]),
            (list(&[json!("alice")]), vec!["overrides/0"]),
            (
                list(&[
                    include("a"),
                    include(""),
                    exclude("b"),
                    json!({"userId": "c"}),
                ]),
                vec!["overrides/1/userId", "overrides/3/overrideType"],
            ),
            (
                list(&[include("a"), include(&"x".repeat(256))]),
                vec!["overrides/1/userId"],
            ),
            (
                list(&[include("a"), exclude("b"), exclude("a")]),
                vec!["overrides/2/userId"],
            ),
            (
                list(&[json!({"userId": "a", "overrideType": "include", "reson": "x"})]),
                vec!["overrides/0/reson"],
            ),
            (
                list(&[include("a"), variant("green")]),
                vec!["overrides/1/variant"],
            ),
        ] {
            let answer = api.admin_if("*", "PUT", theme, &body).await;
            let found = fields(&answer);
            for place in &places {
                assert!(found[place].is_array(), "{place} {found} on {}", api.store);
            }
            assert_eq!(
                found.as_object().map(serde_json::Map::len),
                Some(places.len())
            );
        }
        let bad: Vec<Value> = (0..200).map(|_| json!(1)).collect();
        let refused = api.admin_if("*", "PUT", theme, &list(&bad)).await;
        let found = fields(&refused);
        assert_eq!(found.as_object().map(serde_json::Map::len), Some(50));
        let others = &refused.json()["details"]["formErrors"];
        assert_eq!(*others, json!(["150 more are not listed"]));
        let mode = format!("{theme}?mode=add");
        let found = fields(&api.admin_if("*", "PUT", &mode, &list(&[])).await);
        assert!(found["mode"].is_array(), "{found}");
        let nowhere = "/api/admin/flags/nowhere/users";
        let answer = api.admin_if("*", "PUT", nowhere, &list(&[])).await;
        assert_eq!(answer.status, 404);
        assert_eq!(state(&api, theme).await, [], "a rejected list was set");
        let fine = list(&[include("a"), variant("blue")]);
        assert_eq!(api.admin_if("*", "PUT", theme, &fine).await.status, 200);
        let expected = [("a", "include"), ("v", "blue")];
        assert_eq!(
            state(&api, theme).await,
            users(&expected),
            "on {}",
            api.store
        );
    }
}

#[tokio::test]
async fn setting_many_overrides_counts_once_and_removing_them_not_at_all() {
    for api in Api::of_both_kinds().await {
        for number in 0..99 {
            let user = format!("user-{number}");
            assert_eq!(api.admin("POST", USERS, &include(&user)).await.status, 201);
        }
        let some: Vec<Value> = (0..500)
            .map(|number| exclude(&format!("user-{number}")))
            .collect();
        let put = api.admin_if("*", "PUT", USERS, &list(&some)).await;
        assert_eq!(put.status, 200, "{put:?} on {}", api.store);
        let full = api.admin("POST", USERS, &include("one-more")).await;
        assert_eq!(full.status, 429, "on {}", api.store);
        let put = api
            .admin_if("*", "PUT", MERGE, &list(&[include("one-more")]))
            .await;
        assert_eq!(
            (put.status, put.header("retry-after").is_some()),
            (429, true)
        );
        let fewer = api.admin_if("*", "PUT", USERS, &list(&some[..10])).await;
        assert_eq!(fewer.json()["removed"], 490, "{fewer:?} on {}", api.store);
        let none = api.admin_if("*", "PUT", USERS, &list(&[])).await;
        assert_eq!(none.json()["removed"], 10, "{none:?} on {}", api.store);
    }
}

#[tokio::test]
async fn ten_thousand_overrides_are_one_change_that_can_be_undone_and_listed() {
    for api in Api::of_both_kinds().await {
        let on = api.store;
        let reason = "\"because\" ".repeat(15);
        let all: Vec<Value> = (0..10_000)
            .map(|number| {
                json!({"userId": format!("user-{number}"), "overrideType": "include", "reason": reason})
            })
            .collect();
        let put = api.admin_if("*", "PUT", USERS, &list(&all)).await;
        assert_eq!(put.json()["created"], 10_000, "{put:?} on {on}");
        assert_eq!(
            put.header("x-cache-invalidated").is_some(),
            on == "PostgreSQL"
        );
        let other: Vec<Value> = (0..10_000)
            .map(|number| exclude(&format!("user-{number}")))
            .collect();
        let put = api.admin_if("*", "PUT", USERS, &list(&other)).await;
        assert_eq!(put.json()["changed"], 10_000, "{put:?} on {on}");
        let page = api.read(AUDIT).await;
        assert!(page.body.len() < 5_900_000, "{} on {on}", page.body.len());
        let audit = page.json();
        assert_eq!(audit["pagination"]["total"], 2);
        assert!(
            audit["entries"][0]["before"]["omittedBytes"].is_number(),
            "on {on}"
        );
        let undo = json!({"auditId": audit["entries"][0]["id"], "state": "before"});
        assert_eq!(api.admin_if("*", "POST", REVERT, &undo).await.status, 200);
        let page = api.read(&format!("{USERS}?pageSize=1")).await.json();
        assert_eq!(page["pagination"]["total"], 10_000);
        assert_eq!(page["includes"][0]["reason"], reason.as_str(), "on {on}");
    }
}

#[tokio::test]
async fn a_list_of_overrides_is_seen_by_another_instance_on_its_next_read() {
    let stack = Stack::start().await;
    let overrides = stack.function("overrides").await;
    let config = stack.function("list-flags").await;
    let event = Event::list().user("user-51", "[]");
    assert_eq!(config.call(&event).await.json()["checkout"], false);
    let before = stack.database.revision("production").await;
    let body = list(&[include("user-51"), exclude("user-8")]).to_string();
    let put = Event::admin("PUT", USERS, &body).header("if-match", "*");
    let answer = overrides.call(&put).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-cache-invalidated"), Some("true"));
    assert_eq!(config.call(&event).await.json()["checkout"], true);
    assert!(stack.database.revision("production").await > before);
    let nobody = overrides.call(&put.clone().anonymous()).await;
    assert_eq!(nobody.status, 401);
    let user = overrides.call(&put.user("u-1", "[users]")).await;
    assert_eq!(user.status, 403);
}
