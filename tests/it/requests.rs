//! The requests of pennon.http, in the order in which they stand there, sent to the local server.

use std::path::Path;

use pennon_tests::local::{ADMIN_TOKEN, API_KEY, Local};

/// One request of the file.
struct Request {
    title: String,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

fn parse(text: &str) -> Vec<Request> {
    let mut requests = Vec::new();
    for part in text.split("\n### ").skip(1) {
        let (title, rest) = part.split_once('\n').expect("a title");
        let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
        let mut lines = head.lines();
        let line = lines.next().expect("a request line");
        let (method, url) = line.split_once(' ').expect("method and URL");
        let headers = lines.filter_map(|line| line.split_once(": "));
        requests.push(Request {
            title: title.to_owned(),
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
async fn every_request_of_pennon_http_is_answered_as_its_title_promises() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pennon.http");
    let requests = parse(&std::fs::read_to_string(path).expect("a file"));
    assert!(requests.len() > 20);
    let local = Local::start(&[]).await;
    for request in requests {
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let answer = local
            .send(&request.method, &request.path, &headers, &request.body)
            .await;
        let expected = ["401", "404"].into_iter().find(|it| {
            request.title.ends_with(&format!("a {it}"))
                || request.title.contains(&format!("a {it} "))
        });
        let right = match expected {
            Some(status) => answer.status.to_string() == status,
            None => answer.status < 300,
        };
        assert!(right, "{}: {answer:?}", request.title);
    }
}
