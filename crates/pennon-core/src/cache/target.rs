//! The Redis in use, and the switch to another one when the secret with its URL changes.
//!
//! The secret is read again periodically, inside a request and on its budget, because nothing runs between
//! requests on Lambda. The new Redis is connected before the old one is dropped, which happens when its last
//! request ends.
//!
//! Instances read the secret at different times, so for some minutes some use the old Redis and some the new one.
//! To keep readers correct during that time, the secret may contain several URLs: the first Redis is read, and
//! changes invalidate all of them.
//!
//! An instance that was idle during that time knows only a Redis that others may neither read nor invalidate any more.
//! So an instance that has not read the secret for a tenth longer than [`CacheConfig::secret_refresh`] does not read
//! Redis while it reads the secret, and reports none of its changes as confirmed until it has read the secret.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::executor::Executor;
use super::mac::MacKeys;
use super::url::{InvalidRedisUrl, RedisUrl};
use crate::budget::Budget;
use crate::config::{CacheConfig, Secret, SecretSource};
use crate::moment::Moment;
use crate::secrets::Secrets;

/// An instance that cannot use its Redis reads the secret this many times as often: by default every ten
/// seconds, far below the request limit of Secrets Manager even for many instances.
const REFRESH_FACTOR_IN_OUTAGE: u32 = 30;
/// How long a request waits for the secret. If that is not enough, reading continues while later requests run.
const REFRESH_WAIT: Duration = Duration::from_millis(150);

/// One Redis that is read, and mirrors: others that changes invalidate as well.
pub(super) struct RedisTarget {
    text: Secret,
    pub(super) read: Executor,
    pub(super) mirrors: Vec<Executor>,
}

impl RedisTarget {
    async fn connect(
        text: Secret,
        config: &CacheConfig,
        default_key: &str,
        within: Duration,
    ) -> Result<Self, InvalidRedisUrl> {
        let parse = |text: &str| RedisUrl::parse(text, config.cluster);
        let mut words = text.expose().split_whitespace();
        let first = parse(words.next().unwrap_or_default())?;
        let others = words.map(parse).collect::<Result<Vec<RedisUrl>, _>>()?;
        let connect = |url| Executor::connect(url, config.clone(), default_key, within);
        let others = join_all(others.into_iter().map(connect));
        let (read, mirrors) = tokio::join!(connect(first), others);
        Ok(Self {
            text,
            read,
            mirrors,
        })
    }
}

/// The current target, and the secret that it comes from.
pub(super) struct TargetSource {
    config: CacheConfig,
    secrets: Arc<Secrets>,
    default_key: String,
    within: Duration,
    current: Mutex<Option<Arc<RedisTarget>>>,
    keys: Mutex<Option<Arc<MacKeys>>>,
    has_reported_no_keys: AtomicBool,
    /// Whether an entry was found that none of the keys has signed: the secret may contain a new key.
    suspects_keys: AtomicBool,
    /// The number of outages of earlier targets, plus one per change of the target, and one per call of
    /// `distrust_entries`.
    outages_before: AtomicU64,
    reading: tokio::sync::Mutex<SecretRead>,
    /// The start of the last successful read of the secret, which left the target as the secret named it.
    current_as_of: Mutex<Moment>,
    /// Whether Redis must not be read until the running read of the secret has ended.
    awaits_secret: AtomicBool,
}

/// The last read of the secret.
struct SecretRead {
    started: Moment,
    task: Option<JoinHandle<()>>,
}

impl TargetSource {
    /// Reads the URL and connects within this time. A failure is logged, and later requests retry.
    pub(super) async fn open(
        config: CacheConfig,
        secrets: Arc<Secrets>,
        default_key: String,
        within: Duration,
    ) -> Arc<Self> {
        let started = Moment::now();
        let source = Arc::new(Self {
            config,
            secrets,
            default_key,
            within,
            current: Mutex::new(None),
            keys: Mutex::new(None),
            has_reported_no_keys: AtomicBool::new(false),
            suspects_keys: AtomicBool::new(false),
            outages_before: AtomicU64::new(0),
            reading: tokio::sync::Mutex::new(SecretRead {
                started,
                task: None,
            }),
            current_as_of: Mutex::new(started),
            awaits_secret: AtomicBool::new(false),
        });
        source.read(started).await;
        source
    }

    /// The current target; `None` until there is a valid URL.
    pub(super) fn current(&self) -> Option<Arc<RedisTarget>> {
        self.lock().clone()
    }

    /// The target, unless the secret must be read first.
    pub(super) fn readable(&self) -> Option<Arc<RedisTarget>> {
        if self.awaits_secret.load(Ordering::Relaxed) {
            return None;
        }
        self.current()
    }

    /// Whether the target has every Redis that an instance may read. If the last successful read of the secret is too
    /// long ago, the secret may have changed since.
    pub(super) fn is_current(&self, now: Moment) -> bool {
        let as_of = *self.lock_current_as_of();
        self.is_trusted(as_of.age_at(now))
    }

    /// Whether a URL that was read this long ago is trusted. A secret is trusted for a tenth longer than the interval
    /// at which it is read, so that an instance in use has read it again before. An operator who moves the cache waits
    /// at least as long between two steps.
    fn is_trusted(&self, age: Duration) -> bool {
        !is_secret(&self.config.url) || age < self.config.secret_refresh * 11 / 10
    }

    /// The keys that authenticate entries; `None` until there are valid ones.
    pub(super) fn keys(&self) -> Option<Arc<MacKeys>> {
        self.lock_keys().clone()
    }

    /// Reads the keys again soon, because an entry was found that none of them has signed.
    pub(super) fn suspect_keys(&self) {
        self.suspects_keys.store(true, Ordering::Relaxed);
    }

    /// The number of outages so far, each of which may have lost an invalidation, over all targets.
    pub(super) fn outages(&self) -> u64 {
        let of_target = self.current().map_or(0, |target| target.read.outages());
        self.outages_before.load(Ordering::Relaxed) + of_target
    }

    /// Reads the secret again if that is due.
    pub(super) async fn renew(self: &Arc<Self>, now: Moment, budget: &Budget) {
        if !is_secret(&self.config.url) && !is_secret(&self.config.mac_key) {
            return;
        }
        // If the lock is held, another request reads the secret.
        let Ok(mut reading) = self.reading.try_lock() else {
            return;
        };
        let since = reading.started.age_at(now);
        let is_overdue = !self.is_trusted(since);
        let is_old = since >= self.config.secret_refresh / REFRESH_FACTOR_IN_OUTAGE;
        match &reading.task {
            Some(task) if !task.is_finished() => {
                // The instance may have been frozen since this read started.
                if is_overdue {
                    self.awaits_secret.store(true, Ordering::Relaxed);
                } else if is_old && !self.is_current(now) {
                    self.distrust_entries();
                }
                return;
            }
            Some(_) | None => reading.task = None,
        }
        // No task is running, so nothing else would end the wait: the clock may have been set back during a read.
        let waits_in_vain = self.awaits_secret.load(Ordering::Relaxed);
        let is_due = since >= self.config.secret_refresh
            || waits_in_vain
            || (is_old && (self.is_unusable() || !self.is_current(now)));
        if !is_due {
            return;
        }
        if !self.is_current(now) {
            // This read may take longer than the request waits for it.
            self.distrust_entries();
        }
        let started = Moment::now();
        reading.started = started;
        self.suspects_keys.store(false, Ordering::Relaxed);
        self.awaits_secret.store(is_overdue, Ordering::Relaxed);
        let source = self.clone();
        reading.task = Some(tokio::spawn(async move { source.read(started).await }));
        wait_for(&mut reading, budget).await;
    }

    /// Waits for the read of the secret if the target may not have every Redis that an instance reads.
    pub(super) async fn wait_until_current(&self, budget: &Budget) {
        if !self.is_current(Moment::now())
            && let Ok(mut reading) = self.reading.try_lock()
        {
            wait_for(&mut reading, budget).await;
        }
    }

    /// Makes readers compare entries with the store once more, because the secret may name another Redis by now. The
    /// known Redis stays in use: a failure of Secrets Manager must not stop the cache.
    fn distrust_entries(&self) {
        self.outages_before.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether Redis cannot be used with the known URL and keys.
    fn is_unusable(&self) -> bool {
        self.current().is_none_or(|target| target.read.is_open())
            || (self.keys().is_none() && self.config.mac_key != SecretSource::None)
            || self.suspects_keys.load(Ordering::Relaxed)
    }

    /// Reads the URL and the keys. Connects and switches if the URL has changed.
    async fn read(&self, started: Moment) {
        let ((), is_current) = tokio::join!(self.read_keys(), self.read_url());
        if is_current {
            *self.lock_current_as_of() = started;
        } else if !self.is_current(Moment::now()) {
            self.distrust_entries();
        }
        // A read that a freeze has interrupted may have got the secret of the time before the freeze.
        self.awaits_secret
            .store(!self.is_trusted(started.age()), Ordering::Relaxed);
    }

    async fn read_keys(&self) {
        let keys = match self.secrets.resolve(&self.config.mac_key).await {
            Ok(Some(text)) if self.keys().is_some_and(|keys| keys.are_from(&text)) => return,
            Ok(Some(text)) => MacKeys::parse(text),
            Ok(None) => Err("there is no key for cache entries".to_owned()),
            Err(why) => Err(why),
        };
        match (keys, self.keys()) {
            (Ok(keys), known) => {
                *self.lock_keys() = Some(Arc::new(keys));
                if known.is_some() {
                    info!(
                        domain = "config",
                        "the key of cache entries has changed; using the new one"
                    );
                }
            }
            (Err(why), Some(_)) => {
                warn!(domain = "config", error = %why, "keeping the known key of cache entries");
            }
            (Err(why), None) if !self.has_reported_no_keys.swap(true, Ordering::Relaxed) => {
                error!(
                    domain = "config",
                    error.r#type = "no_cache_mac_key",
                    error = %why,
                    "the cache is not used, because its entries cannot be authenticated; set \
                     CACHE_MAC_KEY or CACHE_MAC_SECRET_ARN to the same key in every function"
                );
            }
            (Err(_reported), None) => {}
        }
    }

    /// Returns whether the target is the one that the secret names.
    async fn read_url(&self) -> bool {
        let started = Instant::now();
        let text = match self.secrets.resolve(&self.config.url).await {
            Ok(Some(text)) => text,
            Ok(None) => return false,
            Err(why) if self.current().is_some() => {
                warn!(domain = "config", error = %why, "keeping the known Redis");
                return false;
            }
            Err(why) => {
                error!(domain = "config", error = %why, "Redis connection failed, using fallback");
                return false;
            }
        };
        let old = self.current();
        if old.as_ref().is_some_and(|old| old.text == text) {
            return true;
        }
        let new =
            match RedisTarget::connect(text, &self.config, &self.default_key, self.within).await {
                Ok(target) => target,
                Err(why) => {
                    let variable = if self.config.cluster {
                        "REDIS_CLUSTER_URL or REDIS_URL_CLUSTER"
                    } else {
                        "REDIS_URL"
                    };
                    let name = self.config.url.name(variable);
                    error!(domain = "config", error = %why, "Invalid URL in {name}");
                    return false;
                }
            };
        let Some(old) = old else {
            self.replace(new);
            return true;
        };
        if new.read.is_open() && !old.read.is_open() {
            warn!(
                domain = "config",
                "the new Redis in the secret does not answer; keeping the previous one"
            );
            return false;
        }
        self.outages_before
            .fetch_add(old.read.outages() + 1, Ordering::Relaxed);
        self.replace(new);
        info!(
            domain = "config",
            duration = started.elapsed().as_secs_f64() * 1e3,
            "the secret names another Redis; using it from now on"
        );
        true
    }

    fn replace(&self, target: RedisTarget) {
        *self.lock() = Some(Arc::new(target));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<RedisTarget>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_current_as_of(&self) -> MutexGuard<'_, Moment> {
        self.current_as_of
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_keys(&self) -> MutexGuard<'_, Option<Arc<MacKeys>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_secret(source: &SecretSource) -> bool {
    match source {
        SecretSource::SecretArn(_) => true,
        SecretSource::Plain(_) | SecretSource::None => false,
    }
}

/// Waits for a read of the secret: for [`REFRESH_WAIT`] or half of the budget, whichever is shorter.
async fn wait_for(reading: &mut SecretRead, budget: &Budget) {
    let started = Instant::now();
    if let Some(task) = &mut reading.task {
        let wait = REFRESH_WAIT.min(budget.remaining() / 2);
        if tokio::time::timeout(wait, task).await.is_ok() {
            reading.task = None;
        }
        budget.spend(started.elapsed());
    }
}
