//! The flags in memory, and when they are checked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pennon_core::counts::{Counts, Tally};
use pennon_core::https::Https;
use pennon_core::id::unique_id;
use pennon_core::key_kind::KeyKind;
use pennon_core::moment::Moment;
use pennon_core::ofrep::ApiClient;
use pennon_core::service::{Reading, Source};
use pennon_core::telemetry::CacheOutcome;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::service::{FETCH_LIMIT, Fetched, Flags, Posted, Service};
use crate::settings::Settings;
use crate::stored::StoredDocument;

/// Limit on the pause after a failed check, in which evaluations do not wait for the service. The pause is the maximum
/// age, if that is shorter.
const MAX_COOL_DOWN: Duration = Duration::from_secs(5);
/// The pause after the first of several failed posts of counts, or failed checks by the timer of a sidecar. Each further
/// one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Limit on that pause. The service rejects counts from before yesterday, so a batch cannot wait for an interval of a
/// day.
const MAX_PAUSE: Duration = Duration::from_mins(10);

/// Evaluates flags, and keeps them current.
pub(crate) struct Evaluator {
    service: Service,
    stored: StoredDocument,
    max_age: Duration,
    wait: Duration,
    count_interval: Duration,
    state: Mutex<State>,
    /// Evaluations that no batch contains yet.
    pub(crate) tally: Tally,
    batch: tokio::sync::Mutex<Batch>,
}

#[derive(Default)]
struct State {
    flags: Option<Flags>,
    /// When the request was sent whose response confirmed the flags. `None` for flags from the stored document.
    checked: Option<Moment>,
    /// When the last check began, unless it confirmed the flags.
    failed: Option<Moment>,
    /// Checks since the last one that confirmed the flags.
    failures: u32,
    key_rejected: bool,
    check: Option<Check>,
}

/// A running check.
struct Check {
    begun: Moment,
    /// Closed when the check ends.
    done: watch::Receiver<()>,
    task: AbortHandle,
}

/// The counts that are being sent. They keep their id until the service accepts or rejects them.
struct Batch {
    pending: Option<(String, Counts)>,
    sent: Moment,
    /// The time from the last post to the next one.
    pause: Duration,
    /// Failed posts since the last one that the service accepted or rejected.
    failures: u32,
}

/// The time from the last post or check to the next one, after this many failures.
fn pause_after(failures: u32, interval: Duration) -> Duration {
    match failures {
        0 => interval,
        failures => (FIRST_PAUSE * 2_u32.saturating_pow(failures - 1))
            .min(MAX_PAUSE)
            .min(interval),
    }
}

/// Why no flag can be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoFlags {
    /// The process has received no flags from the service since its start, and has found none in the stored document.
    NotReady,
    /// The service does not accept the key.
    KeyRejected,
}

impl Evaluator {
    /// Reads the flags of the last process, if it has left any.
    pub(crate) fn new(settings: &Settings, client: Arc<Https>) -> Self {
        let service = Service::new(settings, client);
        let stored = StoredDocument::new(&settings.folder, service.base(), &settings.key);
        let flags = stored
            .read()
            .and_then(|(etag, document)| Flags::parse(&document, &etag).ok());
        Self {
            service,
            stored,
            max_age: settings.max_age,
            wait: settings.wait,
            count_interval: settings.count_interval,
            state: Mutex::new(State {
                flags,
                ..State::default()
            }),
            tally: Tally::default(),
            batch: tokio::sync::Mutex::new(Batch {
                pending: None,
                sent: Moment::now(),
                pause: settings.count_interval,
                failures: 0,
            }),
        }
    }

    /// The flags for one request. Waits for a check if the last one is too long ago, but not longer than configured.
    ///
    /// # Errors
    /// [`NoFlags`].
    pub(crate) async fn read(self: &Arc<Self>) -> Result<ApiClient, NoFlags> {
        let is_current = self.check_within(self.wait).await;
        let state = self.lock();
        let flags = state.flags.as_ref().ok_or(if state.key_rejected {
            NoFlags::KeyRejected
        } else {
            NoFlags::NotReady
        })?;
        Ok(ApiClient {
            environment: flags.environment.clone(),
            kind: KeyKind::Server,
            reading: Reading {
                snapshot: flags.snapshot.clone(),
                source: if is_current {
                    Source::Memory
                } else {
                    Source::Stale
                },
                cache: CacheOutcome::Hit,
            },
        })
    }

    /// Checks the flags if the last check is too long ago, and waits until no check is running. The wait for a running
    /// check needs no time limit, because `FETCH_LIMIT` ends each check.
    pub(crate) async fn settle(self: &Arc<Self>) {
        self.check_within(2 * FETCH_LIMIT).await;
        let running = self.lock().check.as_ref().map(|check| check.done.clone());
        if let Some(done) = running {
            ended(done).await;
        }
    }

    /// Checks the flags if the interval has passed, or the pause after a failed check. For the timer of a sidecar.
    pub(crate) async fn check_due(self: &Arc<Self>, interval: Duration) {
        if self.lock().is_due(interval) {
            self.check_until(interval, 2 * FETCH_LIMIT).await;
        }
    }

    /// Checks the flags unless they are current: confirmed within the maximum age, or since the caller arrived. Returns
    /// whether they are current after waiting at most this long.
    pub(crate) async fn check_within(self: &Arc<Self>, wait: Duration) -> bool {
        self.check_until(self.max_age, wait).await
    }

    async fn check_until(self: &Arc<Self>, max_age: Duration, wait: Duration) -> bool {
        let arrived = Moment::now();
        let checking = async {
            loop {
                let done = {
                    let mut state = self.lock();
                    if state.is_current(max_age, arrived) {
                        return true;
                    }
                    // Only a check that began after the caller arrived counts: an earlier one may have failed before
                    // Lambda froze the process.
                    if state.failed.is_some_and(|failed| failed.is_since(arrived)) {
                        return false;
                    }
                    match self.begin_check(&mut state) {
                        Some(done) => done,
                        None => return false,
                    }
                };
                ended(done).await;
            }
        };
        // The usual case, without a timer.
        if self.lock().is_current(max_age, arrived) {
            return true;
        }
        let checked = tokio::time::timeout(wait, checking).await;
        checked.unwrap_or(false)
    }

    /// The running check, or a new one. `None` shortly after a failed one.
    fn begin_check(self: &Arc<Self>, state: &mut State) -> Option<watch::Receiver<()>> {
        if let Some(check) = &state.check {
            let has_ended = check.task.is_finished();
            // Lambda froze the process during the check, so its connection is gone.
            let is_frozen = check.begun.age() > 2 * FETCH_LIMIT;
            if is_frozen {
                check.task.abort();
            }
            if !has_ended && !is_frozen {
                return Some(check.done.clone());
            }
        }
        let cool_down = self.max_age.min(MAX_COOL_DOWN);
        if state.failed.is_some_and(|failed| failed.age() < cool_down) {
            return None;
        }
        let (ending, done) = watch::channel(());
        let this = self.clone();
        let task = tokio::spawn(async move {
            this.check().await;
            drop(ending);
        });
        state.check = Some(Check {
            begun: Moment::now(),
            done: done.clone(),
            task: task.abort_handle(),
        });
        Some(done)
    }

    async fn check(&self) {
        // The age counts from here: a response that was received before a freeze and read after it is old.
        let sent = Moment::now();
        let known = {
            let state = self.lock();
            let etag = state.flags.as_ref().map(|flags| flags.etag.clone());
            etag.filter(|etag| !etag.is_empty())
        };
        let fetched = self.service.fetch(known.as_deref()).await;
        let outcome = self.lock().apply(fetched, sent);
        match outcome {
            Ok(Some(StoredChange::Write { etag, document })) => self.stored.write(&etag, &document),
            Ok(Some(StoredChange::Remove)) => {
                self.stored.remove();
                tracing::error!(
                    domain = "config",
                    "the service does not accept PENNON_SYNC_KEY; evaluations fail until it does"
                );
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(domain = "config", "the flags cannot be checked: {why}");
            }
        }
    }

    /// Sends counts if the interval has passed, or the pause after a failed post.
    pub(crate) async fn post_due(&self) {
        let mut batch = self.batch.lock().await;
        if batch.sent.age() >= batch.pause {
            self.post(&mut batch).await;
        }
    }

    /// Sends all counts, before the process ends.
    pub(crate) async fn flush(&self) {
        let mut batch = self.batch.lock().await;
        self.post(&mut batch).await;
        if batch.pending.is_none() {
            // If an earlier post could not send all of its parts, the first call has sent only the remaining parts.
            // This one sends what was counted since that post.
            self.post(&mut batch).await;
        }
    }

    /// Sends the pending batch, and then all counts so far: one batch, unless there are thousands of flags. If it is
    /// unknown whether a batch has arrived, it stays pending with its id, and nothing else is sent.
    async fn post(&self, batch: &mut Batch) {
        batch.sent = Moment::now();
        let mut more = true;
        while more {
            if batch.pending.is_none() {
                let (counts, remain) = self.tally.take_part();
                more = remain;
                batch.pending = (!counts.is_empty()).then(|| (unique_id(), counts));
            }
            let Some((id, counts)) = &batch.pending else {
                return;
            };
            match self.service.post(id, counts).await {
                Posted::Accepted => {}
                Posted::Refused(why) => {
                    let lost = counts.total();
                    tracing::error!(domain = "counts", lost, "counts were rejected: {why}");
                }
                Posted::Unknown(why) => {
                    tracing::warn!(domain = "counts", "counts will be sent again: {why}");
                    batch.failures = batch.failures.saturating_add(1);
                    batch.pause = pause_after(batch.failures, self.count_interval);
                    return;
                }
            }
            batch.failures = 0;
            batch.pause = self.count_interval;
            batch.pending = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the stored document must change.
enum StoredChange {
    Write { etag: String, document: Vec<u8> },
    Remove,
}

impl State {
    fn is_due(&self, interval: Duration) -> bool {
        self.failed
            .is_none_or(|failed| failed.age() >= pause_after(self.failures, interval))
    }

    fn is_current(&self, max_age: Duration, arrived: Moment) -> bool {
        self.flags.is_some()
            && self
                .checked
                .is_some_and(|checked| checked.is_since(arrived) || checked.age() <= max_age)
    }

    /// Applies the response to a request for flags, which was sent at the time `sent`. Returns how the stored document
    /// must change.
    fn apply(
        &mut self,
        fetched: Result<Fetched, String>,
        sent: Moment,
    ) -> Result<Option<StoredChange>, String> {
        self.failed = Some(sent);
        self.failures = self.failures.saturating_add(1);
        match fetched? {
            Fetched::Unchanged { confirmed } => {
                self.confirm(sent, confirmed);
                Ok(None)
            }
            Fetched::Changed {
                flags,
                document,
                confirmed,
            } => {
                if let Some(known) = &self.flags {
                    if known.environment != flags.environment {
                        return Err(format!(
                            "the document is of environment {}, not {}",
                            flags.environment, known.environment
                        ));
                    }
                    if flags.snapshot.revision < known.snapshot.revision {
                        return Err(format!(
                            "the document has revision {}, older than {}",
                            flags.snapshot.revision, known.snapshot.revision
                        ));
                    }
                }
                let etag = flags.etag.clone();
                self.flags = Some(flags);
                self.confirm(sent, confirmed);
                Ok(Some(StoredChange::Write { etag, document }))
            }
            Fetched::KeyRejected => {
                self.flags = None;
                self.checked = None;
                self.key_rejected = true;
                Ok(Some(StoredChange::Remove))
            }
        }
    }

    /// Flags that the service itself cannot confirm stay stale, as after a failed check.
    fn confirm(&mut self, sent: Moment, confirmed: bool) {
        if confirmed {
            self.checked = Some(sent);
            self.failed = None;
            self.failures = 0;
        }
        self.key_rejected = false;
    }
}

/// Waits until a check has ended.
async fn ended(mut done: watch::Receiver<()>) {
    // No value is ever sent: the sender is dropped.
    while done.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use pennon_core::config::Secret;
    use pennon_core::environment::Environment;

    use super::*;

    #[test]
    fn pauses_after_failures_grow_up_to_ten_minutes_or_the_interval() {
        let pauses = |interval| {
            let interval = Duration::from_secs(interval);
            [0, 1, 2, 3, 4, 8, u32::MAX].map(|failures| pause_after(failures, interval).as_secs())
        };
        assert_eq!(pauses(86_400), [86_400, 5, 10, 20, 40, 600, 600]);
        assert_eq!(pauses(15), [15, 5, 10, 15, 15, 15, 15]);
        assert_eq!(pauses(0), [0; 7]);
    }

    #[test]
    fn the_timer_of_a_sidecar_waits_longer_after_each_check_that_confirms_no_flags() {
        let day = Duration::from_hours(24);
        let mut state = State::default();
        assert!(state.is_due(day));
        let mut pauses = Vec::new();
        for _ in 0..3 {
            for fetched in [
                Err("no answer".to_owned()),
                Ok(Fetched::KeyRejected),
                Ok(Fetched::Unchanged { confirmed: false }),
            ] {
                let _stored = state.apply(fetched, Moment::now());
                pauses.push(pause_after(state.failures, day).as_secs());
            }
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert!(!state.is_due(day));
        let confirmed = Ok(Fetched::Unchanged { confirmed: true });
        let _stored = state.apply(confirmed, Moment::now());
        assert!(state.is_due(day), "its age decides");
        let _stored = state.apply(Err("no answer".to_owned()), Moment::now());
        assert_eq!(state.failures, 1);
    }

    #[tokio::test]
    async fn the_pause_after_each_post_that_fails_is_longer() {
        let settings = Settings {
            // No server listens there.
            url: "http://127.0.0.1:1".parse().expect("a URL"),
            key: Secret::new("k"),
            max_age: Duration::ZERO,
            wait: Duration::ZERO,
            count_interval: Duration::from_hours(24),
            port: 8016,
            folder: std::env::temp_dir(),
        };
        let client = Arc::new(Https::trusting(None).expect("a client"));
        let evaluator = Evaluator::new(&settings, client);
        let environment = Environment::production();
        evaluator.tally.add(&environment, [("a", "on")]);
        let mut batch = evaluator.batch.lock().await;
        for seconds in [5, 10] {
            evaluator.post(&mut batch).await;
            assert_eq!(batch.pause, Duration::from_secs(seconds));
        }
        batch.pause = Duration::ZERO;
        drop(batch);
        evaluator.post_due().await;
        evaluator.post_due().await;
        let batch = evaluator.batch.lock().await;
        assert_eq!(batch.failures, 3, "only one of two posts was due");
    }
}
