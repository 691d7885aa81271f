//! A server that reads a request and responds with a constant, with the same HTTP library as the extension.

#![expect(clippy::expect_used, reason = "a benchmark")]

use axum::body::Bytes;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).expect("an address");
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .expect("a port");
    let router = axum::Router::new().fallback(async |_body: Bytes| {
        let headers = [("content-type", "application/json")];
        (
            headers,
            r#"{"key":"flag-500","value":true,"reason":"SPLIT","variant":"on"}"#,
        )
    });
    axum::serve(listener, router).await.expect("serves");
}
