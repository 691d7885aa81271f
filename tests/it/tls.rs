//! Connections are encrypted and certificates checked, unless a URL says otherwise in so many words.

use std::os::unix::fs::PermissionsExt;

use pennon_tests::certificates::Certificates;
use pennon_tests::event::Event;
use pennon_tests::fleet::Fleet;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::{Server, connect, hand_over, migrate};
use pennon_tests::process::free_port;
use pennon_tests::redis::Redis;
use pennon_tests::stack::{Stack, percentage};

/// The status of a read by an instance with this database.
async fn status_with(database_url: &str) -> u16 {
    let get = Function::start("get-flag", &[("DATABASE_URL", database_url)]).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert!([200, 503].contains(&answer.status), "{answer:?}");
    answer.status
}

#[tokio::test]
async fn postgresql_is_believed_only_with_a_certificate_for_its_name_from_a_trusted_authority() {
    let ours = Certificates::create();
    let others = Certificates::create();
    let settings = [
        "ssl=on",
        "ssl_cert_file=server.pem",
        "ssl_key_file=server.key",
    ];
    let server = Server::start(&settings, |folder| {
        for name in ["server.pem", "server.key"] {
            let copy = folder.join("data").join(name);
            std::fs::copy(ours.file(name), &copy).expect("copies");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&copy, private).expect("sets");
            hand_over(&copy);
        }
    })
    .await;
    let plain = server.url("postgres");
    migrate(&plain).await;
    connect(&plain)
        .await
        .expect("connects")
        .batch_execute("insert into feature_flags (flag_key, enabled) values ('checkout', true)")
        .await
        .expect("a flag");
    let base = plain.replace("?sslmode=disable", "");
    let with = |authorities: &Certificates, mode: &str| {
        format!(
            "{base}?sslmode={mode}&sslrootcert={}",
            authorities.file("ca.pem")
        )
    };
    assert_eq!(status_with(&with(&ours, "verify-full")).await, 200);
    assert_eq!(status_with(&with(&ours, "require")).await, 200);
    for (url, why) in [
        (with(&others, "verify-full"), "another authority"),
        (
            with(&others, "require"),
            "another authority, and a weaker word",
        ),
        (base.clone(), "not one of Amazon's"),
        (format!("{base}?sslmode=prefer"), "prefer is no way around"),
        (
            with(&ours, "verify-full").replace("127.0.0.1", "localhost"),
            "another name",
        ),
        (
            format!("{base}?sslrootcert=/no/such/file"),
            "no authorities",
        ),
    ] {
        assert_eq!(status_with(&url).await, 503, "{why}: {url}");
    }
}

#[tokio::test]
async fn a_postgresql_without_tls_is_not_talked_to_in_the_clear() {
    let stack = Stack::start().await;
    let url = stack.database.url().replace("?sslmode=disable", "");
    assert_eq!(status_with(&url).await, 503);
    assert_eq!(status_with(&stack.database.url()).await, 200);
}

#[tokio::test]
async fn redis_is_believed_only_with_a_certificate_for_its_name_from_a_trusted_authority() {
    let ours = Certificates::create();
    let others = Certificates::create();
    let port = free_port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &ours.file("server.pem"),
        "--tls-key-file",
        &ours.file("server.key"),
        "--tls-ca-cert-file",
        &ours.file("ca.pem"),
        "--tls-auth-clients",
        "no",
        "--requirepass",
        "secret",
    ]);
    let stack = Stack::start_with(Fleet::of(redis)).await;
    let database = stack.database.url();
    let (our_file, other_file) = (ours.file("ca.pem"), others.file("ca.pem"));
    for (host, authorities, source) in [
        ("127.0.0.1", Some(&our_file), "memory"),
        ("127.0.0.1", Some(&other_file), "database"),
        ("127.0.0.1", None, "database"),
        ("localhost", Some(&our_file), "database"),
    ] {
        let url = format!("rediss://:secret@{host}:{port}");
        let mut environment = vec![("REDIS_URL", url.as_str()), ("DATABASE_URL", &database)];
        if let Some(file) = authorities {
            environment.push(("REDIS_CA_FILE", file));
        }
        let get = Function::start("get-flag", &environment).await;
        get.call(&Event::get("checkout")).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(
            (percentage(&answer), answer.source()),
            (50, source),
            "{host}, {authorities:?}: {}",
            get.log()
        );
    }
}
