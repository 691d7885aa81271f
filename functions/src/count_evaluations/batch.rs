//! A batch of log lines from CloudWatch Logs: gzipped JSON in base64.
//!
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html>

use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use pennon_core::counts::Counts;
use pennon_core::hex::hex;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Limit on the size of a decompressed batch. CloudWatch sends at most a megabyte, and text compresses about
/// tenfold; the limit protects the memory from a decompression bomb.
const MAX_SIZE: u64 = 64 * 1024 * 1024;

/// The evaluations in a batch of log lines.
#[derive(Debug)]
pub struct Batch {
    /// SHA-256 of the ids of its lines: equal when CloudWatch delivers the batch again.
    pub id: String,
    /// The number of lines with evaluations.
    pub lines: usize,
    /// The evaluations.
    pub counts: Counts,
    /// The time of the last line.
    pub until: SystemTime,
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

/// The field of a log line with evaluations.
#[derive(Deserialize)]
struct Line {
    evaluations: Counts,
}

impl Batch {
    /// Parses an event.
    ///
    /// # Errors
    /// A message for the log if the event is not a batch. Malformed lines are skipped, because a retry would fail too.
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
        let mut batch = Self {
            id: String::new(),
            lines: 0,
            counts: Counts::default(),
            until: UNIX_EPOCH,
        };
        // A control message, with which CloudWatch tests the subscription.
        if data.message_type != "DATA_MESSAGE" {
            return Ok(batch);
        }
        let mut hasher = Sha256::new();
        for event in &data.log_events {
            hasher.update(event.id.len().to_be_bytes());
            hasher.update(&event.id);
            let Ok(line) = serde_json::from_str::<Line>(&event.message) else {
                continue;
            };
            batch.lines += 1;
            batch.until = batch
                .until
                .max(UNIX_EPOCH + Duration::from_millis(event.timestamp));
            for count in line.evaluations.iter() {
                let (day, flag, variant) = (count.day, count.flag, count.variant);
                batch
                    .counts
                    .add(count.environment, day, flag, variant, count.count);
            }
        }
        batch.id = hex(&hasher.finalize());
        Ok(batch)
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
            json!({"evaluations": evaluations, "status": 200})
        };
        json!({"messageType": "DATA_MESSAGE", "logGroup": "g", "logEvents": [
            {"id": "1", "timestamp": 1_790_000_000_000_u64, "message": line(3)},
            {"id": "2", "timestamp": 1, "message": line(u64::MAX)},
            {"id": "3", "timestamp": 2, "message": "START RequestId"},
        ]})
    }

    /// Converts messages to strings: in an event they are JSON in a string, in the example JSON, so that mutations
    /// change their contents.
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
    fn a_repeated_batch_has_the_same_id_and_counts() {
        for_all(&json([example()]), |data| {
            let data = with_texts(data).to_string();
            let event = event(&packed(data.as_bytes()));
            let Ok(batch) = Batch::read(&event) else {
                return;
            };
            let again = Batch::read(&event).expect("the same batch");
            assert_eq!((&again.id, &again.counts), (&batch.id, &batch.counts));
            assert!(batch.counts.is_empty() || batch.lines > 0);
            assert!(batch.counts.is_empty() || batch.id.len() == 64);
            let names: usize = batch
                .counts
                .iter()
                .map(|one| one.flag.len() + one.variant.len())
                .sum();
            assert!(names <= data.len() * 2, "invented names");
        });
    }

    #[test]
    fn every_compressed_text_is_a_batch_or_an_error() {
        let examples = [packed(example().to_string().as_bytes()), packed(b"{}")];
        for_all(&bytes(examples, &["\u{1f}", "\0", "A", "\u{8}"]), |bytes| {
            if let Err(why) = Batch::read(&event(&bytes)) {
                assert!(why.starts_with("awslogs.data"), "{why}");
            }
        });
        let bomb = packed(&vec![b' '; 200 * 1024 * 1024]);
        assert!(Batch::read(&event(&bomb)).is_err());
    }
}
