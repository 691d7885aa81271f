//! The command line. Environment variables configure the server, so it has few arguments.

use std::ffi::OsString;

use pennon_core::auth::Role;

use crate::{login, role_token};

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the server.
    Serve,
    /// Sign in at an issuer.
    Login(Box<login::Options>),
    /// Print a token with this role.
    Token(Role),
    /// Print this text about the program.
    Help(&'static str),
    /// Print the version.
    Version,
}

/// Parses the arguments after the name of the program.
///
/// # Errors
/// A message about the first invalid argument.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Command, String> {
    if let Some((first, rest)) = arguments.split_first()
        && first == "login"
    {
        return Ok(match login::Options::parse(rest)? {
            Some(options) => Command::Login(Box::new(options)),
            None => Command::Help(login::HELP),
        });
    }
    if let Some((first, rest)) = arguments.split_first()
        && first == "token"
    {
        return Ok(match role_token::parse(rest)? {
            Some(role) => Command::Token(role),
            None => Command::Help(role_token::HELP),
        });
    }
    let mut command = Command::Serve;
    for argument in arguments {
        command = match argument.to_str() {
            Some("--help" | "-h") => Command::Help(HELP),
            Some("--version" | "-V") if command == Command::Serve => Command::Version,
            Some("--version" | "-V") => command,
            Some(_) | None => {
                let argument = argument.to_string_lossy();
                return Err(format!("unknown argument '{argument}'; --help lists all"));
            }
        };
    }
    Ok(command)
}

/// The output of `--version`.
pub(crate) const VERSION: &str = concat!("pennon-local ", env!("CARGO_PKG_VERSION"), "\n");

/// The output of `--help`.
pub(crate) const HELP: &str = concat!(
    "pennon-local ",
    env!("CARGO_PKG_VERSION"),
    "\nServes every route of Pennon on this machine.

Usage: pennon-local [--help | --version]
       pennon-local login --help
       pennon-local token --role ROLE

  -h, --help     print this text
  -V, --version  print the version

Settings are environment variables:

  PENNON_LISTEN                  address and port (127.0.0.1:9000)
  PENNON_FLAGS_FILE              the file with the flags (flags.json)
  PENNON_ADMIN_TOKEN             the admin's bearer token (generated, and stored in flags.json.secrets)
  PENNON_API_KEY                 the API key for OpenFeature SDKs (generated and stored in the same way)
  PENNON_EVALUATIONS_PER_SECOND  the rate above which OpenFeature requests get 429 (no limit)
  PENNON_WEBHOOKS                anywhere accepts webhook URLs of any address, over HTTP too (public)
  DATABASE_URL                   a PostgreSQL database for the flags, instead of the file
  REDIS_URL                      a Redis that caches the flags
  CACHE_MAC_KEY                  the key that authenticates cache entries (generated and stored in the same way)

docs/configuration.md lists all settings.
"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse(&arguments)
    }

    #[test]
    fn commands_are_parsed_and_an_unknown_argument_is_an_error_in_any_position() {
        assert_eq!(parsed(&[]), Ok(Command::Serve));
        assert_eq!(parsed(&["-h"]), Ok(Command::Help(HELP)));
        assert_eq!(parsed(&["login", "-h"]), Ok(Command::Help(login::HELP)));
        assert_eq!(
            parsed(&["token", "-h"]),
            Ok(Command::Help(role_token::HELP))
        );
        let viewer = parsed(&["token", "--role", "viewer"]);
        assert_eq!(viewer, Ok(Command::Token(Role::Viewer)));
        assert!(parsed(&["token"]).is_err());
        assert!(parsed(&["login"]).is_err());
        assert_eq!(parsed(&["--version", "--help"]), Ok(Command::Help(HELP)));
        assert_eq!(parsed(&["--help", "-V"]), Ok(Command::Help(HELP)));
        assert_eq!(parsed(&["-V"]), Ok(Command::Version));
        for wrong in [&["--hlep"][..], &["--help", "x"], &["x", "--help"], &[""]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
