//! Webhooks: what receivers get, and what receivers cannot do to the sender.

use std::time::{Duration, SystemTime};

use pennon_core::config::Secret;
use pennon_core::webhooks::{Destination, Failure, Format, Message, Sender};
use pennon_tests::receiver::{Behaviour, Receiver};
use pennon_tests::{TIME_LIMIT, eventually};
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The time limit of a request that gets no answer.
const TIMEOUT: Duration = Duration::from_millis(300);

fn events() -> [Value; 1] {
    [json!({ "id": "17", "action": "flag.update", "flagKey": "checkout", "sequence": 3 })]
}

fn message(url: &str) -> Message {
    let destination = Destination {
        url: Secret::new(url),
        secret: Secret::new(SECRET),
    };
    Message::new(&destination, Format::Json, &events(), SystemTime::now())
}

fn sender() -> Sender {
    Sender::anywhere(Some(&Receiver::authority_file())).expect("a sender")
}

async fn failure(receiver: &Receiver, behaviour: Behaviour, within: Duration) -> Failure {
    receiver.behave(behaviour);
    let sent = sender().send(message(&receiver.url()), within).await;
    sent.expect_err("a failure")
}

#[tokio::test]
async fn a_receiver_can_verify_the_events() {
    let receiver = Receiver::start().await;
    for status in [200, 201, 204, 299] {
        receiver.behave(Behaviour::Answer(status));
        let sent = sender().send(message(&receiver.url()), TIME_LIMIT).await;
        assert_eq!(sent, Ok(()), "{status}");
    }
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    let first = &received[0];
    assert_eq!(first.line, "POST /hooks/secret-path HTTP/1.1");
    assert_eq!(
        first.header("host"),
        format!("127.0.0.1:{}", receiver.port())
    );
    assert_eq!(first.header("content-type"), "application/json");
    assert!(first.header("webhook-id").starts_with("msg_"));
    for again in &received {
        assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
    }
    assert_eq!(first.json()["events"], json!(events()));
    assert!(first.is_signed_with(SECRET));
    let mut changed = first.clone();
    changed.body.push(' ');
    assert!(!changed.is_signed_with(SECRET));
    assert!(!first.is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
}

#[tokio::test]
async fn an_error_is_retried_and_a_receiver_that_is_gone_is_not() {
    let receiver = Receiver::start().await;
    for (status, retryable) in [
        (400, true),
        (401, true),
        (404, true),
        (410, false),
        (429, true),
        (500, true),
        (503, true),
    ] {
        let failure = failure(&receiver, Behaviour::Answer(status), TIME_LIMIT).await;
        assert_eq!(failure.retryable, retryable, "{status}");
        assert_eq!(failure.reason, format!("the receiver answered {status}"));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Receiver::start().await;
    let receiver = Receiver::start().await;
    let failure = failure(&receiver, Behaviour::Redirect(other.url()), TIME_LIMIT).await;
    assert!(!failure.retryable);
    assert_eq!(failure.reason, "the receiver answered 307");
    assert_eq!(receiver.received().len(), 1);
    assert_eq!(other.received().len(), 0);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_costs_the_time_limit() {
    let receiver = Receiver::start().await;
    for behaviour in [Behaviour::Silence, Behaviour::SlowHead] {
        let failure = failure(&receiver, behaviour.clone(), TIMEOUT).await;
        let expected = Failure {
            retryable: true,
            reason: "no response within 300 ms".to_owned(),
        };
        assert_eq!(failure, expected, "{behaviour:?}");
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_cut() {
    let receiver = Receiver::start().await;
    // The status says enough: the body is not read.
    receiver.behave(Behaviour::EndlessBody(200));
    let sent = sender().send(message(&receiver.url()), TIME_LIMIT).await;
    assert_eq!(sent, Ok(()));
    let answered = failure(&receiver, Behaviour::EndlessBody(500), TIME_LIMIT).await;
    assert_eq!(answered.reason, "the receiver answered 500");
    let headless = failure(&receiver, Behaviour::EndlessHead, TIME_LIMIT).await;
    assert!(headless.retryable, "{headless:?}");
    let is_cut = !headless.reason.contains("no response within");
    assert!(is_cut, "{headless:?}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_failure() {
    let receiver = Receiver::start().await;
    for behaviour in [Behaviour::Garbage, Behaviour::Close] {
        let failure = failure(&receiver, behaviour.clone(), TIME_LIMIT).await;
        assert!(failure.retryable, "{behaviour:?}: {failure:?}");
    }
    receiver.behave(Behaviour::ShortBody(200));
    let sent = sender().send(message(&receiver.url()), TIME_LIMIT).await;
    assert_eq!(sent, Ok(()));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_rejected() {
    let receiver = Receiver::start().await;
    let sender = Sender::anywhere(None).expect("a sender");
    let sent = sender.send(message(&receiver.url()), TIME_LIMIT).await;
    let failure = sent.expect_err("a failure");
    assert!(failure.reason.contains("certificate"), "{failure:?}");
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test]
async fn the_sender_of_the_functions_reaches_no_address_of_this_machine() {
    let receiver = Receiver::start().await;
    let sender = Sender::public().expect("a sender");
    for url in [
        receiver.url(),
        format!("https://localhost:{}/", receiver.port()),
        format!("https://[::ffff:127.0.0.1]:{}/", receiver.port()),
        format!("http://127.0.0.1:{}/", receiver.port()),
    ] {
        let sent = sender.send(message(&url), TIME_LIMIT).await;
        let failure = sent.expect_err(&url);
        assert!(!failure.retryable, "{failure:?}");
    }
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test]
async fn no_failure_shows_the_path_of_the_url() {
    let receiver = Receiver::start().await;
    for behaviour in [
        Behaviour::Answer(500),
        Behaviour::Redirect(receiver.url()),
        Behaviour::Silence,
        Behaviour::Garbage,
        Behaviour::Close,
    ] {
        let failure = failure(&receiver, behaviour.clone(), TIMEOUT).await;
        assert!(!failure.reason.contains("secret-path"), "{failure:?}");
    }
    let closed = message("https://127.0.0.1:1/secret-path");
    let sent = sender().send(closed, TIME_LIMIT).await;
    let failure = sent.expect_err("a failure");
    assert!(failure.retryable && !failure.reason.contains("secret-path"));
}

#[tokio::test]
async fn a_slow_receiver_delays_no_other() {
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.behave(Behaviour::Silence);
    let messages = vec![message(&slow.url()), message(&quick.url())];
    let sender = sender();
    let sent = sender.send_all(messages, 3 * TIME_LIMIT);
    let arrives = eventually("the quick receiver gets its events", async || {
        quick.received().len() == 1
    });
    tokio::select! {
        outcomes = sent => panic!("the slow receiver has answered: {outcomes:?}"),
        () = arrives => {}
    }
}
