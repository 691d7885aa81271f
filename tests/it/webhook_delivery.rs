//! Change events on their way to webhooks: from a change to receivers that fail, hang or respond with garbage.

use std::time::{Duration, SystemTime};

use pennon_core::webhooks::{Format, Webhook};
use pennon_tests::event::Event;
use pennon_tests::eventually;
use pennon_tests::lambda::Function;
use pennon_tests::local::{ADMIN_TOKEN, Local};
use pennon_tests::receiver::{Behaviour, Received, Receiver};
use pennon_tests::stack::Stack;
use pennon_tests::webhook_function::WebhookFunction;
use pennon_tests::wire::Mode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A deployment whose functions send to receivers on this machine.
struct Setup {
    stack: Stack,
    lambda: WebhookFunction,
    update: Function,
    keys: Function,
    reconcile: Function,
}

impl Setup {
    async fn start() -> Self {
        Self::start_with(WebhookFunction::to_this_machine().await).await
    }

    async fn start_with(lambda: WebhookFunction) -> Self {
        let stack = Stack::start().await;
        let environment = lambda.environment();
        Self {
            update: stack.function("update-flag").await,
            keys: stack.function_with("manage-keys", &environment).await,
            reconcile: stack.function_with("reconcile", &environment).await,
            stack,
            lambda,
        }
    }

    /// Adds a webhook of production.
    async fn webhook(&self, id: &str, url: &str, format: Format) {
        self.webhook_in("production", id, url, format).await;
    }

    /// Adds a webhook by SQL, because the API rejects the URLs of this machine.
    async fn webhook_in(&self, environment: &str, id: &str, url: &str, format: Format) {
        let webhook = Webhook {
            id: id.to_owned(),
            name: id.to_owned(),
            origin: "https://127.0.0.1".to_owned(),
            format,
            created_at: SystemTime::now(),
            created_by: "alice".to_owned(),
            revision: 1,
            disabled: None,
            delivered_at: None,
            outage: None,
        };
        let webhook = serde_json::to_string(&webhook).expect("JSON");
        let statement = "
            with webhook as (
              insert into pennon_webhooks (id, environment, enabled, webhook)
              values ($1, $5, true, $2::text::json) returning id)
            insert into pennon_webhook_destinations (webhook_id, url, secret)
            select id, $3, $4 from webhook";
        let sql = self.stack.database.sql();
        let added = sql
            .execute(statement, &[&id, &webhook, &url, &SECRET, &environment])
            .await;
        added.expect("a webhook");
    }

    /// Adds webhooks, each given by its environment and id. After each, `checkout` changes once in that environment.
    async fn webhooks_with_events(&self, receiver: &Receiver, webhooks: &[(&str, &str)]) {
        self.sql(
            "insert into feature_flags (flag_key, environment) values ('checkout', 'staging')",
        )
        .await;
        for (environment, id) in webhooks {
            let url = receiver.url();
            self.webhook_in(environment, id, &url, Format::Json).await;
            let event = Event::update("checkout", &json!({"rolloutPercentage": 1}));
            let event = event.query(&format!("environment={environment}"));
            let changed = self.update.call(&event).await;
            assert_eq!(changed.status, 200, "{changed:?}");
        }
    }

    /// Another `reconcile`, with this `DATABASE_TIMEOUT_MS`.
    async fn reconcile_with_timeout(&self, milliseconds: &str) -> Function {
        let mut environment = self.lambda.environment().to_vec();
        environment.push(("DATABASE_TIMEOUT_MS", milliseconds));
        self.stack.function_with("reconcile", &environment).await
    }

    async fn change(&self, key: &str, percentage: u8) {
        let body = json!({ "rolloutPercentage": percentage });
        let answer = self.update.call(&Event::update(key, &body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Makes all enabled webhooks due, as after their pauses and leases, and runs `reconcile`.
    async fn reconcile(&self) -> Result<Value, Value> {
        let due = "update pennon_webhooks set due_at = now() where enabled";
        self.sql(due).await;
        self.reconcile
            .invoke(Event::load("reconcile").value())
            .await
    }

    async fn sql(&self, statement: &str) {
        let done = self.stack.database.sql().batch_execute(statement).await;
        done.expect("SQL");
    }

    /// The number of undelivered events of a webhook.
    async fn waiting(&self, id: &str) -> i64 {
        let statement = "select count(*) from pennon_outbox where destination = $1";
        let row = self.stack.database.sql().query_one(statement, &[&id]).await;
        row.expect("a row").get(0)
    }

    /// A webhook as the API shows it.
    async fn shown(&self, id: &str) -> Value {
        let answer = self.keys.call(&Event::load("manage-keys-webhooks")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut list = answer.json();
        let webhooks = list["webhooks"].as_array_mut().expect("a list");
        webhooks.retain(|webhook| webhook["id"] == id);
        webhooks.pop().expect("a webhook")
    }

    /// The status of an admin's request about a webhook.
    async fn admin(&self, method: &str, path: &str) -> u16 {
        let event = Event::admin(method, path, "").header("if-match", "*");
        self.keys.call(&event).await.status
    }
}

/// The events of these requests, one after the other.
fn events(requests: &[Received]) -> Vec<Value> {
    let bodies = requests.iter().map(Received::json);
    let events = bodies.flat_map(|body| body["events"].as_array().expect("events").clone());
    events.collect()
}

/// The sequence numbers of the events of a flag, in the order of their arrival.
fn sequence_numbers(requests: &[Received], key: &str) -> Vec<i64> {
    let events = events(requests).into_iter();
    let of_flag = events.filter(|event| event["flagKey"] == key);
    of_flag
        .map(|event| event["sequence"].as_i64().expect("a number"))
        .collect()
}

#[tokio::test]
async fn a_change_is_delivered_once_and_signed() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("one", &receiver.url(), Format::Json).await;
    setup.change("checkout", 25).await;
    for _ in 0..2 {
        setup.reconcile().await.expect("a run");
    }
    let received = receiver.received();
    assert_eq!(received.len(), 1, "{received:?}");
    assert!(received[0].is_signed_with(SECRET));
    let event = &events(&received)[0];
    assert_eq!(event["action"], "flag.update");
    assert_eq!(event["flagKey"], "checkout");
    assert_eq!(event["sequence"], 1);
    assert_eq!(event["before"]["rolloutPercentage"], 50);
    assert_eq!(event["after"]["rolloutPercentage"], 25);
    assert_eq!(setup.waiting("one").await, 0);
    let shown = setup.shown("one").await;
    assert!(shown["deliveredAt"].is_string() && shown["outage"].is_null());
    let invoked = setup.lambda.invocations();
    assert_eq!(
        invoked,
        ["/2015-03-31/functions/pennon-send-webhooks/invocations?Qualifier=live"]
    );
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_all_events_in_order() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("one", &receiver.url(), Format::Json).await;
    for failure in [Behaviour::Answer(503), Behaviour::Close, Behaviour::Garbage] {
        receiver.behave(failure);
        for percentage in [1, 2] {
            setup.change("checkout", percentage).await;
            setup.change("search", percentage).await;
        }
        setup.reconcile().await.expect("a run");
    }
    let failed = receiver.received().len();
    assert_eq!(failed, 3);
    let shown = setup.shown("one").await;
    assert_eq!(shown["outage"]["attempts"], 3, "{shown}");
    assert!(shown["deliveredAt"].is_null() && shown["disabled"].is_null());
    receiver.behave(Behaviour::Answer(200));
    setup.reconcile().await.expect("a run");
    let received = receiver.received().split_off(failed);
    for key in ["checkout", "search"] {
        let found = sequence_numbers(&received, key);
        assert_eq!(found, [1, 2, 3, 4, 5, 6], "{key}");
    }
    assert!(setup.shown("one").await["outage"].is_null());
}

#[tokio::test]
async fn a_long_backlog_is_delivered_in_requests_of_limited_size() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("one", &receiver.url(), Format::Json).await;
    for percentage in 0..45 {
        setup.change("checkout", percentage).await;
    }
    setup.reconcile().await.expect("a run");
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    let all: Vec<i64> = (1..=45).collect();
    assert_eq!(sequence_numbers(&received, "checkout"), all);
    // Three states of 240 kB exceed half a megabyte, two do not.
    let enlarge = "update pennon_audit set after = json_build_object('text', repeat('x', 240000))";
    for percentage in [50, 51, 52] {
        setup.change("checkout", percentage).await;
    }
    setup.sql(enlarge).await;
    setup.reconcile().await.expect("a run");
    let large = receiver.received().split_off(3);
    let sizes: Vec<usize> = large
        .iter()
        .map(|it| events(std::slice::from_ref(it)).len())
        .collect();
    assert_eq!(sizes, [2, 1]);
}

#[tokio::test]
async fn receivers_that_hang_or_never_end_a_response_do_not_stop_the_requests_of_others() {
    let setup = Setup::start().await;
    let good = Receiver::start().await;
    let behaviours = [
        ("hangs", Behaviour::Silence, "no response within 1000 ms"),
        ("slow", Behaviour::SlowHead, "no response within 1000 ms"),
        (
            "error",
            Behaviour::EndlessBody(500),
            "the receiver answered 500",
        ),
    ];
    let mut bad = Vec::new();
    for (id, behaviour, _) in &behaviours {
        let receiver = Receiver::start().await;
        receiver.behave(behaviour.clone());
        setup.webhook(id, &receiver.url(), Format::Json).await;
        bad.push(receiver);
    }
    setup.webhook("good", &good.url(), Format::Json).await;
    setup.change("checkout", 25).await;
    setup.reconcile().await.expect("a run");
    assert_eq!(sequence_numbers(&good.received(), "checkout"), [1]);
    for (id, _, reason) in behaviours {
        let shown = setup.shown(id).await;
        assert_eq!(shown["outage"]["error"], reason, "{shown}");
        assert_eq!(setup.waiting(id).await, 1);
    }
    // One request each: the next attempt waits for its time.
    let rest = setup
        .reconcile
        .invoke(Event::load("reconcile").value())
        .await;
    rest.expect("a run");
    assert!(bad.iter().all(|receiver| receiver.received().len() == 1));
    // The status suffices: an answer with junk in its body is a success.
    bad[0].behave(Behaviour::EndlessBody(200));
    setup.reconcile().await.expect("a run");
    assert_eq!(setup.waiting("hangs").await, 0);
}

#[tokio::test]
async fn with_a_slow_database_a_round_leases_fewer_webhooks() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    for id in ["one", "two"] {
        setup.webhook(id, &receiver.url(), Format::Json).await;
    }
    setup.change("checkout", 25).await;
    // Leasing one webhook takes longer than a round may spend on leases.
    let slow = Mode::Delay(Duration::from_millis(600));
    setup.stack.database_wire.set(slow).await;
    eventually("all events are delivered", async || {
        setup.reconcile().await.expect("a run");
        setup.waiting("one").await + setup.waiting("two").await == 0
    })
    .await;
    assert_eq!(setup.lambda.invocations().len(), 2);
}

#[tokio::test]
async fn a_webhook_without_events_does_not_delay_the_events_of_others() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("gone", &receiver.url(), Format::Json).await;
    setup.change("checkout", 25).await;
    setup.sql("delete from pennon_audit").await;
    setup.webhook("kept", &receiver.url(), Format::Json).await;
    setup.change("checkout", 26).await;
    setup
        .sql("delete from pennon_outbox using pennon_audit as kept where destination = 'gone' and audit_id = kept.id")
        .await;
    // Leasing the webhook without events takes longer than a round may spend on leases.
    setup
        .sql(
            "create function pause() returns trigger language plpgsql as
               'begin perform pg_sleep(1.6); return new; end';
             create trigger pause before update on pennon_webhooks
               for each row when (new.id = 'gone') execute function pause()",
        )
        .await;
    setup.reconcile().await.expect("a run");
    assert_eq!(setup.waiting("kept").await, 0);
    assert_eq!(setup.waiting("gone").await, 1);
}

#[tokio::test]
async fn a_day_of_failures_disables_a_webhook_and_enabling_it_delivers_the_rest() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("one", &receiver.url(), Format::Json).await;
    receiver.behave(Behaviour::Answer(503));
    setup.change("checkout", 1).await;
    setup.reconcile().await.expect("a run");
    assert!(setup.shown("one").await["disabled"].is_null());
    let yesterday = "
        update pennon_webhooks set webhook =
          jsonb_set(webhook::jsonb, '{outage,since}', to_jsonb(
            to_char((now() - interval '24 hours') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')))::json";
    setup.sql(yesterday).await;
    setup.reconcile().await.expect("a run");
    let shown = setup.shown("one").await;
    assert_eq!(shown["disabled"]["reason"], "the receiver answered 503");
    let audit =
        "select actor, after->>'disabled' from pennon_audit where action = 'webhook.disable'";
    let row = setup.stack.database.sql().query_one(audit, &[]).await;
    let row = row.expect("an entry");
    assert_eq!((row.get(0), row.get(1)), ("webhooks", "true"));

    receiver.behave(Behaviour::Answer(200));
    setup.change("checkout", 2).await;
    setup.reconcile().await.expect("a run");
    assert_eq!(
        receiver.received().len(),
        2,
        "a disabled webhook was called"
    );
    let enabled = setup.admin("POST", "/api/admin/webhooks/one/enable").await;
    assert_eq!(enabled, 200);
    setup.reconcile().await.expect("a run");
    let received = receiver.received().split_off(2);
    assert_eq!(sequence_numbers(&received, "checkout"), [1, 2]);
    let actions: Vec<Value> = events(&received)
        .iter()
        .map(|event| event["action"].clone())
        .collect();
    assert_eq!(
        actions,
        [
            "flag.update",
            "webhook.disable",
            "flag.update",
            "webhook.enable"
        ]
    );
    let shown = setup.shown("one").await;
    assert!(shown["disabled"].is_null() && shown["outage"].is_null());
}

#[tokio::test]
async fn a_redirect_disables_a_webhook_and_is_not_followed() {
    let setup = Setup::start().await;
    let (receiver, elsewhere) = (Receiver::start().await, Receiver::start().await);
    receiver.behave(Behaviour::Redirect(elsewhere.url()));
    setup.webhook("one", &receiver.url(), Format::Json).await;
    setup.change("checkout", 1).await;
    setup.reconcile().await.expect("a run");
    assert!(elsewhere.received().is_empty());
    let shown = setup.shown("one").await;
    assert_eq!(shown["disabled"]["reason"], "the receiver answered 307");
}

#[tokio::test]
async fn the_function_refuses_private_addresses() {
    let setup = Setup::start_with(WebhookFunction::real().await).await;
    let receiver = Receiver::start().await;
    setup
        .webhook("address", &receiver.url(), Format::Json)
        .await;
    let name = format!("https://localhost:{}/", receiver.port());
    setup.webhook("name", &name, Format::Json).await;
    setup.change("checkout", 1).await;
    setup.reconcile().await.expect("a run");
    for (id, reason) in [
        ("address", "the URL must name a public address"),
        ("name", "localhost has no public address"),
    ] {
        let shown = setup.shown(id).await;
        assert_eq!(shown["disabled"]["reason"], reason, "{shown}");
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_slack_webhook_gets_a_line_per_change() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("chat", &receiver.url(), Format::Slack).await;
    setup.change("checkout", 25).await;
    setup.reconcile().await.expect("a run");
    let body = receiver.received()[0].json();
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with("`flag.update` of `checkout` in production by "));
    assert!(text.ends_with(": rolloutPercentage 50 → 25\n"), "{text}");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1));
}

#[tokio::test]
async fn events_of_a_killed_run_are_sent_again_with_the_same_ids() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("one", &receiver.url(), Format::Json).await;
    receiver.behave(Behaviour::Silence);
    setup.change("checkout", 1).await;
    let mut killed = setup
        .stack
        .function_with("reconcile", &setup.lambda.environment())
        .await;
    let event = Event::load("reconcile");
    let run = killed.invoke(event.value());
    let sends = eventually("the run sends", async || receiver.received().len() == 1);
    tokio::select! {
        outcome = run => panic!("the run has ended: {outcome:?}"),
        () = sends => {}
    }
    killed.kill();
    receiver.behave(Behaviour::Answer(204));
    // The lease keeps another run from sending the same events at the same time.
    let early = setup.reconcile.invoke(event.value()).await;
    early.expect("a run");
    assert_eq!(receiver.received().len(), 1);
    setup.reconcile().await.expect("a run");
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    let ids: Vec<Value> = events(&received)
        .iter()
        .map(|event| event["id"].clone())
        .collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        received[0].header("webhook-id"),
        received[1].header("webhook-id")
    );
    assert_eq!(setup.waiting("one").await, 0);
}

#[tokio::test]
async fn a_locked_environment_does_not_make_the_webhooks_of_others_receive_events_again() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    // In the order in which their results are recorded.
    let webhooks = [("production", "a"), ("production", "b"), ("staging", "c")];
    setup.webhooks_with_events(&receiver, &webhooks).await;
    let reconcile = setup.reconcile_with_timeout("2000").await;
    let lock = pennon_tests::postgres::connect(&setup.stack.database.url()).await;
    let lock = lock.expect("a connection");
    lock.batch_execute(
        "begin; select 1 from pennon_environments where environment = 'production' for update",
    )
    .await
    .expect("a lock");
    let event = Event::load("reconcile");
    let failed = reconcile.invoke(event.value()).await;
    failed.expect_err("the results of production cannot be recorded");
    assert_eq!(receiver.received().len(), 3);
    lock.batch_execute("rollback").await.expect("no lock");
    assert_eq!(setup.waiting("c").await, 0);
    for id in ["a", "b"] {
        assert!(setup.waiting(id).await > 0, "{id}");
    }
    setup.reconcile().await.expect("a run");
    assert_eq!(receiver.received().len(), 5);
    for id in ["a", "b"] {
        assert_eq!(setup.waiting(id).await, 0, "{id}");
    }
}

#[tokio::test]
async fn a_run_waits_once_for_a_database_that_fails_after_its_requests() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    receiver.behave(Behaviour::Silence);
    let webhooks = [("production", "production"), ("staging", "staging")];
    setup.webhooks_with_events(&receiver, &webhooks).await;
    let reconcile = setup.reconcile_with_timeout("1000").await;
    let event = Event::load("reconcile");
    let run = reconcile.invoke(event.value());
    let outage = async {
        eventually("the requests", async || receiver.received().len() == 2).await;
        setup.stack.database_wire.set(Mode::Refuse).await;
    };
    let (failed, ()) = tokio::join!(run, outage);
    failed.expect_err("the responses cannot be recorded");
    let log = reconcile.log();
    let waits = log.matches("the request waits for a connection").count();
    assert_eq!(waits, 1, "{log}");
}

#[tokio::test]
async fn a_webhook_without_a_destination_does_not_stop_the_others() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    for id in ["a", "b"] {
        setup.webhook(id, &receiver.url(), Format::Json).await;
    }
    setup
        .sql("delete from pennon_webhook_destinations where webhook_id = 'a'")
        .await;
    setup.change("checkout", 1).await;
    setup.reconcile().await.expect("a run");
    assert_eq!(sequence_numbers(&receiver.received(), "checkout"), [1]);
    assert_eq!(setup.waiting("b").await, 0);
    assert!(
        setup
            .reconcile
            .has_logged("a stored webhook has no destination")
    );
}

#[tokio::test]
async fn a_deleted_webhook_receives_nothing_and_leaves_no_events() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    for id in ["one", "two"] {
        setup.webhook(id, &receiver.url(), Format::Json).await;
    }
    setup.change("checkout", 1).await;
    assert_eq!(setup.waiting("one").await, 1);
    assert_eq!(setup.admin("DELETE", "/api/admin/webhooks/one").await, 204);
    assert_eq!(setup.waiting("one").await, 0);
    setup.reconcile().await.expect("a run");
    setup.change("checkout", 2).await;
    assert_eq!(setup.waiting("one").await, 0);
    // Only the other webhook receives events: the first change, and the deletion of the first webhook.
    assert_eq!(events(&receiver.received()).len(), 2);
}

#[tokio::test]
async fn an_outage_of_lambda_is_not_a_failure_of_the_webhook() {
    let setup = Setup::start().await;
    let receiver = Receiver::start().await;
    setup.webhook("one", &receiver.url(), Format::Json).await;
    setup.change("checkout", 1).await;
    for status in [403, 429, 500] {
        setup.lambda.reject_once(status);
        let failed = setup.reconcile().await.expect_err("an error");
        assert!(failed.to_string().contains("send-webhooks"), "{failed}");
    }
    assert!(setup.shown("one").await["outage"].is_null());
    setup.reconcile().await.expect("a run");
    assert_eq!(sequence_numbers(&receiver.received(), "checkout"), [1]);
}

#[tokio::test]
async fn webhooks_are_rejected_where_functions_cannot_send() {
    let stack = Stack::start().await;
    let none = [("SEND_WEBHOOKS_FUNCTION_ARN", "none")];
    let keys = stack.function_with("manage-keys", &none).await;
    let answer = keys.call(&Event::load("manage-keys-webhook-create")).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("EgressMode=endpoint"), "{answer:?}");
}

#[tokio::test]
async fn the_local_server_sends_from_its_own_process() {
    let stack = Stack::start().await;
    let receiver = Receiver::start_plain().await;
    let environment = stack.environment();
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    environment.push(("PENNON_WEBHOOKS", "anywhere"));
    let local = Local::start(&environment).await;
    let body = json!({ "name": "mine", "url": receiver.url() }).to_string();
    let created = local.admin("POST", "/api/admin/webhooks", &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let secret = created.json()["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    let changed = local
        .patch("/api/admin/flags/checkout", r#"{"enabled": false}"#)
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    eventually("both events arrive", async || {
        events(&receiver.received()).len() == 2
    })
    .await;
    let received = receiver.received();
    assert!(
        received
            .iter()
            .all(|request| request.is_signed_with(&secret))
    );
    let events = events(&received);
    let actions = [&events[0]["action"], &events[1]["action"]];
    assert_eq!(actions, ["webhook.create", "flag.update"]);
    assert!(!received[0].body.contains(ADMIN_TOKEN));
}

#[tokio::test]
async fn a_receiver_waits_for_the_last_byte_of_a_body() {
    let receiver = Receiver::start_plain().await;
    let body = "x".repeat(98) + "é";
    let request = format!("POST /hooks HTTP/1.1\r\ncontent-length: 100\r\n\r\n{body}");
    for missing in [1, 0] {
        let address = ("127.0.0.1", receiver.port());
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let sent = &request.as_bytes()[..request.len() - missing];
        stream.write_all(sent).await.expect("sent");
        stream.shutdown().await.expect("no more bytes follow");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.expect("an end");
        assert_eq!(response.is_empty(), missing > 0, "{missing} missing");
    }
    assert_eq!(receiver.received().len(), 1);
}
