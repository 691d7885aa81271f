//! The command line of `pennon-local login`.

use std::ffi::OsString;
use std::time::Duration;

use pennon_core::config::parse_issuer;

/// The ports that the user pool in template.yaml allows. Cognito compares whole redirect URIs, ports included.
const PORTS: [u16; 3] = [41817, 41818, 41819];
/// The default time limit of a sign-in.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The issuer's token that the API accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// The access token.
    Access,
    /// The id token, for issuers whose access tokens are not JWTs or have another audience.
    Id,
}

/// What to do with the stored session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Use it, else refresh it, else sign in.
    Token,
    /// Sign in again, even if a session is stored.
    SignIn,
    /// Use it or refresh it; fail instead of asking the user.
    Refresh,
    /// Revoke and delete it.
    Logout,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The issuer's address, exactly as in the claim `iss`.
    pub(crate) issuer: String,
    /// The id of a public client of the issuer.
    pub(crate) client_id: String,
    /// The name of the session file.
    pub(crate) name: String,
    /// The scopes to request. If `None`, a sign-in requests `openid`, and a stored session may have any scopes.
    pub(crate) scope: Option<String>,
    /// Which token is printed.
    pub(crate) token: TokenKind,
    /// The ports to try, in this order; 0 is any free port.
    pub(crate) ports: Vec<u16>,
    /// How long to wait for the browser.
    pub(crate) timeout: Duration,
    /// Whether to open a browser.
    pub(crate) open_browser: bool,
    /// What to do.
    pub(crate) purpose: Purpose,
}

impl Options {
    /// Parses the arguments after `login`; `None` for `--help`.
    ///
    /// # Errors
    /// A sentence about the first invalid argument.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Option<Self>, String> {
        let mut options = Self {
            issuer: String::new(),
            client_id: String::new(),
            name: "default".to_owned(),
            scope: None,
            token: TokenKind::Access,
            ports: PORTS.to_vec(),
            timeout: TIMEOUT,
            open_browser: true,
            purpose: Purpose::Token,
        };
        let mut purposes = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.to_string_lossy();
            let mut value = || {
                let value = arguments.next();
                value
                    .map(|value| value.to_string_lossy().into_owned())
                    .filter(|value| !value.is_empty() && !value.starts_with("--"))
                    .ok_or_else(|| format!("{argument} needs a value; login --help describes it"))
            };
            match argument.as_ref() {
                "--help" | "-h" => return Ok(None),
                "--issuer" => options.issuer = value()?,
                "--client-id" => options.client_id = value()?,
                "--name" => options.name = name(value()?)?,
                "--scope" => options.scope = Some(value()?),
                "--token" => options.token = token(&value()?)?,
                "--port" => options.ports = vec![number("--port", &value()?, 65_535)?],
                "--timeout" => {
                    let seconds = number("--timeout", &value()?, 3_600)?;
                    options.timeout = Duration::from_secs(seconds.into());
                }
                "--no-browser" => options.open_browser = false,
                "--new" => purposes.push(Purpose::SignIn),
                "--refresh" => purposes.push(Purpose::Refresh),
                "--logout" => purposes.push(Purpose::Logout),
                _ => {
                    return Err(format!(
                        "unknown argument '{argument}'; login --help lists all"
                    ));
                }
            }
        }
        match purposes.as_slice() {
            [] => {}
            [only] => options.purpose = *only,
            [_, _, ..] => return Err("--new, --refresh and --logout exclude each other".to_owned()),
        }
        if options.client_id.is_empty() {
            return Err(
                "--client-id is required: the id of a public client of the issuer".to_owned(),
            );
        }
        match parse_issuer(&options.issuer) {
            Ok(_) => Ok(Some(options)),
            Err(why) => Err(format!("--issuer must be the URL of an issuer: {why}")),
        }
    }
}

fn name(text: String) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.len() <= 64 && text.bytes().all(plain) {
        Ok(text)
    } else {
        Err("--name must be at most 64 letters, digits, '-' or '_'".to_owned())
    }
}

fn token(text: &str) -> Result<TokenKind, String> {
    match text {
        "access" => Ok(TokenKind::Access),
        "id" => Ok(TokenKind::Id),
        _ => Err("--token must be access or id".to_owned()),
    }
}

fn number(name: &str, text: &str, limit: u16) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| *number <= limit);
    number.ok_or_else(|| format!("{name} must be an integer from 0 to {limit}"))
}

/// What `login --help` prints.
pub(crate) const HELP: &str = "pennon-local login
Gets a token for admin routes: signs in at an OpenID Connect issuer, in a browser, and prints the line that sets
the token in a shell. `scripts/login staging` calls it for a deployed stack.

Usage: pennon-local login --issuer URL --client-id ID [options]

  --issuer URL      the issuer, exactly as in its tokens (iss)
  --client-id ID    a public client (no secret) for which one of these addresses is allowed:
                      http://127.0.0.1:41817/callback
                      http://127.0.0.1:41818/callback
                      http://127.0.0.1:41819/callback
  --name NAME       store the session under this name (`default` without it)
  --scope SCOPES    the scopes to request (openid); a stored session with others is not used
  --token KIND      access, or id for issuers whose access tokens have another audience (access)
  --port PORT       listen on this port instead; 0 is any, for issuers that allow any port of 127.0.0.1
  --timeout SECONDS how long to wait for the browser (300)
  --no-browser      print the address without opening a browser
  --new             sign in again, even if a session is stored
  --refresh         use or refresh the stored session, or fail
  --logout          revoke and delete the session with this name, whatever its issuer and client

JWT_CA_FILE names a PEM file with certificate authorities for an issuer without a public certificate.
The session is stored in $XDG_CONFIG_HOME/pennon or ~/.config/pennon, readable by its owner only.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Result<Option<Options>, String> {
        let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
        Options::parse(&arguments)
    }

    #[test]
    fn the_help_lists_every_redirect_uri() {
        for port in PORTS {
            let address = format!("http://127.0.0.1:{port}/callback\n");
            assert!(HELP.contains(&address), "{port} is missing");
        }
        assert_eq!(HELP.matches("http://127.0.0.1:").count(), PORTS.len());
    }

    #[test]
    fn an_invalid_command_line_is_rejected_with_a_message_about_the_argument() {
        let good = "--issuer https://i.example --client-id c";
        let options = parsed(good).expect("good").expect("no help");
        assert_eq!(options.ports, PORTS);
        assert_eq!(parsed("--issuer x --help"), Ok(None));
        for (wrong, named) in [
            ("--client-id c".to_owned(), "--issuer"),
            ("--issuer https://i.example".to_owned(), "--client-id"),
            (
                "--issuer http://i.example --client-id c".to_owned(),
                "https",
            ),
            (
                "--issuer https://u@i.example --client-id c".to_owned(),
                "user",
            ),
            (format!("{good} --name a/b"), "--name"),
            (format!("{good} --name"), "--name"),
            (format!("{good} --token refresh"), "--token"),
            (format!("{good} --port 70000"), "--port"),
            (format!("{good} --timeout -1"), "--timeout"),
            (format!("{good} --timeout 3601"), "--timeout"),
            (format!("{good} --new --refresh"), "exclude"),
            (format!("{good} --logout --logout"), "exclude"),
            (format!("{good} --password x"), "--password"),
            (format!("{good} --client-id --new"), "--client-id"),
        ] {
            let why = parsed(&wrong).expect_err(&wrong);
            assert!(why.contains(named), "{wrong}: {why}");
        }
    }
}
