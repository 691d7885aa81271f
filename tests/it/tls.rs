//! Connections are encrypted and certificates verified, unless a URL explicitly turns that off.

use pennon_tests::certificates::Certificates;
use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::postgres::{Database, Server, connect, migrate};
use pennon_tests::redis::Redis;
use pennon_tests::stack::{LONG_CACHE_TIMEOUTS, Stack, percentage};
use pennon_tests::topology::{Topology, WiredRedis};

/// Values of `sslmode` in a URL, including none and unknown ones.
const MODES: [Option<&str>; 8] = [
    None,
    Some("disable"),
    Some("allow"),
    Some("prefer"),
    Some("require"),
    Some("verify-ca"),
    Some("verify-full"),
    Some("DISABLE"),
];

/// The status of a read by an instance with this database.
async fn status_with(database_url: &str) -> u16 {
    let get = Function::start("get-flag", &[("DATABASE_URL", database_url)]).await;
    let answer = get.call(&Event::get("checkout")).await;
    assert!([200, 503].contains(&answer.status), "{answer:?}");
    answer.status
}

#[tokio::test]
async fn postgresql_needs_a_valid_certificate_in_every_sslmode_but_disable() {
    let ours = Certificates::create();
    let others = Certificates::create();
    let server = Server::start_encrypted(&ours).await;
    let plain = server.url("postgres");
    migrate(&plain).await;
    connect(&plain)
        .await
        .expect("connects")
        .batch_execute("insert into feature_flags (flag_key, enabled) values ('checkout', true)")
        .await
        .expect("a flag");
    let clear = Database::create().await;
    clear.add_flag("checkout", true, 50).await;
    let missing = "/no/such/file".to_owned();
    let authorities = [
        ("ours", Some(ours.file("ca.pem"))),
        ("others", Some(others.file("ca.pem"))),
        ("none", None),
        ("missing", Some(missing)),
    ];
    let mut connected = Vec::new();
    for (server, base) in [("TLS", plain), ("clear", clear.url())] {
        let base = base.replace("?sslmode=disable", "");
        for mode in MODES {
            for (whose, file) in &authorities {
                let mode = mode.map(|mode| format!("sslmode={mode}"));
                let file = file.as_ref().map(|file| format!("sslrootcert={file}"));
                let query: Vec<String> = mode.into_iter().chain(file).collect();
                let query = query.join("&");
                if status_with(&format!("{base}?{query}")).await == 200 {
                    let mode = query.split('&').next().filter(|one| one.contains("mode"));
                    connected.push(format!("{server} {} {whose}", mode.unwrap_or("-")));
                }
            }
        }
        // A host name that the certificate does not contain.
        let file = ours.file("ca.pem");
        let other_name = base.replace("127.0.0.1", "localhost");
        let url = format!("{other_name}?sslmode=verify-full&sslrootcert={file}");
        assert_eq!(status_with(&url).await, 503, "{server}");
    }
    let mut expected = Vec::new();
    for mode in ["-", "prefer", "require", "verify-ca", "verify-full"] {
        let mode = if mode == "-" {
            mode.to_owned()
        } else {
            format!("sslmode={mode}")
        };
        expected.push(format!("TLS {mode} ours"));
    }
    // `sslmode=disable` turns protection off, whatever else the URL contains.
    for server in ["TLS", "clear"] {
        for (whose, _) in &authorities {
            expected.push(format!("{server} sslmode=disable {whose}"));
        }
    }
    connected.sort();
    expected.sort();
    assert_eq!(connected, expected);
}

#[tokio::test]
async fn redis_needs_a_certificate_for_its_name_from_a_trusted_authority() {
    let ours = Certificates::create();
    let others = Certificates::create();
    let (redis, port) = Redis::start_encrypted(&ours, "secret");
    let stack = Stack::start_with(WiredRedis::of(redis)).await;
    let database = stack.database.url();
    let (our_file, other_file) = (ours.file("ca.pem"), others.file("ca.pem"));
    let clear = stack.redis.port();
    for (scheme, host, port, authorities, source) in [
        ("rediss", "127.0.0.1", port, Some(&our_file), "memory"),
        ("rediss", "127.0.0.1", port, Some(&other_file), "database"),
        ("rediss", "127.0.0.1", port, None, "database"),
        ("rediss", "localhost", port, Some(&our_file), "database"),
        // With TLS on one side only, there is no connection. The last case has TLS on neither side.
        ("rediss", "127.0.0.1", clear, Some(&our_file), "database"),
        ("redis", "127.0.0.1", port, Some(&our_file), "database"),
        ("redis", "127.0.0.1", clear, None, "memory"),
    ] {
        let url = format!("{scheme}://:secret@{host}:{port}");
        let mut environment = vec![("REDIS_URL", url.as_str()), ("DATABASE_URL", &database)];
        environment.extend(LONG_CACHE_TIMEOUTS);
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

#[tokio::test]
async fn a_cluster_needs_a_certificate_from_a_trusted_authority() {
    let stack = Stack::start_on(Topology::SecuredCluster).await;
    let others = Certificates::create();
    let other_file = others.file("ca.pem");
    let other_authority = [("REDIS_CA_FILE", other_file.as_str())];
    for (environment, source) in [(&[][..], "memory"), (&other_authority[..], "database")] {
        let get = stack.function_with("get-flag", environment).await;
        get.call(&Event::get("checkout")).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(
            (percentage(&answer), answer.source()),
            (50, source),
            "{environment:?}: {}",
            get.log()
        );
    }
}
