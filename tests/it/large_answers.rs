//! Responses larger than Lambda allows: they are shortened or rejected, and never an error of the function.

use pennon_core::http::MAX_RESPONSE_SIZE;
use pennon_tests::api::Api;
use pennon_tests::response::Response;
use serde_json::{Value, json};

const FLAGS: &str = "/api/admin/flags";
const IMPORT: &str = "/api/admin/environments/production/import";
const SETTINGS: &str = "/api/admin/environments/production/settings";

async fn sql(api: &Api, text: &str) {
    let stack = api.stack();
    stack.database.sql().batch_execute(text).await.expect(text);
}

/// The size of a body as a JSON string, which is how Lambda receives it.
fn size_for_lambda(answer: &Response) -> usize {
    Value::from(answer.body.as_str()).to_string().len() - 2
}

fn assert_fits(answer: &Response) {
    let size = size_for_lambda(answer);
    assert!(size <= MAX_RESPONSE_SIZE, "{size} bytes");
}

/// Sends a `GET`, and checks that the response fits.
async fn read(api: &Api, path: &str) -> Response {
    let answer = api.read(path).await;
    assert_fits(&answer);
    assert!(
        answer.status < 500,
        "{} {}",
        answer.status,
        &answer.body[..200.min(answer.body.len())]
    );
    answer
}

#[tokio::test]
async fn a_list_of_large_flags_omits_as_many_definitions_as_needed_and_a_smaller_page_contains_them()
 {
    let api = Api::on_postgres().await;
    // Each quotation mark takes four bytes: it is escaped in the body, and the body is escaped for Lambda.
    sql(
        &api,
        "insert into feature_flags (flag_key, environment, enabled, definition)
           select 'large-' || number, 'production', true,
                  json_build_object('variants', json_build_object('a', repeat('\"', 100000)))
           from generate_series(1, 20) as number",
    )
    .await;
    let list = read(&api, &format!("{FLAGS}?pageSize=1000")).await;
    assert_eq!(list.status, 200);
    let list = list.json();
    let flags = list["flags"].as_array().expect("flags");
    assert_eq!(flags.len(), 23);
    let omitted = |flag: &&Value| flag["definition"]["omittedBytes"].as_u64() > Some(300_000);
    assert_eq!(flags.iter().filter(omitted).count(), 6);
    let page = read(&api, &format!("{FLAGS}?pageSize=3&search=large"))
        .await
        .json();
    assert_eq!(
        page["flags"][0]["definition"]["variants"]["a"]
            .as_str()
            .map(str::len),
        Some(100_000)
    );
    let one = read(&api, &format!("{FLAGS}/large-1")).await.json();
    assert_eq!(one["definition"], page["flags"][0]["definition"]);
}

#[tokio::test]
async fn a_flag_too_large_for_a_response_is_read_changed_and_archived() {
    for column in [
        "json_build_object('variants', json_build_object('a', repeat('x', 7000000)))",
        // A definition that cannot be parsed; a response usually contains its text.
        "to_json(repeat('\"', 2000000))",
    ] {
        let api = Api::on_postgres().await;
        sql(
            &api,
            &format!(
                "insert into feature_flags (flag_key, environment, enabled, definition)
               values ('huge', 'production', true, {column})"
            ),
        )
        .await;
        let url = format!("{FLAGS}/huge");
        let shown = read(&api, &url).await;
        assert_eq!(shown.status, 200, "{column}");
        assert!(shown.body.contains("omittedBytes"), "{column}");
        assert_eq!(read(&api, FLAGS).await.status, 200, "{column}");
        let changed = api.admin("PATCH", &url, &json!({"enabled": false})).await;
        assert_eq!(changed.status, 200, "{column}");
        let archived = api.admin_if("*", "DELETE", &url, &Value::Null).await;
        assert_fits(&archived);
        assert_eq!(
            (archived.status, archived.json()["archivedAt"].is_string()),
            (200, true)
        );
        let audit = read(&api, &format!("{url}/audit")).await;
        assert_eq!(audit.status, 200, "{column}");
    }
}

#[tokio::test]
async fn old_schedules_are_omitted_from_a_list_that_would_be_too_large() {
    let api = Api::on_postgres().await;
    sql(
        &api,
        "insert into feature_flag_schedules (flag_id, scheduled_at, status, updates, error_message)
           select id, timestamptz '2020-01-01' + number * interval '1 minute', 'failed',
                  '{\"enabled\": true}', repeat('m', 500)
           from feature_flags, generate_series(1, 10000) as number where flag_key = 'checkout';
         insert into feature_flag_schedules (flag_id, scheduled_at, status, updates)
           select id, '2099-01-01', 'pending', '{\"enabled\": true}' from feature_flags
           where flag_key = 'checkout'",
    )
    .await;
    let listed = read(&api, "/api/admin/flags/checkout/schedule").await;
    assert_eq!(listed.status, 200);
    let omitted: usize = listed
        .header("x-omitted-schedules")
        .expect("a header")
        .parse()
        .expect("a number");
    let all = listed.json();
    let all = all.as_array().expect("a list");
    assert_eq!(all.len() + omitted, 10_001);
    assert!(omitted > 100 && size_for_lambda(&listed) > MAX_RESPONSE_SIZE - 2_000);
    assert_eq!(all.last().expect("one")["status"], "pending");
    let times: Vec<&str> = all
        .iter()
        .map(|one| one["scheduledAt"].as_str().expect("a time"))
        .collect();
    assert!(
        times.is_sorted() && times[0] > "2020-01-01T01",
        "newer ones are left out: {}",
        times[0]
    );
    let other = read(&api, "/api/admin/flags/search/schedule").await;
    assert_eq!(other.header("x-omitted-schedules"), None);
}

#[tokio::test]
async fn lists_of_keys_stale_flags_and_overrides_come_in_pages_that_fit() {
    let api = Api::on_postgres().await;
    sql(
        &api,
        "insert into pennon_api_keys (environment, kind, name, hash, created_by, revoked_at)
           select 'production', 'client', repeat('n', 100), lpad(to_hex(number), 64, '0'), 'test', now()
           from generate_series(1, 20000) as number;
         insert into feature_flags (flag_key, environment, enabled, created_at, updated_at)
           select repeat('k', 700) || number, 'production', false, '2020-01-01', '2020-01-01'
           from generate_series(1, 9000) as number;
         insert into feature_flag_user_overrides (flag_id, user_id, override_type, reason)
           select id, 'user-' || number, 'include', repeat('\"', 2000)
           from feature_flags, generate_series(1, 1000) as number where flag_key = 'checkout'",
    )
    .await;
    for (path, total) in [
        ("/api/admin/keys?environment=production", 20_000),
        ("/api/admin/flags/stale?days=1", 9_000),
        ("/api/admin/flags/checkout/users?pageSize=1000", 1_000),
    ] {
        let whole = read(&api, path).await;
        assert_eq!(whole.status, 409, "{path}");
        assert!(whole.body.contains("pageSize"), "{whole:?}");
        let part = read(
            &api,
            &format!("{path}&page=2&pageSize=10").replace("pageSize=1000&", ""),
        )
        .await;
        assert_eq!(part.status, 200, "{path}");
        let body = part.json();
        let lists =
            ["keys", "flags", "includes"].map(|name| body[name].as_array().map_or(0, Vec::len));
        assert_eq!(lists.iter().sum::<usize>(), 10, "{path}");
        assert_eq!(
            body["pagination"],
            json!({"page": 2, "pageSize": 10, "total": total}),
            "{path}"
        );
    }
    // No flag with such a key can be created, but existing ones can be listed and archived.
    assert_eq!(
        read(&api, &format!("{FLAGS}?pageSize=1000")).await.status,
        200
    );
    assert_eq!(
        read(&api, "/api/admin/environments/production/export")
            .await
            .status,
        409
    );
    let flag = json!({"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"});
    let file = json!({"flags": {"new": flag}});
    let replaced = api.admin_if("*", "POST", IMPORT, &file).await;
    assert_fits(&replaced);
    assert_eq!(replaced.status, 200, "{}", &replaced.body[..200]);
    let body = replaced.json();
    // A short list keeps an entry, so that this kind of change is still visible.
    assert_eq!(body["created"], json!([{"key": "new"}]));
    let listed = body["archived"].as_array().map_or(0, Vec::len);
    let omitted = body["omitted"]
        .as_u64()
        .and_then(|number| usize::try_from(number).ok());
    assert_eq!(listed + omitted.expect("a number"), 9_003);
}

/// An API whose production has settings that are too large for a response.
async fn with_large_settings() -> Api {
    let api = Api::on_postgres().await;
    sql(
        &api,
        "insert into pennon_environment_settings (environment, settings)
           values ('production', json_build_object('metadata', json_build_object('m', repeat('x', 7000000))))",
    )
    .await;
    api
}

#[tokio::test]
async fn settings_too_large_for_a_response_can_be_replaced() {
    let api = with_large_settings().await;
    let shown = read(&api, SETTINGS).await;
    assert_eq!(shown.status, 409);
    assert_eq!(read(&api, "/api/admin/environments").await.status, 200);
    let replaced = api.admin_if("*", "PUT", SETTINGS, &json!({})).await;
    assert_eq!(
        (replaced.status, size_for_lambda(&replaced) < 1_000),
        (200, true)
    );
    assert_eq!(read(&api, SETTINGS).await.status, 200);
}

#[tokio::test]
async fn an_import_that_replaces_settings_too_large_for_a_response_says_what_it_changes() {
    let api = with_large_settings().await;
    for path in [format!("{IMPORT}?dryRun=true"), IMPORT.to_owned()] {
        let body = json!({"flags": {}, "metadata": {"team": "shop"}});
        let answer = api.admin_if("*", "POST", &path, &body).await;
        assert_fits(&answer);
        assert_eq!(answer.status, 200, "{path}");
        let answer = answer.json();
        // They change; the states before and after are left out.
        assert_eq!(answer["settings"], json!({}), "{path}");
        assert_eq!(answer["archived"].as_array().map(Vec::len), Some(3));
    }
}
