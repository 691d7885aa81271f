//! The users of the caches have the permissions that functions and operators need, and no dangerous ones.

use pennon_tests::cluster::{Cluster, Shape};
use pennon_tests::event::Event;
use pennon_tests::lambda::Function;
use pennon_tests::redis::{KEY, Redis, Resp};
use pennon_tests::stack::{
    Stack, change_until_confirmed, percentage, raise_percentage_until_confirmed, set_percentage,
};
use serde_json::{Value, json};

const LIST: &str = "feature_flags:.environments";

/// The permissions that the template grants a user, as rules of `ACL SETUSER`.
fn rules(user: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml");
    let template = crate::template::parse(&std::fs::read_to_string(path).expect("the template"));
    let access = &template["Resources"][user]["Properties"]["AccessString"]["Fn::Sub"];
    let access = access.as_str().expect("an access string");
    let access = access.replace("${CacheKeyPrefix}", "");
    access.split_whitespace().map(str::to_owned).collect()
}

/// Creates both users on a server; each has its name as its password.
fn create_users(redis: &Redis) {
    for (name, user) in [("reader", "CacheReaderUser"), ("writer", "CacheWriterUser")] {
        let password = format!(">{name}");
        let mut words = vec![
            "ACL".to_owned(),
            "SETUSER".to_owned(),
            name.to_owned(),
            password,
        ];
        words.extend(rules(user));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(redis.command(&words), Resp::Text("OK".to_owned()));
    }
}

/// The commands that the server has denied, with their users, from its ACL log.
fn denied_commands(redis: &Redis) -> String {
    let log = redis.command(&["ACL", "LOG"]);
    if log == Resp::List(Vec::new()) {
        String::new()
    } else {
        format!("{log:?}")
    }
}

fn login(url: &str, name: &str) -> String {
    url.replace("://", &format!("://{name}:{name}@"))
}

/// Runs nine functions, each with the user that the template gives it, starting with an empty cache. Creates an
/// environment whose name begins with `environment_prefix`.
async fn use_functions(url: &str, database: &str, environment_prefix: &str) {
    let (reader, writer) = (login(url, "reader"), login(url, "writer"));
    let start = async |name: &str, url: &str| {
        let environment = [
            ("REDIS_URL", url),
            ("DATABASE_URL", database),
            ("REDIS_REPLICA_READS", "true"),
        ];
        Function::start(name, &environment).await
    };
    let get = start("get-flag", &reader).await;
    let update = start("update-flag", &writer).await;
    let mut percent = 10;
    for _ in 0..2 {
        percent = raise_percentage_until_confirmed(&update, "checkout", percent + 1).await;
        let answer = get.call(&Event::get("checkout")).await;
        assert_eq!(
            (percentage(&answer), answer.source()),
            (percent, "database")
        );
        assert_eq!(get.call(&Event::get("checkout")).await.source(), "memory");
    }
    let list = start("list-flags", &reader).await;
    assert_eq!(list.call(&Event::list()).await.source(), "redis");
    for _ in 0..2 {
        let unknown = Event::list().query("environment=zz");
        let answer = list.call(&unknown).await;
        assert_eq!(answer.header("x-unknown-environment"), Some("true"));
    }
    let health = start("health", &reader).await;
    let answer = health.call(&Event::load("health")).await;
    assert_eq!(answer.json()["services"]["cache"], "healthy", "{answer:?}");

    let keys = start("manage-keys", &writer).await;
    let body = json!({"kind": "server", "name": "test"}).to_string();
    let create = |_| Event::load("manage-keys").body(&body);
    let (_, made) = change_until_confirmed(&keys, create).await;
    let made = made.json();
    let key = made["key"].as_str().expect("a key");
    let context = json!({"targetingKey": "alice"});
    for (name, event) in [
        ("evaluate-flag", Event::evaluate("search", &context)),
        ("evaluate-flags", Event::evaluate_all(&context)),
    ] {
        let function = start(name, &reader).await;
        assert_eq!(
            function.call(&event.api_key(key)).await.status,
            200,
            "{name}"
        );
    }
    let environments = start("manage-environments", &writer).await;
    change_until_confirmed(&environments, |attempt| {
        let body = json!({"environment": format!("{environment_prefix}-{attempt}")}).to_string();
        Event::admin("POST", "/api/admin/environments", &body)
    })
    .await;
    let reconcile = start("reconcile", &writer).await;
    let done: Value = reconcile.invoke(&json!({})).await.expect("reconciles");
    assert_eq!(done["repaired"], 0, "{done}");
}

#[tokio::test]
async fn functions_work_with_their_users_on_a_single_redis() {
    let stack = Stack::start().await;
    let redis = Redis::start();
    create_users(&redis);
    use_functions(&redis.url(), &stack.database_url(), "fresh").await;
    assert_eq!(denied_commands(&redis), "");
    // A reader drops a value of another program and fills the entry.
    for (key, field) in [(KEY, "checkout"), (LIST, "__env")] {
        redis.command(&["HSET", key, field, "{}"]);
    }
    redis.command(&["SET", "feature_flags:fresh-1", "{}"]);
    let environment = [
        ("REDIS_URL", login(&redis.url(), "reader")),
        ("DATABASE_URL", stack.database_url()),
    ];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let list = Function::start("list-flags", &environment).await;
    for query in [
        "environment=zz",
        "environment=fresh-1",
        "environment=production",
    ] {
        list.call(&Event::list().query(query)).await;
    }
    assert_eq!(denied_commands(&redis), "");
    assert!(redis.has_entry());
    let other = Function::start("list-flags", &environment).await;
    for query in ["environment=fresh-1", "environment=production"] {
        let answer = other.call(&Event::list().query(query)).await;
        assert_eq!(answer.source(), "redis", "{query}");
    }
}

#[tokio::test]
async fn functions_work_with_their_users_on_a_cluster() {
    let stack = Stack::start().await;
    for (shape, environment_prefix) in [(Shape::ONE_SHARD, "one"), (Shape::SIX_NODES, "six")] {
        let cluster = Cluster::start_and_wait(shape).await;
        for node in &cluster.nodes {
            create_users(node);
        }
        use_functions(&cluster.url(), &stack.database_url(), environment_prefix).await;
        for node in &cluster.nodes {
            assert_eq!(denied_commands(node), "");
        }
    }
}

#[tokio::test]
async fn the_users_may_not_run_dangerous_commands() {
    let stack = Stack::start().await;
    let redis = Redis::start();
    create_users(&redis);
    redis.command(&["HSET", KEY, "a", "1"]);
    redis.command(&["HSET", "others", "a", "1"]);
    let as_user = |name: &str, words: &[&str]| redis.commands(&[&["AUTH", name, name], words]);
    let forbidden: [&[&str]; 17] = [
        &["FLUSHALL"],
        &["FLUSHDB"],
        &["CONFIG", "GET", "*"],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["KEYS", "*"],
        &["SCAN", "0"],
        &["ACL", "LIST"],
        &["SHUTDOWN"],
        &["SCRIPT", "FLUSH"],
        &["FUNCTION", "LIST"],
        &["CLUSTER", "RESET"],
        &["REPLICAOF", "NO", "ONE"],
        &["SET", KEY, "x"],
        &["HGETALL", "others"],
        &["MEMORY", "USAGE", "others"],
        &["MEMORY", "PURGE"],
        &["EVAL", "return redis.call('DEL', KEYS[1])", "1", "others"],
    ];
    for name in ["reader", "writer"] {
        for words in forbidden {
            let answer = as_user(name, words);
            let refused = matches!(&answer, Resp::Error(text) if text.contains("NOPERM") || text.contains("No permissions") || text.contains("no permissions"));
            assert!(refused, "{name}: {words:?}: {answer:?}");
        }
    }
    for words in [
        &["DEL", KEY][..],
        &["UNLINK", KEY],
        &["WAIT", "0", "1"],
        &["MEMORY", "USAGE", KEY],
        &["EVAL", "return redis.call('DEL', KEYS[1])", "1", KEY],
    ] {
        let answer = as_user("reader", words);
        assert!(
            matches!(answer, Resp::Error(_)),
            "reader: {words:?}: {answer:?}"
        );
    }
    let size = as_user("writer", &["MEMORY", "USAGE", KEY]);
    assert!(matches!(size, Resp::Number(bytes) if bytes > 0), "{size:?}");
    assert_eq!(as_user("writer", &["DEL", KEY]), Resp::Number(1));
    assert_eq!(
        redis.command(&["HGET", "others", "a"]),
        Resp::Text("1".to_owned())
    );
    // A function that changes flags with the reader's login reports an unconfirmed invalidation.
    let environment = [
        ("REDIS_URL", login(&redis.url(), "reader")),
        ("DATABASE_URL", stack.database_url()),
    ];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let update = Function::start("update-flag", &environment).await;
    let answer = set_percentage(&update, "checkout", 3).await;
    assert_eq!(answer.header("x-cache-invalidated"), Some("false"));
}
