//! The first screen.

use std::io::Write;
use std::net::SocketAddr;

use pennon_core::config::{Config, PublicConfigRoutes, UrlSource};

use crate::credentials::Credentials;
use crate::settings::Settings;

/// Says where Pennon is, what it runs on, and what to try. The commands are those of the README.
pub(crate) fn greet(
    address: SocketAddr,
    settings: &Settings,
    credentials: &Credentials,
    config: &Config,
    has_flags: bool,
) {
    let store = match &config.database.url {
        UrlSource::None => format!("{} (edit it while Pennon runs)", settings.flags_file),
        UrlSource::Plain(_) | UrlSource::SecretArn(_) => "PostgreSQL".to_owned(),
    };
    let cache = if config.cache.is_configured() {
        "Redis"
    } else {
        "none (REDIS_URL is not set)"
    };
    let base = format!("http://{address}");
    let mut text = vec![format!(
        "
  Pennon {version} on {base}
  flags: {store}
  cache: {cache}

",
        version = env!("CARGO_PKG_VERSION"),
    )];
    if !credentials.exports.is_empty() {
        let why = "  For the commands below and those of the README, in another shell:\n";
        text.push(why.to_owned());
        for line in &credentials.exports {
            text.push(format!("    {line}\n"));
        }
        text.push("\n".to_owned());
    }
    if !has_flags {
        text.push(format!(
            "  There are no flags yet. Create the first one:
    curl -X POST {base}/api/admin/flags \\
      -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\" \\
      -d '{{\"key\": \"new-checkout\", \"enabled\": true, \"rolloutPercentage\": 5}}'
"
        ));
    }
    text.push(read_commands(&base, config.auth.public_config));
    text.push(format!(
        "  Turn it up.
    curl -X PATCH {base}/api/admin/flags/new-checkout \\
      -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\" -d '{{\"rolloutPercentage\": 50}}'
  What does an OpenFeature SDK get? (docs/openfeature.md says how to connect one)
    curl -X POST {base}/ofrep/v1/evaluate/flags/new-checkout \\
      -H \"Authorization: Bearer $PENNON_API_KEY\" -d '{{\"context\": {{\"targetingKey\": \"alice\"}}}}'
  Check Redis and PostgreSQL health.
    curl {base}/health

"
    ));
    // Nobody is there to read it, which is no reason to stop.
    let _unread = std::io::stdout().write_all(text.concat().as_bytes());
}

/// How to read flags: by the two public routes where they can be used, otherwise by the others.
fn read_commands(base: &str, routes: PublicConfigRoutes) -> String {
    let key = match routes {
        PublicConfigRoutes::Open => "",
        PublicConfigRoutes::Key => " -H \"X-API-Key: $PENNON_API_KEY\"",
        PublicConfigRoutes::Off => {
            return format!(
                "  Which flags are on? (PUBLIC_CONFIG_ROUTES is off: there are no public routes)
    curl -X POST {base}/ofrep/v1/evaluate/flags \\
      -H \"X-API-Key: $PENNON_API_KEY\" -d '{{\"context\": {{\"targetingKey\": \"alice\"}}}}'
  What is a flag's state?
    curl {base}/api/admin/flags/new-checkout -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\"
"
            );
        }
    };
    format!(
        "  Which flags are on?
    curl {base}/api/config/flags{key}
    curl '{base}/api/config/flags?userId=alice'{key}
  What is a flag's state?
    curl {base}/api/config/flags/new-checkout{key}
"
    )
}
