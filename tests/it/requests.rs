//! The requests of pennon.http, sent to the local server in the order of the file.

use std::path::Path;

use pennon_tests::local::{ADMIN_TOKEN, API_KEY, Local};

/// Every request of the file with the status of its response: 404 for ids that a reader must replace, 400 for actions
/// on a ramp that has ended, 409 for a webhook, which needs PostgreSQL.
const EXPECTED: &str = "\
200 GET /
200 GET /api/config/flags
200 GET /api/config/flags?environment=staging
200 GET /api/config/flags?userId=alice
200 GET /api/config/flags/new-checkout
200 GET /api/config/flags/new-checkout
200 PATCH /api/admin/flags/new-checkout
200 POST /api/admin/flags/new-checkout
200 GET /api/admin/flags
201 POST /api/admin/flags
200 GET /api/admin/flags/new-checkout
200 DELETE /api/admin/flags/dark-mode-2
200 POST /api/admin/flags/dark-mode-2/restore
200 DELETE /api/admin/flags/dark-mode-2
204 DELETE /api/admin/flags/dark-mode-2?permanently=true
200 POST /api/admin/flags/new-checkout/revert
200 GET /api/admin/flags/new-checkout/audit
200 GET /api/admin/flags/new-checkout/users?page=1&pageSize=50
201 POST /api/admin/flags/new-checkout/users
200 PUT /api/admin/flags/new-checkout/users?mode=merge
204 DELETE /api/admin/flags/new-checkout/users/alice
201 POST /api/admin/flags/new-checkout/schedule
200 GET /api/admin/flags/new-checkout/schedule
404 DELETE /api/admin/flags/new-checkout/schedule/5f3c1f0e-0000-4000-8000-000000000002
201 POST /api/admin/flags/new-checkout/ramp
200 GET /api/admin/flags/new-checkout/ramp
200 POST /api/admin/flags/new-checkout/ramp/pause
200 POST /api/admin/flags/new-checkout/ramp/resume
200 POST /api/admin/flags/new-checkout/ramp/advance
200 POST /api/admin/flags/new-checkout/ramp/rollback
400 POST /api/admin/flags/new-checkout/ramp/acknowledge
400 POST /api/admin/flags/new-checkout/ramp/cancel
200 POST /api/admin/flags/new-checkout/explain
200 GET /api/admin/me
200 GET /api/admin/environments
201 POST /api/admin/environments
200 PATCH /api/admin/flags/new-checkout?dryRun=true
200 GET /api/admin/environments/production/flags
200 GET /api/admin/environments/preview/settings
200 PUT /api/admin/environments/preview/settings
200 PUT /api/admin/environments/preview/settings?dryRun=true
200 GET /api/admin/environments/preview/export
200 POST /api/admin/environments/preview/import?dryRun=true
200 POST /api/admin/environments/preview/import
200 POST /api/admin/environments/preview/import?mode=merge
200 POST /api/admin/environments/preview/copy?dryRun=true
200 POST /api/admin/environments/preview/copy
200 POST /api/admin/environments/preview/purge
200 GET /api/admin/environments/preview/audit
200 GET /health
200 GET /health/live
200 GET /health/ready
200 GET /api/admin/flags/stale?days=30
200 GET /api/admin/flags/new-checkout/usage
201 POST /api/admin/keys
200 GET /api/admin/keys
404 DELETE /api/admin/keys/00000000-0000-4000-8000-000000000000
409 POST /api/admin/webhooks
200 GET /api/admin/webhooks
404 POST /api/admin/webhooks/0123456789abcdef0123456789abcdef/enable
404 DELETE /api/admin/webhooks/0123456789abcdef0123456789abcdef
200 POST /ofrep/v1/evaluate/flags/new-checkout
200 POST /ofrep/v1/evaluate/flags
200 GET /v1/flags
200 GET /v1/flags/production
202 POST /v1/evaluation-counts
";

/// One request of the file.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn parse(text: &str) -> Vec<Request> {
    let mut requests = Vec::new();
    for part in text.split("\n### ").skip(1) {
        let (_title, rest) = part.split_once('\n').expect("a title");
        let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
        let mut lines = head.lines();
        let line = lines.next().expect("a request line");
        let (method, url) = line.split_once(' ').expect("method and URL");
        let headers = lines.filter_map(|line| line.split_once(": "));
        requests.push(Request {
            method: method.to_owned(),
            path: url.strip_prefix("{{base}}").expect("our server").to_owned(),
            headers: headers
                .map(|(name, value)| {
                    let value = value.replace("{{token}}", ADMIN_TOKEN);
                    (name.to_owned(), value.replace("{{apiKey}}", API_KEY))
                })
                .collect(),
            body: body.trim().to_owned(),
        });
    }
    requests
}

#[tokio::test]
async fn every_request_of_pennon_http_gets_the_expected_status() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pennon.http");
    let local = Local::start(&[]).await;
    let mut statuses = Vec::new();
    for request in parse(&std::fs::read_to_string(path).expect("a file")) {
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = local
            .send(&request.method, &request.path, &headers, &request.body)
            .await;
        let Request { method, path, .. } = request;
        statuses.push(format!("{} {method} {path}", answer.status));
    }
    assert_eq!(statuses, EXPECTED.lines().collect::<Vec<_>>());
}
