//! The text that the server prints when it starts.

use std::io::Write;
use std::net::SocketAddr;

use pennon_core::config::{Config, PublicConfigRoutes, SecretSource};

use crate::credentials::Credentials;
use crate::settings::Settings;

/// The flag in the commands of the README. The sample file contains it.
pub(crate) const README_KEY: &str = "new-checkout";

/// The flag in the printed commands.
pub(crate) enum Example {
    /// A flag with a rollout percentage.
    Simple(String),
    /// A flag with variants.
    Typed(String),
    /// There is no active flag, or the key of every flag needs quotes in a command. No flag has this key.
    Missing(String),
}

/// Prints the address, the store and the cache, and commands to try.
pub(crate) fn greet(
    address: SocketAddr,
    settings: &Settings,
    credentials: &Credentials,
    config: &Config,
    example: &Example,
) {
    let store = match &config.database.url {
        SecretSource::None => format!("{} (edit it while Pennon runs)", settings.flags_file),
        SecretSource::Plain(_) | SecretSource::SecretArn(_) => "PostgreSQL".to_owned(),
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
    // With an issuer, people sign in there.
    let signs_in = config.tokens.is_some() && config.console.client_id.is_some();
    let fragment = credentials.generated_token().filter(|_| !signs_in);
    let fragment = fragment.map_or_else(String::new, |token| format!("#token={token}"));
    text.push(format!(
        "  The console, in a browser:\n    {base}/console{fragment}\n\n"
    ));
    if !credentials.exports.is_empty() {
        let intro =
            "  For the commands below and those of docs/managing-flags.md, in another shell:\n";
        text.push(intro.to_owned());
        for line in &credentials.exports {
            text.push(format!("    {line}\n"));
        }
        text.push("\n".to_owned());
    }
    let (key, heading, change) = match example {
        Example::Simple(key) => (
            key.as_str(),
            "Set its rollout.",
            "{\"rolloutPercentage\": 50}",
        ),
        Example::Typed(key) => (key.as_str(), "Turn it on.", "{\"enabled\": true}"),
        Example::Missing(key) => {
            text.push(format!(
                "  Create a flag for the commands below.
    curl -X POST {base}/api/admin/flags \\
      -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\" \\
      -d '{{\"key\": \"{key}\", \"enabled\": true, \"rolloutPercentage\": 5}}'
"
            ));
            (
                key.as_str(),
                "Set its rollout.",
                "{\"rolloutPercentage\": 50}",
            )
        }
    };
    text.push(read_commands(&base, config.auth.public_config, key));
    text.push(format!(
        "  {heading}
    curl -X PATCH {base}/api/admin/flags/{key} \\
      -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\" -d '{change}'
  What does an OpenFeature SDK get? (docs/openfeature.md says how to connect one)
    curl -X POST {base}/ofrep/v1/evaluate/flags/{key} \\
      -H \"Authorization: Bearer $PENNON_API_KEY\" -d '{{\"context\": {{\"targetingKey\": \"alice\"}}}}'
  Check Redis and PostgreSQL health.
    curl {base}/health

"
    ));
    // A closed standard output must not stop the server.
    let _ignored = std::io::stdout().write_all(text.concat().as_bytes());
}

/// Commands that read flags: by the two public config routes, or by other routes if these are off.
fn read_commands(base: &str, routes: PublicConfigRoutes, flag: &str) -> String {
    let header = match routes {
        PublicConfigRoutes::Open => "",
        PublicConfigRoutes::Key => " -H \"X-API-Key: $PENNON_API_KEY\"",
        PublicConfigRoutes::Off => {
            return format!(
                "  Which flags are on? (PUBLIC_CONFIG_ROUTES is off: there are no public routes)
    curl -X POST {base}/ofrep/v1/evaluate/flags \\
      -H \"X-API-Key: $PENNON_API_KEY\" -d '{{\"context\": {{\"targetingKey\": \"alice\"}}}}'
  What is a flag's state?
    curl {base}/api/admin/flags/{flag} -H \"Authorization: Bearer $PENNON_ADMIN_TOKEN\"
"
            );
        }
    };
    format!(
        "  Which flags are on?
    curl {base}/api/config/flags{header}
    curl '{base}/api/config/flags?userId=alice'{header}
  What is a flag's state?
    curl {base}/api/config/flags/{flag}{header}
"
    )
}
