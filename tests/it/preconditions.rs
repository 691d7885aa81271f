//! `If-Match`: which tags are accepted, and the error for all others.

use pennon_tests::api::Api;
use serde_json::{Value, json};

const CHECKOUT: &str = "/api/admin/flags/checkout";

#[tokio::test]
async fn a_malformed_tag_is_rejected_and_changes_nothing() {
    for api in Api::of_both_kinds().await {
        let read = api.read(CHECKOUT).await;
        let tag = read.header("etag").expect("an ETag").to_owned();
        let number = tag.trim_matches('"').to_owned();
        let body = json!({"rolloutPercentage": 51});
        for bad in [
            number.clone(),
            String::new(),
            format!("W/{tag}"),
            format!("\"{number}"),
            "\"\"".to_owned(),
            "\"x\"".to_owned(),
            "\"1-123\"".to_owned(),
            format!("{tag}, {number}"),
            "*, *".to_owned(),
        ] {
            let answer = api.admin_if(&bad, "PATCH", CHECKOUT, &body).await;
            assert_eq!(answer.status, 400, "{bad} {answer:?} on {}", api.store);
            let message = answer.json()["details"]["fieldErrors"]["If-Match"].to_string();
            assert!(message.contains("ETag"), "{bad}: {message}");
        }
        let state = api.get("/api/config/flags/checkout").await.json();
        assert_eq!(state["rolloutPercentage"], 50, "on {}", api.store);
        let public = api.get("/api/config/flags/checkout").await;
        let public = public.header("etag").expect("an ETag");
        let answer = api.admin_if(public, "PATCH", CHECKOUT, &body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("/api/admin/flags/"), "{}", answer.body);

        let export = "/api/admin/environments/production/export";
        let export = api.read(export).await;
        let of_all = export.header("etag").expect("an ETag");
        let answer = api.admin_if(of_all, "PATCH", CHECKOUT, &body).await;
        assert_eq!(answer.status, 412);
        let message = answer.json()["message"].to_string();
        assert!(message.contains("of another item"), "{message}");

        let list = format!("\"1\", {tag}");
        let answer = api.admin_if(&list, "PATCH", CHECKOUT, &body).await;
        assert_eq!(answer.status, 200, "{answer:?} on {}", api.store);
        let gone = api.admin_if("", "DELETE", CHECKOUT, &Value::Null).await;
        assert_eq!(gone.status, 400, "{gone:?}");
    }
}

#[tokio::test]
async fn schedules_do_not_change_the_tag_of_the_environment() {
    let export = "/api/admin/environments/production/export";
    for api in Api::of_both_kinds().await {
        let tag = async || {
            let answer = api.read(export).await;
            answer.header("etag").expect("an ETag").to_owned()
        };
        let before = tag().await;
        let url = format!("{CHECKOUT}/schedule");
        let plan = json!({"scheduledAt": "2099-01-01T00:00Z", "updates": {"rolloutPercentage": 7}});
        let scheduled = api.admin("POST", &url, &plan).await;
        assert_eq!(scheduled.status, 201, "{scheduled:?} on {}", api.store);
        let id = scheduled.json()["id"].as_str().expect("an id").to_owned();
        let url = format!("{url}/{id}");
        let cancelled = api.admin("DELETE", &url, &Value::Null).await;
        assert_eq!(cancelled.status, 200, "{cancelled:?} on {}", api.store);
        assert_eq!(tag().await, before, "on {}", api.store);
        let purge = "/api/admin/environments/production/purge";
        let purged = api.admin("POST", purge, &Value::Null).await;
        assert_eq!(purged.status, 200, "{purged:?} on {}", api.store);
        assert_ne!(tag().await, before, "on {}", api.store);
    }
}
