//! The Redis in use, and the switch to another one when the secret with its URL changes.
//!
//! The secret is read again periodically, inside a request and on its budget, because nothing runs between
//! requests on Lambda. The new Redis is connected before the old one is dropped, which happens when its last
//! request ends.
//!
//! Instances read the secret at different times, so for some minutes some use the old Redis and some the new one.
//! To keep readers correct during that time, the secret may contain several URLs: the first Redis is read, and
//! changes invalidate all of them.

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
        let parse = |text: &str| {
            let mut url = RedisUrl::parse(text)?;
            url.cluster |= config.cluster;
            Ok(url)
        };
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
    /// The number of outages of earlier targets, plus one per change of the target.
    outages_before: AtomicU64,
    reading: tokio::sync::Mutex<SecretRead>,
}

/// The last read of the secret.
struct SecretRead {
    started: Instant,
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
                started: Instant::now(),
                task: None,
            }),
        });
        source.read().await;
        source
    }

    /// The current target; `None` until there is a valid URL.
    pub(super) fn current(&self) -> Option<Arc<RedisTarget>> {
        self.lock().clone()
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
    pub(super) async fn renew(self: &Arc<Self>, budget: &Budget) {
        let is_secret = |source: &SecretSource| matches!(source, SecretSource::SecretArn(_));
        if !is_secret(&self.config.url) && !is_secret(&self.config.mac_key) {
            return;
        }
        // If the lock is held, another request reads the secret.
        let Ok(mut reading) = self.reading.try_lock() else {
            return;
        };
        if let Some(task) = &reading.task {
            if task.is_finished() {
                reading.task = None;
            }
            return;
        }
        let started = Instant::now();
        let since = started.saturating_duration_since(reading.started);
        let is_due = since >= self.config.secret_refresh
            || (since >= self.config.secret_refresh / REFRESH_FACTOR_IN_OUTAGE
                && self.is_unusable());
        if !is_due {
            return;
        }
        reading.started = started;
        self.suspects_keys.store(false, Ordering::Relaxed);
        let source = self.clone();
        let mut task = tokio::spawn(async move { source.read().await });
        let wait = REFRESH_WAIT.min(budget.remaining() / 2);
        if tokio::time::timeout(wait, &mut task).await.is_err() {
            reading.task = Some(task);
        }
        budget.spend(started.elapsed());
    }

    /// Whether Redis cannot be used with the known URL and keys.
    fn is_unusable(&self) -> bool {
        self.current().is_none_or(|target| target.read.is_open())
            || (self.keys().is_none() && self.config.mac_key != SecretSource::None)
            || self.suspects_keys.load(Ordering::Relaxed)
    }

    /// Reads the URL and the keys. Connects and switches if the URL has changed.
    async fn read(&self) {
        tokio::join!(self.read_keys(), self.read_url());
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

    async fn read_url(&self) {
        let started = Instant::now();
        let text = match self.secrets.resolve(&self.config.url).await {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(why) if self.current().is_some() => {
                warn!(domain = "config", error = %why, "keeping the known Redis");
                return;
            }
            Err(why) => {
                error!(domain = "config", error = %why, "Redis connection failed, using fallback");
                return;
            }
        };
        let old = self.current();
        if old.as_ref().is_some_and(|old| old.text == text) {
            return;
        }
        let new =
            match RedisTarget::connect(text, &self.config, &self.default_key, self.within).await {
                Ok(target) => target,
                Err(why) => {
                    error!(domain = "config", error = %why, "Invalid REDIS_URL");
                    return;
                }
            };
        let Some(old) = old else {
            self.replace(new);
            return;
        };
        if new.read.is_open() && !old.read.is_open() {
            warn!(
                domain = "config",
                "the new Redis in the secret does not answer; keeping the previous one"
            );
            return;
        }
        self.outages_before
            .fetch_add(old.read.outages() + 1, Ordering::Relaxed);
        self.replace(new);
        info!(
            domain = "config",
            duration = started.elapsed().as_secs_f64() * 1e3,
            "the secret names another Redis; using it from now on"
        );
    }

    fn replace(&self, target: RedisTarget) {
        *self.lock() = Some(Arc::new(target));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<RedisTarget>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_keys(&self) -> MutexGuard<'_, Option<Arc<MacKeys>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
