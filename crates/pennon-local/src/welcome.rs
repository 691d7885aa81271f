//! The first screen.

use std::io::Write;
use std::net::SocketAddr;

use pennon_core::config::{Config, UrlSource};

use crate::settings::Settings;

/// Says where Pennon is, what it runs on, and what to try.
pub(crate) fn greet(address: SocketAddr, settings: &Settings, config: &Config) {
    let store = match &config.database.url {
        UrlSource::None => format!("{} (edit it while Pennon runs)", settings.flags_file),
        UrlSource::Plain(_) | UrlSource::SecretArn(_) => "PostgreSQL".to_owned(),
    };
    let cache = if config.cache.is_configured() {
        "Redis"
    } else {
        "none (REDIS_URL is not set)"
    };
    let token = if settings.token_is_chosen {
        settings.admin_token.expose()
    } else {
        "$PENNON_ADMIN_TOKEN"
    };
    let key = if settings.key_is_chosen {
        settings.api_key.expose()
    } else {
        "$PENNON_API_KEY"
    };
    let base = format!("http://{address}");
    let text = format!(
        "
  Pennon {version} on {base}
  flags: {store}
  cache: {cache}

  Which flags are on?
    curl {base}/api/config/flags
    curl '{base}/api/config/flags?userId=alice'
  What is a flag's state?
    curl {base}/api/config/flags/new-checkout
  Turn it up.
    curl -X PATCH {base}/api/admin/flags/new-checkout \\
      -H \"Authorization: Bearer {token}\" -d '{{\"rolloutPercentage\": 50}}'
  What does an OpenFeature SDK get? (docs/openfeature.md says how to connect one)
    curl -X POST {base}/ofrep/v1/evaluate/flags/new-checkout \\
      -H \"Authorization: Bearer {key}\" -d '{{\"context\": {{\"targetingKey\": \"alice\"}}}}'
  Are Redis and PostgreSQL well?
    curl {base}/health

",
        version = env!("CARGO_PKG_VERSION"),
    );
    // Nobody is there to read it, which is no reason to stop.
    let _unread = std::io::stdout().write_all(text.as_bytes());
}
