//! Several installations on one Redis: each serves its own flags, whatever the other does.

use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::local::Local;
use pennon_tests::postgres::Database;
use pennon_tests::process::new_folder;
use pennon_tests::secrets::SecretsManager;
use pennon_tests::stack::{Stack, percentage, set_percentage};
use pennon_tests::topology::Topology;
use pennon_tests::wire::Mode;

/// The log of a server that finds entries of another installation.
const OTHER: &str = "another installation keeps its flags";

/// A second database with the same flag at another percentage and the same revision, as when both were restored from
/// one backup.
async fn second_installation(stack: &Stack) -> Database {
    let other = Database::create().await;
    other.add_flag("checkout", true, 7).await;
    let revision = stack.database.revision("production").await + 1_000_000;
    let statement = format!(
        "update pennon_environments set revision = {revision} where environment = 'production'"
    );
    for database in [&stack.database, &other] {
        let sql = database.sql();
        sql.batch_execute(&statement).await.expect("a revision");
    }
    other
}

async fn two_installations_on_one_redis_never_serve_each_others_flags(on: Topology) {
    let stack = Stack::start_on(on).await;
    let other = second_installation(&stack).await;
    let url = other.url();
    let theirs = [
        ("INSTALLATION_ID", "theirs"),
        ("DATABASE_URL", url.as_str()),
    ];
    let ours = stack.function("get-flag").await;
    let event = Event::get("checkout");

    assert_eq!(percentage(&ours.call(&event).await), 50);
    assert_eq!(ours.call(&event).await.source(), "memory");
    // The first call of a new instance, and a second one when it is warm. Neither uses the entry in Redis, which has
    // the revision of both databases.
    let get = stack.function_with("get-flag", &theirs).await;
    for _ in 0..2 {
        let answer = get.call(&event).await;
        assert_eq!(percentage(&answer), 7);
        assert_eq!(answer.header("x-cache-hit"), Some("false"));
    }
    let reports = get.lines().into_iter().filter(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("CACHE_KEY_PREFIX")
    });
    assert_eq!(reports.count(), 1, "not logged once: {}", get.log());

    let update = stack.function_with("update-flag", &theirs).await;
    let reconcile = stack.function_with("reconcile", &theirs).await;
    for percent in [8, 9, 10] {
        set_percentage(&update, "checkout", percent).await;
        // Our instance fills the entry again, with the revision that the other database had before its first update.
        assert_eq!(percentage(&ours.call(&event).await), 50);
        assert_eq!(percentage(&get.call(&event).await), percent);
        reconcile
            .invoke(&serde_json::json!({}))
            .await
            .expect("runs");
        assert_eq!(percentage(&ours.call(&event).await), 50);
        assert_eq!(percentage(&get.call(&event).await), percent);
    }
}

async fn a_key_prefix_gives_each_installation_entries_of_its_own(on: Topology) {
    let stack = Stack::start_on(on).await;
    let other = second_installation(&stack).await;
    let url = other.url();
    let theirs = [
        ("INSTALLATION_ID", "theirs"),
        ("DATABASE_URL", url.as_str()),
        ("CACHE_KEY_PREFIX", "theirs:"),
    ];
    let event = Event::get("checkout");
    for (environment, percent) in [(&[][..], 50), (&theirs[..], 7)] {
        let first = stack.function_with("get-flag", environment).await;
        assert_eq!(first.call(&event).await.source(), "database");
        let second = stack.function_with("get-flag", environment).await;
        let answer = second.call(&event).await;
        assert_eq!((percentage(&answer), answer.source()), (percent, "redis"));
    }
    // A change of one does not touch the entry of the other.
    let update = stack.function_with("update-flag", &theirs).await;
    set_percentage(&update, "checkout", 8).await;
    let ours = stack.function("get-flag").await;
    assert_eq!(ours.call(&event).await.source(), "redis");
}

async fn without_a_setting_the_address_of_the_database_identifies_the_installation(on: Topology) {
    let stack = Stack::start_on(on).await;
    let other = second_installation(&stack).await;
    let (plain, url) = (stack.database.url(), other.url());
    // The URL of the same database, written differently.
    let spelled = plain.replace("pennon@127.0.0.1", "%70ennon@127.0.0.1");
    assert_ne!(spelled, plain);
    let event = Event::get("checkout");
    let start = async |url: &str| {
        let environment = [("INSTALLATION_ID", ""), ("DATABASE_URL", url)];
        stack.function_with("get-flag", &environment).await
    };
    assert_eq!(start(&plain).await.call(&event).await.source(), "database");
    let same = start(&spelled).await.call(&event).await;
    assert_eq!((percentage(&same), same.source()), (50, "redis"));
    let different = start(&url).await.call(&event).await;
    assert_eq!(
        (percentage(&different), different.source()),
        (7, "database")
    );
}

async fn an_instance_without_an_installation_id_trusts_no_entry(on: Topology) {
    let stack = Stack::start_on(on).await;
    let event = Event::get("checkout");
    stack.function("get-flag").await.call(&event).await;
    assert!(stack.redis.has_entry());
    let environment = [("INSTALLATION_ID", ""), ("DATABASE_URL", "no URL")];
    let without_id: Function = stack.function_with("get-flag", &environment).await;
    let answer = without_id.call(&event).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        without_id.log().contains("INSTALLATION_ID"),
        "{}",
        without_id.log()
    );
    // With an id, it may serve the entry in Redis while the database is unavailable.
    let named = stack
        .function_with("get-flag", &[("DATABASE_URL", "no URL")])
        .await;
    assert_eq!(percentage(&named.call(&event).await), 50);
}

#[tokio::test]
async fn another_installation_is_logged_after_the_id_was_unknown() {
    let stack = Stack::start().await;
    let event = Event::get("checkout");
    let ours = stack.function("get-flag").await;
    assert_eq!(percentage(&ours.call(&event).await), 50);
    let manager = SecretsManager::start().await;
    let database = manager.create("database", &stack.database_url()).await;
    let (wire, endpoint) = manager.behind_a_wire();
    wire.set(Mode::Refuse).await;
    let environment = [
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", endpoint.as_str()),
        ("DATABASE_SECRET_ARN", &database),
        ("REDIS_URL", &stack.redis_url()),
        ("INSTALLATION_ID", ""),
    ];
    let get = manager.function("get-flag", &environment).await;
    assert_eq!(get.call(&event).await.status, 503);
    assert!(get.log().contains("unknown_installation"), "{}", get.log());
    wire.set(Mode::Open).await;
    pennon_tests::eventually("the secret is read", async || {
        get.call(&event).await.status == 200
    })
    .await;
    get.call(&event).await;
    let log = get.log();
    assert_eq!(log.matches("\"unknown_installation\"").count(), 1, "{log}");
    assert_eq!(log.matches("\"other_installation\"").count(), 1, "{log}");
}

#[tokio::test]
async fn flag_files_at_the_same_path_are_different_installations() {
    let stack = Stack::start().await;
    let folder = new_folder("same-path");
    let environment = [("INSTALLATION_ID", ""), ("REDIS_URL", &*stack.redis.url())];
    let path = "/api/config/flags/new-checkout";
    let mut staging = Local::start_in(folder.clone(), &environment).await;
    let url = "/api/admin/flags/new-checkout";
    staging.patch(url, r#"{"rolloutPercentage":99}"#).await;
    assert_eq!(percentage(&staging.get(path).await), 99);
    assert!(stack.redis.has_entry());
    staging.restart().await;
    assert_eq!(percentage(&staging.get(path).await), 99);
    assert!(!staging.log().contains(OTHER), "the id changed");
    eventually("the restarted server has filled the entry", async || {
        staging.get(path).await.source() == "memory"
    })
    .await;
    assert!(stack.redis.has_entry());
    // Removes the folder.
    drop(staging);

    // As in another container, whose volume has the same path.
    std::fs::create_dir(&folder).expect("a folder");
    let production = Local::start_in(folder, &environment).await;
    let answer = production.get(path).await;
    assert_eq!((percentage(&answer), answer.source()), (5, "database"));
    assert!(production.log().contains(OTHER), "{}", production.log());
}

on_readable_redis!(
    two_installations_on_one_redis_never_serve_each_others_flags,
    a_key_prefix_gives_each_installation_entries_of_its_own,
    without_a_setting_the_address_of_the_database_identifies_the_installation,
    an_instance_without_an_installation_id_trusts_no_entry,
);
