//! Constant load by several functions in separate processes. Each response to a read is compared with the changes that
//! had been acknowledged when the read began.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::join_all;
use crate::lambda::Function;
use crate::statistics::Times;

/// The flag that the load reads and changes.
pub const FLAG: &str = "checkout";

/// A function that reads, and for how long after an acknowledged change it may still return the previous value.
pub struct Reader {
    /// `get-flag`.
    pub function: Function,
    /// Zero if only the primary is read.
    pub lag: Duration,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it began.
    pub started: Instant,
    /// How long it took.
    pub took: Duration,
    /// The status of the response.
    pub status: u16,
    /// Whether it was a read answered from the cache.
    pub hit: bool,
    /// Whether the invalidation of a change was confirmed; `None` for a read.
    pub invalidated: Option<bool>,
    /// Whether the response was older than the last acknowledged change.
    pub stale: bool,
}

/// A running load.
pub struct Load {
    over: Arc<AtomicBool>,
    readers: Vec<JoinHandle<(Function, Vec<Sample>)>>,
    writer: JoinHandle<(Function, Vec<Sample>)>,
}

/// The results of a load.
pub struct Record {
    /// All requests, those of the readers first.
    pub samples: Vec<Sample>,
    /// The functions that read.
    pub readers: Vec<Function>,
    /// The function that wrote.
    pub writer: Function,
}

/// When a reader sends its requests.
#[derive(Debug, Clone, Copy)]
enum Rhythm {
    /// One request at a time, with a pause after each.
    OneByOne {
        /// The pause.
        pause: Duration,
    },
    /// Bursts of concurrent requests. All readers of a load send their bursts at the same time.
    Bursts {
        /// The number of requests in a burst.
        size: usize,
        /// The interval between bursts. A burst that takes longer delays the next one.
        every: Duration,
    },
}

/// Values whose update was answered with `X-Cache-Invalidated: true`, and when.
type ConfirmedUpdates = Arc<Mutex<Vec<(Instant, u64)>>>;

impl Load {
    /// Starts all readers and the writer, with these pauses between requests.
    pub fn start(
        readers: Vec<Reader>,
        writer: Function,
        between_reads: Duration,
        between_changes: Duration,
    ) -> Self {
        let pause = between_reads;
        Self::run(readers, writer, Rhythm::OneByOne { pause }, between_changes)
    }

    /// Starts all readers and the writer. The readers send bursts of this size at the same time; `every` is the
    /// interval between bursts. A reader needs an instance that accepts as many concurrent requests
    /// (`AWS_LAMBDA_MAX_CONCURRENCY`).
    pub fn start_bursts(
        readers: Vec<Reader>,
        writer: Function,
        size: usize,
        every: Duration,
        between_changes: Duration,
    ) -> Self {
        let rhythm = Rhythm::Bursts { size, every };
        Self::run(readers, writer, rhythm, between_changes)
    }

    fn run(
        readers: Vec<Reader>,
        writer: Function,
        rhythm: Rhythm,
        between_changes: Duration,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let confirmed = ConfirmedUpdates::default();
        let readers = readers
            .into_iter()
            .map(|reader| {
                let (over, confirmed) = (over.clone(), confirmed.clone());
                tokio::spawn(read(reader, over, confirmed, rhythm))
            })
            .collect();
        let writer = tokio::spawn(write(writer, over.clone(), confirmed, between_changes));
        Self {
            over,
            readers,
            writer,
        }
    }

    /// Stops the load and returns its results.
    pub async fn finish(self) -> Record {
        self.over.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        let mut readers = Vec::new();
        for reader in self.readers {
            let (function, of_reader) = reader.await.expect("no panic");
            readers.push(function);
            samples.extend(of_reader);
        }
        let (writer, of_writer) = self.writer.await.expect("no panic");
        samples.extend(of_writer);
        Record {
            samples,
            readers,
            writer,
        }
    }
}

impl Record {
    /// The number of responses with an error.
    pub fn errors(&self) -> usize {
        let is_error = |sample: &&Sample| sample.status != 200;
        self.samples.iter().filter(is_error).count()
    }

    /// The number of stale responses.
    pub fn stale(&self) -> usize {
        self.samples.iter().filter(|sample| sample.stale).count()
    }

    /// The duration of the longest request.
    pub fn longest(&self) -> Duration {
        let times = self.samples.iter().map(|sample| sample.took);
        times.max().unwrap_or_default()
    }

    /// The durations of all reads.
    pub fn read_times(&self) -> Times {
        let mut times = Times::default();
        for read in self.samples.iter().filter(|one| one.invalidated.is_none()) {
            times.add(read.took);
        }
        times
    }

    /// The log lines of requests that could not read the cache, or could not invalidate it.
    pub fn failed_cache_operations(&self) -> Vec<Value> {
        let functions = self.readers.iter().chain([&self.writer]);
        let lines = functions.flat_map(Function::requests);
        lines
            .filter(|line| line["cache_unavailable"] == 1 || line["cache_invalidated"] == 0)
            .collect()
    }

    /// The time from this moment to the last failed cache operation.
    pub fn recovered_after(&self, moment: SystemTime) -> Duration {
        let moment = moment.duration_since(UNIX_EPOCH).expect("after 1970");
        let times = self
            .failed_cache_operations()
            .into_iter()
            .filter_map(|line| line["_aws"]["Timestamp"].as_u64())
            .map(Duration::from_millis);
        times.max().unwrap_or_default().saturating_sub(moment)
    }
}

async fn read(
    reader: Reader,
    over: Arc<AtomicBool>,
    confirmed: ConfirmedUpdates,
    rhythm: Rhythm,
) -> (Function, Vec<Sample>) {
    let (size, mut ticks) = match rhythm {
        Rhythm::OneByOne { .. } => (1, None),
        Rhythm::Bursts { size, every } => {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            (size, Some(ticks))
        }
    };
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let burst = (0..size).map(|_| read_once(&reader, &confirmed));
        samples.extend(join_all(burst).await);
        if let Rhythm::OneByOne { pause } = rhythm {
            tokio::time::sleep(pause).await;
        }
    }
    (reader.function, samples)
}

async fn read_once(reader: &Reader, confirmed: &ConfirmedUpdates) -> Sample {
    let event = Event::get(FLAG);
    let started = Instant::now();
    let answer = reader.function.call(&event).await;
    let took = started.elapsed();
    let newest = newest_confirmed(confirmed, started, reader.lag);
    let seen = match answer.status {
        200 => answer.json()["description"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        _ => u64::MAX,
    };
    Sample {
        started,
        took,
        status: answer.status,
        hit: answer.header("x-cache-hit") == Some("true"),
        invalidated: None,
        stale: seen < newest,
    }
}

/// The newest value that was acknowledged at least `lag` before a request began.
fn newest_confirmed(confirmed: &ConfirmedUpdates, started: Instant, lag: Duration) -> u64 {
    let confirmed = confirmed.lock().expect("not poisoned");
    let mut latest = confirmed.iter().rev();
    latest
        .find(|(at, _)| *at + lag <= started)
        .map_or(0, |(_, value)| *value)
}

async fn write(
    function: Function,
    over: Arc<AtomicBool>,
    confirmed: ConfirmedUpdates,
    pause: Duration,
) -> (Function, Vec<Sample>) {
    let mut samples = Vec::new();
    let mut value = 0_u64;
    while !over.load(Ordering::Relaxed) {
        value += 1;
        let event = Event::update(FLAG, &json!({ "description": value.to_string() }));
        let started = Instant::now();
        let answer = function.call(&event).await;
        let invalidated = answer.header("x-cache-invalidated") == Some("true");
        if answer.status == 200 && invalidated {
            let mut confirmed = confirmed.lock().expect("not poisoned");
            confirmed.push((Instant::now(), value));
        }
        samples.push(Sample {
            started,
            took: started.elapsed(),
            status: answer.status,
            hit: false,
            invalidated: Some(invalidated),
            stale: false,
        });
        tokio::time::sleep(pause).await;
    }
    (function, samples)
}
