//! Log lines from CloudWatch Logs: gzipped JSON in base64.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html>

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use pennon_core::api_key::may_be_an_id;
use pennon_core::counts::Counts;
use pennon_core::hex::hex;
use pennon_core::key_uses::LastUses;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Limit on the size of a decompressed batch. CloudWatch sends at most a megabyte, and text compresses about
/// tenfold; the limit protects the memory from a decompression bomb.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// The evaluations and the uses of API keys in a delivery of log lines.
#[derive(Debug)]
pub struct Delivery {
    /// The number of lines with evaluations or uses of keys.
    pub lines: usize,
    /// The evaluations, without empty batches.
    pub batches: Vec<Batch>,
    /// The last uses of API keys.
    pub key_uses: LastUses,
}

/// Evaluations that are counted once, however often they are delivered.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// For posted counts, the id that their line contains. For the others, the SHA-256 of the ids of all lines, so that
    /// a repeated delivery has the same id.
    pub id: String,
    /// The evaluations.
    pub counts: Counts,
    /// The time of the last line.
    pub last_line_at: SystemTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    message_type: String,
    #[serde(default)]
    log_events: Vec<LogEvent>,
}

#[derive(Deserialize)]
struct LogEvent {
    id: String,
    timestamp: u64,
    message: String,
}

/// The fields of a log line with evaluations or uses of keys.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    evaluations: Counts,
    /// The evaluations were posted with this id. Another line may repeat them.
    batch: Option<String>,
    /// Ids of API keys that were used.
    api_keys: Vec<String>,
}

impl Delivery {
    /// Parses an event.
    ///
    /// # Errors
    /// A message for the log if the event is not a delivery of CloudWatch Logs. Malformed lines are skipped, because
    /// a retry would fail too.
    pub fn read(event: &Value) -> Result<Self, String> {
        let data = event["awslogs"]["data"]
            .as_str()
            .ok_or("the event has no awslogs.data")?;
        let packed = STANDARD
            .decode(data)
            .map_err(|error| format!("awslogs.data is not base64: {error}"))?;
        let mut text = String::new();
        GzDecoder::new(packed.as_slice())
            .take(MAX_SIZE)
            .read_to_string(&mut text)
            .map_err(|error| format!("awslogs.data cannot be decompressed: {error}"))?;
        let data: Data = serde_json::from_str(&text)
            .map_err(|error| format!("awslogs.data contains no log lines: {error}"))?;
        let mut delivery = Self {
            lines: 0,
            batches: Vec::new(),
            key_uses: LastUses::new(),
        };
        // A control message, with which CloudWatch tests the subscription.
        if data.message_type != "DATA_MESSAGE" {
            return Ok(delivery);
        }
        let mut tallied = Batch {
            id: String::new(),
            counts: Counts::default(),
            last_line_at: UNIX_EPOCH,
        };
        let mut hasher = Sha256::new();
        for event in &data.log_events {
            hasher.update(event.id.len().to_be_bytes());
            hasher.update(&event.id);
            let Ok(line) = serde_json::from_str::<Line>(&event.message) else {
                continue;
            };
            if line.evaluations.is_empty() && line.api_keys.is_empty() {
                continue;
            }
            delivery.lines += 1;
            let logged_at = UNIX_EPOCH + Duration::from_millis(event.timestamp);
            for id in line.api_keys.into_iter().filter(|id| may_be_an_id(id)) {
                let last = delivery.key_uses.entry(id).or_insert(logged_at);
                *last = logged_at.max(*last);
            }
            if let Some(id) = line.batch {
                delivery.batches.push(Batch {
                    id,
                    counts: line.evaluations,
                    last_line_at: logged_at,
                });
                continue;
            }
            tallied.last_line_at = tallied.last_line_at.max(logged_at);
            for count in line.evaluations.iter() {
                let (day, flag, variant) = (count.day, count.flag, count.variant);
                tallied
                    .counts
                    .add(count.environment, day, flag, variant, count.count);
            }
        }
        tallied.id = hex(&hasher.finalize());
        delivery.batches.push(tallied);
        delivery.batches.retain(|batch| !batch.counts.is_empty());
        Ok(delivery)
    }
}

#[cfg(test)]
mod fuzz {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use pennon_fuzz::{bytes, for_all, json};
    use serde_json::json;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text).expect("packs");
        packer.finish().expect("packs")
    }

    fn event(bytes: &[u8]) -> Value {
        json!({"awslogs": {"data": STANDARD.encode(bytes)}})
    }

    fn example() -> Value {
        let line = |count: u64| {
            let evaluations =
                json!({"production": {"2026-11-21": {"checkout": {"on": count, "": 1}}}});
            json!({"evaluations": evaluations, "api_keys": ["0f-1"], "status": 200})
        };
        json!({"messageType": "DATA_MESSAGE", "logGroup": "g", "logEvents": [
            {"id": "1", "timestamp": 1_790_000_000_000_u64, "message": line(3)},
            {"id": "2", "timestamp": 1, "message": line(u64::MAX)},
            {"id": "3", "timestamp": 2, "message": "START RequestId"},
            {"id": "4", "timestamp": 3, "message": {
                "batch": "production:b-1", "evaluations": {"production": {"2026-11-21": {"a": {"on": 1}}}},
            }},
        ]})
    }

    /// Converts messages to strings, as an event has them. The example has them as JSON, so that mutations change their
    /// contents.
    fn with_texts(mut data: Value) -> Value {
        let events = data.get_mut("logEvents").and_then(Value::as_array_mut);
        for event in events.into_iter().flatten() {
            if let Some(message) = event
                .get_mut("message")
                .filter(|message| !message.is_string())
            {
                *message = message.to_string().into();
            }
        }
        data
    }

    #[test]
    fn a_repeated_delivery_has_the_same_batches() {
        for_all(&json([example()]), |data| {
            let data = with_texts(data).to_string();
            let event = event(&packed(data.as_bytes()));
            let Ok(delivery) = Delivery::read(&event) else {
                return;
            };
            let again = Delivery::read(&event).expect("the same delivery");
            assert_eq!(again.batches, delivery.batches);
            assert_eq!(again.key_uses, delivery.key_uses);
            assert!(delivery.key_uses.keys().all(|id| may_be_an_id(id)));
            assert!(delivery.batches.len() <= delivery.lines);
            let counts = delivery
                .batches
                .iter()
                .flat_map(|batch| batch.counts.iter());
            let names: usize = counts.map(|one| one.flag.len() + one.variant.len()).sum();
            assert!(names <= data.len() * 2, "invented names");
        });
    }

    #[test]
    fn every_compressed_text_is_a_delivery_or_an_error() {
        let examples = [packed(example().to_string().as_bytes()), packed(b"{}")];
        for_all(&bytes(examples, &["\u{1f}", "\0", "A", "\u{8}"]), |bytes| {
            if let Err(why) = Delivery::read(&event(&bytes)) {
                assert!(why.starts_with("awslogs.data"), "{why}");
            }
        });
    }

    #[test]
    fn a_delivery_above_the_limit_on_its_size_is_rejected() {
        let data = br#"{"messageType": "CONTROL_MESSAGE"}"#;
        let valid = event(&packed(data));
        assert!(Delivery::read(&valid).is_ok());
        let mut bomb = vec![b' '; usize::try_from(MAX_SIZE).expect("a size")];
        bomb.extend_from_slice(data);
        assert!(Delivery::read(&event(&packed(&bomb))).is_err());
    }
}
