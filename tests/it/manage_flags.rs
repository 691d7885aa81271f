//! Flags: creating, listing, changing, archiving, restoring and deleting, on PostgreSQL and on a file.

use pennon_tests::api::Api;
use pennon_tests::response::Response;
use serde_json::{Value, json};

const FLAGS: &str = "/api/admin/flags";
const CHECKOUT: &str = "/api/admin/flags/checkout";

fn tag(answer: &Response) -> String {
    answer.header("etag").expect("an ETag").to_owned()
}

fn keys(answer: &Response) -> Vec<String> {
    let body = answer.json();
    let flags = body["flags"].as_array().expect("a list");
    let key = |flag: &Value| flag["key"].as_str().expect("a key").to_owned();
    flags.iter().map(key).collect()
}

#[tokio::test]
async fn metadata_names_that_are_reserved_in_flag_files_are_rejected() {
    for api in Api::of_both_kinds().await {
        let definition = |name: &str| json!({"variants": {"a": 1}, "defaultVariant": "a", "metadata": {name: "sha256"}});
        for name in [
            "salt",
            "bucketing",
            "description",
            "rolloutPercentage",
            "overrides",
        ] {
            let name = format!("pennon.{name}");
            let body = json!({"key": "sized", "enabled": true, "definition": definition(&name)});
            let answer = api.admin("POST", FLAGS, &body).await;
            assert_eq!(answer.status, 400, "{answer:?} on {}", api.store);
            assert!(answer.body.contains(&name), "{answer:?}");
        }
        let settings = "/api/admin/environments/production/settings";
        for name in ["bucketing", "fractional", "anonymousRollout"] {
            let name = format!("pennon.{name}");
            let body = json!({"metadata": {&name: "sha256"}});
            let answer = api.admin_if("*", "PUT", settings, &body).await;
            assert_eq!(answer.status, 400, "{answer:?} on {}", api.store);
            assert!(answer.body.contains(&name), "{answer:?}");
        }
        // A name that is not reserved.
        let body =
            json!({"key": "sized", "enabled": true, "definition": definition("pennon.team")});
        let made = api.admin("POST", FLAGS, &body).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
    }
}

#[tokio::test]
async fn a_flag_is_read_as_it_was_created() {
    for api in Api::of_both_kinds().await {
        let definition = json!({
            "variants": {"small": 2.0, "large": 10.5},
            "defaultVariant": "small",
            "targeting": {"if": [{"==": [{"var": "tier"}, "gold"]}, "large", "small"]},
        });
        let body = json!({
            "key": "limit", "enabled": true, "description": "How much", "definition": definition,
        });
        let made = api.admin("POST", FLAGS, &body).await;
        assert_eq!(made.status, 201, "{made:?} on {}", api.store);
        let read = api.read("/api/admin/flags/limit").await;
        assert_eq!(
            (read.status, &read.body),
            (200, &made.body),
            "the flag differs from the response that created it"
        );
        assert_eq!(tag(&read), tag(&made));
        let flag = read.json();
        assert_eq!(flag["key"], "limit");
        assert_eq!(flag["rolloutPercentage"], 0);
        assert_eq!(flag["salt"], Value::Null);
        assert_eq!(flag["archivedAt"], Value::Null);
        assert_eq!(tag(&read), format!("\"{}\"", flag["revision"]));
        assert!(flag["createdAt"].is_string() && flag["updatedAt"].is_string());
        assert!(
            read.body
                .contains(r#""variants":{"small":2.0,"large":10.5}"#),
            "numbers or their order changed: {}",
            read.body
        );
        // The next read sees the flag.
        let state = api.get("/api/config/flags/limit").await;
        assert_eq!(state.json()["enabled"], true);
        let half = json!({"key": "half", "rolloutPercentage": 1e1, "salt": "pepper"});
        let half = api.admin("POST", FLAGS, &half).await.json();
        assert_eq!(
            (half["rolloutPercentage"].clone(), half["salt"].clone()),
            (json!(10), json!("pepper"))
        );
        let unchanged = api
            .client()
            .send(
                "GET",
                "/api/admin/flags/limit",
                &[("if-none-match", &tag(&read))],
                &Value::Null,
            )
            .await;
        assert_eq!(unchanged.status, 304);
    }
}

#[tokio::test]
async fn a_new_flag_is_off_and_its_key_may_have_spaces_and_any_letters() {
    for api in Api::of_both_kinds().await {
        let made = api.admin("POST", FLAGS, &json!({"key": "käse:😀 1"})).await;
        let flag = made.json();
        assert_eq!(
            (flag["enabled"].clone(), flag["rolloutPercentage"].clone()),
            (json!(false), json!(0))
        );
        let twice = api.admin("POST", FLAGS, &json!({"key": "käse:😀 1"})).await;
        assert_eq!(
            (twice.status, twice.json()["error"].clone()),
            (409, json!("CONFLICT"))
        );
        for (body, field) in [
            (json!({}), "key"),
            (json!({"key": ""}), "key"),
            (json!({"key": "a\nb"}), "key"),
            (json!({"key": "x".repeat(256)}), "key"),
            (json!({"key": 5}), "key"),
            (
                json!({"key": "a", "rolloutPercentage": 101}),
                "rolloutPercentage",
            ),
            (json!({"key": "a", "enable": true}), "enable"),
            (json!({"key": "a", "salt": ""}), "salt"),
            (json!({"key": "a", "definition": 5}), "definition"),
        ] {
            let answer = api.admin("POST", FLAGS, &body).await;
            assert_eq!(answer.status, 400, "{body}");
            let fields = &answer.json()["details"]["fieldErrors"];
            assert!(
                fields[field].is_array(),
                "{body}: {fields} on {}",
                api.store
            );
        }
        let nowhere = format!("{FLAGS}?environment=nowhere");
        let answer = api.admin("POST", &nowhere, &json!({"key": "a"})).await;
        assert_eq!(
            answer.status, 404,
            "a flag was created in an unknown environment"
        );
    }
}

#[tokio::test]
async fn definitions_are_listed_by_key_searched_and_paged() {
    for api in Api::of_both_kinds().await {
        for (key, description) in [("alpha", "100% SURE_thing"), ("Beta", "b"), ("gamma", "g")] {
            let body = json!({"key": key, "description": description});
            assert_eq!(api.admin("POST", FLAGS, &body).await.status, 201);
        }
        let all = api.read(FLAGS).await;
        assert_eq!(
            keys(&all),
            ["Beta", "alpha", "checkout", "export", "gamma", "search"]
        );
        assert_eq!(
            all.json()["pagination"],
            json!({"page": 1, "pageSize": 50, "total": 6})
        );
        for (search, expected) in [
            ("ETA", vec!["Beta"]),
            ("sure_", vec!["alpha"]),
            ("100%25", vec!["alpha"]),
            ("%25", vec!["alpha"]),
            ("_", vec!["alpha"]),
            ("c", vec!["checkout", "search"]),
            ("nothing", vec![]),
        ] {
            let found = api.read(&format!("{FLAGS}?search={search}")).await;
            assert_eq!(keys(&found), expected, "{search} on {}", api.store);
        }
        let page = api.read(&format!("{FLAGS}?page=2&pageSize=4")).await;
        assert_eq!(keys(&page), ["gamma", "search"]);
        assert_eq!(page.json()["pagination"]["total"], 6);
        assert_eq!(
            api.read(&format!("{FLAGS}?archived=maybe")).await.status,
            400
        );
        assert_eq!(api.read(&format!("{FLAGS}?page=0")).await.status, 400);
    }
}

#[tokio::test]
async fn a_flag_is_archived_first_and_deleted_after_that() {
    for api in Api::of_both_kinds().await {
        let read = api.read(CHECKOUT).await;
        let forever = format!("{CHECKOUT}?permanently=true");
        let hasty = api
            .admin_if(&tag(&read), "DELETE", &forever, &Value::Null)
            .await;
        assert_eq!(hasty.status, 409, "a flag in use was deleted");
        let archived = api
            .admin_if(&tag(&read), "DELETE", CHECKOUT, &Value::Null)
            .await;
        assert_eq!(archived.status, 200, "{archived:?} on {}", api.store);
        assert!(archived.json()["archivedAt"].is_string());
        assert_eq!(
            archived.json()["updatedAt"],
            archived.json()["archivedAt"],
            "on {}",
            api.store
        );
        assert_eq!(
            archived.json()["enabled"],
            false,
            "an archived flag stays enabled for the existing service"
        );

        // Callers no longer receive the flag, and its updates are rejected.
        assert_eq!(api.get("/api/config/flags/checkout").await.status, 404);
        assert_eq!(
            api.get("/api/config/flags").await.json().get("checkout"),
            None
        );
        let patch = api
            .admin("PATCH", CHECKOUT, &json!({"enabled": true}))
            .await;
        assert_eq!(patch.status, 404);
        let user = json!({"userId": "a", "overrideType": "include"});
        let users = format!("{CHECKOUT}/users");
        assert_eq!(api.admin("POST", &users, &user).await.status, 404);
        assert_eq!(api.read(&users).await.status, 404);
        assert_eq!(keys(&api.read(FLAGS).await), ["export", "search"]);
        assert_eq!(
            keys(&api.read(&format!("{FLAGS}?archived=true")).await),
            ["checkout"]
        );
        let again = api.admin("POST", FLAGS, &json!({"key": "checkout"})).await;
        assert_eq!(again.status, 409, "the key of an archived flag was reused");
        let twice = api.admin_if("*", "DELETE", CHECKOUT, &Value::Null).await;
        assert_eq!(twice.status, 409, "a flag was archived twice");

        let restored = api
            .admin_if(
                &tag(&archived),
                "POST",
                &format!("{CHECKOUT}/restore"),
                &Value::Null,
            )
            .await;
        assert_eq!(restored.status, 200, "{restored:?}");
        let state = api.get("/api/config/flags/checkout").await.json();
        assert_eq!(
            (state["enabled"].clone(), state["rolloutPercentage"].clone()),
            (json!(false), json!(50))
        );
        let restored_twice = api
            .admin_if("*", "POST", &format!("{CHECKOUT}/restore"), &Value::Null)
            .await;
        assert_eq!(restored_twice.status, 409);

        api.admin_if("*", "DELETE", CHECKOUT, &Value::Null).await;
        let gone = api.admin_if("*", "DELETE", &forever, &Value::Null).await;
        assert_eq!((gone.status, gone.body.as_str()), (204, ""));
        assert_eq!(api.read(CHECKOUT).await.status, 404);
        assert_eq!(
            api.admin_if("*", "DELETE", &forever, &Value::Null)
                .await
                .status,
            404
        );
        let anew = api.admin("POST", FLAGS, &json!({"key": "checkout"})).await;
        assert_eq!(anew.status, 201, "the key of a deleted flag is not free");
    }
}

#[tokio::test]
async fn an_admin_cannot_overwrite_an_unseen_change_of_another() {
    for api in Api::of_both_kinds().await {
        let seen = tag(&api.read(CHECKOUT).await);
        let mine = api
            .admin_if(&seen, "PATCH", CHECKOUT, &json!({"rolloutPercentage": 10}))
            .await;
        assert_eq!(mine.status, 200);
        let new = tag(&mine);
        assert_ne!(new, seen);
        assert_eq!(new, tag(&api.read(CHECKOUT).await));
        let yours = api
            .admin_if(&seen, "PATCH", CHECKOUT, &json!({"rolloutPercentage": 90}))
            .await;
        assert_eq!(yours.status, 412, "on {}", api.store);
        assert_eq!(yours.json()["error"], "PRECONDITION_FAILED");
        assert_eq!(api.read(CHECKOUT).await.json()["rolloutPercentage"], 10);
        for other in ["\"1\"", "\"1\", \"-5\""] {
            let answer = api.admin_if(other, "PATCH", CHECKOUT, &json!({})).await;
            assert_eq!(answer.status, 412, "{other}");
        }
        let list = format!("\"1\", {new}");
        let answer = api
            .admin_if(&list, "PATCH", CHECKOUT, &json!({"rolloutPercentage": 11}))
            .await;
        assert_eq!(answer.status, 200, "a list with the tag was rejected");

        // Clients of the existing service do not send `If-Match`; new fields require it.
        assert_eq!(
            api.admin("PATCH", CHECKOUT, &json!({"enabled": true}))
                .await
                .status,
            200
        );
        for (method, path, body) in [
            ("PATCH", CHECKOUT.to_owned(), json!({"salt": "pepper"})),
            ("PATCH", CHECKOUT.to_owned(), json!({"definition": null})),
            ("DELETE", CHECKOUT.to_owned(), Value::Null),
            (
                "DELETE",
                format!("{CHECKOUT}?permanently=true"),
                Value::Null,
            ),
            ("POST", format!("{CHECKOUT}/restore"), Value::Null),
            ("POST", format!("{CHECKOUT}/revert"), json!({"auditId": 1})),
        ] {
            let answer = api.admin(method, &path, &body).await;
            assert_eq!(answer.status, 428, "{method} {path} {body}");
            assert_eq!(answer.json()["error"], "PRECONDITION_REQUIRED");
        }
        let stale = api.admin_if(&seen, "DELETE", CHECKOUT, &Value::Null).await;
        assert_eq!(stale.status, 412);
    }
}

#[tokio::test]
async fn of_concurrent_changes_with_the_same_tag_exactly_one_succeeds() {
    for api in Api::of_both_kinds().await {
        for round in 0..5 {
            let seen = tag(&api.read(CHECKOUT).await);
            let mut requests = tokio::task::JoinSet::new();
            for number in 0..12 {
                let (client, seen) = (api.client(), seen.clone());
                let body = json!({"rolloutPercentage": round * 12 + number});
                requests.spawn(async move {
                    client
                        .send("PATCH", CHECKOUT, &[("if-match", &seen)], &body)
                        .await
                });
            }
            let answers = requests.join_all().await;
            let won: Vec<&Response> = answers
                .iter()
                .filter(|answer| answer.status == 200)
                .collect();
            let lost = answers.iter().filter(|answer| answer.status == 412).count();
            assert_eq!((won.len(), lost), (1, 11), "on {}", api.store);
            let now = api.read(CHECKOUT).await.json();
            assert_eq!(now["rolloutPercentage"], won[0].json()["rolloutPercentage"]);
        }
    }
}

#[tokio::test]
async fn a_definition_is_set_replaced_and_removed_by_an_update() {
    for api in Api::of_both_kinds().await {
        let definition = json!({"variants": {"a": 1, "b": 2}, "defaultVariant": "a"});
        let body = json!({"enabled": true, "definition": definition});
        let answer = api.admin_if("*", "PATCH", CHECKOUT, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({"key": "checkout", "enabled": true, "rolloutPercentage": 50, "description": null}),
            "not the response of the existing service"
        );
        assert_eq!(
            api.read(CHECKOUT).await.json()["definition"]["variants"],
            json!({"a": 1, "b": 2})
        );
        let off = api
            .admin("PATCH", CHECKOUT, &json!({"enabled": false}))
            .await;
        assert_eq!(off.status, 200);
        let kept = api.read(CHECKOUT).await.json();
        assert_eq!(
            kept["definition"]["defaultVariant"], "a",
            "on {}",
            api.store
        );
        api.admin_if("*", "PATCH", CHECKOUT, &json!({"definition": null}))
            .await;
        assert_eq!(api.read(CHECKOUT).await.json()["definition"], Value::Null);
    }
}
