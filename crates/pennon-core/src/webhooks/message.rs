//! Signed requests.

use std::fmt::Write;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Destination, Format};
use crate::config::Secret;
use crate::error::Error;
use crate::hex::hex;
use crate::id::random_bytes;

/// The prefix of a secret.
const SECRET_PREFIX: &str = "whsec_";

/// A request that is ready to be sent.
#[derive(Clone, Serialize, Deserialize)]
pub struct Message {
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Message {
    /// Its size in bytes as JSON, which escapes the quotes in the body.
    #[must_use]
    pub fn size(&self) -> usize {
        serde_json::to_string(self).map_or(self.body.len(), |text| text.len())
    }

    /// A request with these events, signed now. Receivers reject an old timestamp, so every attempt needs its own
    /// signature.
    #[must_use]
    pub fn new(
        destination: &Destination,
        format: Format,
        events: &[Value],
        now: SystemTime,
    ) -> Self {
        let body = match format {
            Format::Json => json!({ "type": "flags.changed", "events": events }),
            Format::Slack => json!({ "text": slack_text(events) }),
        };
        let body = body.to_string();
        let key = signing_key(&destination.secret);
        let id = message_id(&key, events);
        let timestamp = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
            .to_string();
        let signature = sign(&key, &id, &timestamp, &body);
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", &id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        Self {
            url: destination.url.expose().to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            body,
        }
    }
}

/// A new secret.
///
/// # Errors
/// [`Error::Internal`] when the operating system gives no random numbers.
pub fn new_secret() -> Result<Secret, Error> {
    let mut bytes = [0; 32];
    random_bytes(&mut bytes)?;
    Ok(Secret::new(
        SECRET_PREFIX.to_owned() + &STANDARD.encode(bytes),
    ))
}

/// The id of a request: a keyed hash of its events. Receivers ignore a request whose id they have processed, so an
/// attempt with the same events must have the same id, and any other request another one.
///
/// The hash covers every event, because an event between the first and the last may be committed after the first
/// attempt. It covers their content, because a database that was restored from a backup gives the same ids to other
/// events. The key separates the webhooks that post to one receiver, such as those of two installations.
fn message_id(key: &hmac::Key, events: &[Value]) -> String {
    let mut context = hmac::Context::with_key(key);
    for event in events {
        context.update(event.to_string().as_bytes());
    }
    let tag = context.sign();
    format!("msg_{}", hex(&tag.as_ref()[..16]))
}

/// The key of the HMACs of a webhook.
fn signing_key(secret: &Secret) -> hmac::Key {
    let encoded = secret.expose();
    let encoded = encoded.strip_prefix(SECRET_PREFIX).unwrap_or(encoded);
    // A secret that is not base64 was edited by hand. The text after the prefix is then the key, so the requests stay
    // signed. A receiver can verify them only if it uses the same text as the key: libraries decode base64.
    let key = STANDARD
        .decode(encoded)
        .unwrap_or_else(|_| encoded.as_bytes().to_vec());
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

/// `v1,` and the HMAC-SHA-256 of id, timestamp and body, by the specification of Standard Webhooks.
fn sign(key: &hmac::Key, id: &str, timestamp: &str, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

/// One line per event: `flag.update` of `new-checkout` in production by `alice`: rolloutPercentage 5 → 25.
fn slack_text(events: &[Value]) -> String {
    let mut text = String::new();
    for event in events {
        let field = |name: &str| escape(event[name].as_str().unwrap_or_default());
        let flag = event["flagKey"].as_str().map(escape);
        let flag = flag.map_or_else(String::new, |flag| format!(" of `{flag}`"));
        let _infallible = writeln!(
            text,
            "`{}`{flag} in {} by `{}`{}",
            field("action"),
            field("environment"),
            field("actor"),
            change(event)
        );
    }
    text
}

/// The changes of `enabled` and `rolloutPercentage`: `: enabled true → false, rolloutPercentage 5 → 25`.
fn change(event: &Value) -> String {
    let (before, after) = (&event["before"], &event["after"]);
    let changed = ["enabled", "rolloutPercentage"]
        .into_iter()
        .filter_map(|name| {
            let (old, new) = (before.get(name)?, after.get(name)?);
            (old != new).then(|| format!("{name} {old} → {new}"))
        });
    let changed: Vec<String> = changed.collect();
    if changed.is_empty() {
        return String::new();
    }
    format!(": {}", changed.join(", "))
}

/// Slack reads `<…>` as a link or a mention, `<!channel>` among them. A backtick would end the code that the text is in:
/// outside of code, other services read `@channel` as a mention.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace('>', "&gt;").replace('`', "'");
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn destination() -> Destination {
        Destination {
            url: Secret::new("https://example.com/hook"),
            secret: Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        }
    }

    fn header<'a>(message: &'a Message, name: &str) -> &'a str {
        let mut headers = message.headers.iter();
        let found = headers.find(|(known, _)| known == name);
        &found.expect("a header").1
    }

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of https://github.com/standard-webhooks/standard-webhooks.
        let signature = sign(
            &signing_key(&destination().secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_retry_has_the_same_id_and_is_signed_at_the_time_of_the_attempt() {
        let events = [json!({ "id": "17" }), json!({ "id": "19" })];
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first = Message::new(&destination(), Format::Json, &events, at(1000));
        let again = Message::new(&destination(), Format::Json, &events, at(2000));
        let id = header(&first, "webhook-id");
        assert_eq!(id, header(&again, "webhook-id"));
        assert!(id.starts_with("msg_") && id.len() == 36, "{id}");
        assert_eq!(header(&first, "webhook-timestamp"), "1000");
        assert_eq!(first.body, again.body);
        assert_ne!(
            header(&first, "webhook-signature"),
            header(&again, "webhook-signature")
        );
        let body: Value = serde_json::from_str(&first.body).expect("JSON");
        assert_eq!(body["events"], json!(events));
    }

    #[test]
    fn requests_with_different_events_or_of_different_webhooks_have_different_ids() {
        let of = |destination: &Destination, events: &[Value]| {
            let now = SystemTime::UNIX_EPOCH;
            // Two changes can have the same text in a Slack message.
            let message = Message::new(destination, Format::Slack, events, now);
            header(&message, "webhook-id").to_owned()
        };
        let event = |id: &str, at: &str| json!({ "id": id, "at": at });
        let (a, b, c) = (event("17", "1"), event("18", "1"), event("19", "1"));
        let restored = event("18", "2");
        let ids = [
            of(&destination(), &[a.clone(), b.clone(), c.clone()]),
            // The transaction of event 18 committed after these events were read.
            of(&destination(), &[a.clone(), c.clone()]),
            of(&destination(), std::slice::from_ref(&a)),
            of(&destination(), std::slice::from_ref(&c)),
            of(&destination(), std::slice::from_ref(&b)),
            // A database that is restored from a backup gives the ids of lost events to other events.
            of(&destination(), &[restored]),
            // Another installation numbers its events from 1 too.
            of(
                &Destination {
                    secret: new_secret().expect("random"),
                    ..destination()
                },
                &[b],
            ),
        ];
        let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn a_slack_message_has_a_line_per_event_and_mentions_nobody() {
        let event = json!({
            "id": "1", "action": "flag.update", "flagKey": "a`b", "environment": "production",
            "actor": "<!channel>\nall & more",
            "before": { "enabled": true, "rolloutPercentage": 5 },
            "after": { "enabled": true, "rolloutPercentage": 25 },
        });
        assert_eq!(
            slack_text(std::slice::from_ref(&event)),
            "`flag.update` of `a'b` in production by `&lt;!channel&gt; all &amp; more`: \
             rolloutPercentage 5 → 25\n"
        );
        assert_eq!(slack_text(&vec![event; 20]).lines().count(), 20);
    }

    #[test]
    fn a_new_secret_has_256_bits_and_is_not_printed() {
        let secret = new_secret().expect("random");
        let encoded = secret.expose().strip_prefix("whsec_").expect("a prefix");
        assert_eq!(STANDARD.decode(encoded).expect("base64").len(), 32);
        assert_ne!(secret, new_secret().expect("random"));
        let destination = Destination {
            secret: secret.clone(),
            ..destination()
        };
        let printed = format!("{destination:?}");
        assert!(
            !printed.contains(encoded) && !printed.contains("hook"),
            "{printed}"
        );
    }
}
