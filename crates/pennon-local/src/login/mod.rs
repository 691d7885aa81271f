//! `pennon-local login`: a token for admin routes, from an OpenID Connect issuer.
//!
//! The authorization code flow with PKCE (RFC 7636, RFC 8252): the user signs in at the issuer, in a browser,
//! so that this program sees no password and a second factor works. The issuer sends the browser back to a
//! port of this machine with a code, which is useless without the verifier that only this process knows.
//!
//! The tokens are stored in a file that only its owner can read. The next call uses the stored token while it is
//! valid, then the refresh token, and only then asks the user to sign in again.

mod callback;
mod issuer;
mod options;
mod session;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use pennon_core::config::process_environment;

use callback::Callback;
use issuer::{Issuer, TokenError};
use options::Purpose;
pub(crate) use options::{HELP, Options};
use session::{Session, SessionFile};

/// A token that expires sooner is refreshed instead of used.
const MIN_VALIDITY: Duration = Duration::from_secs(60);

/// Gets a token and returns the line that sets it in a shell; `None` after a logout.
///
/// # Errors
/// A sentence for the user.
pub(crate) async fn run(options: Options) -> Result<Option<String>, String> {
    let file = SessionFile::open(&options.name)?;
    if options.purpose == Purpose::Logout {
        end_session(&file, options).await?;
        return Ok(None);
    }
    let session = file.read().filter(|session| session.is_for(&options));
    if let Some(session) = &session
        && options.purpose != Purpose::SignIn
        && session.is_valid_for(MIN_VALIDITY, options.token)
    {
        return Ok(Some(session.export(options.token)));
    }
    let issuer = Issuer::discover(&options).await?;
    if let Some(session) =
        session.filter(|old| old.can_be_refreshed() && options.purpose != Purpose::SignIn)
    {
        match issuer.refresh(session, &file).await {
            Ok(session) if session.is_valid_for(Duration::ZERO, options.token) => {
                return Ok(Some(session.export(options.token)));
            }
            // A response need not have an id token.
            Ok(_) => notify("the issuer returned no new token"),
            Err(TokenError::Rejected(why)) => {
                file.remove()?;
                notify(&format!("the session has ended ({why})"));
            }
            Err(TokenError::Failed(why)) => return Err(why),
        }
    }
    if options.purpose == Purpose::Refresh {
        return Err("there is no session to refresh; sign in without --refresh".to_owned());
    }
    let session = sign_in(&issuer, &options).await?;
    file.write(&session)?;
    Ok(Some(session.export(options.token)))
}

/// Revokes and deletes the session, also if the command line names another issuer or client: the file has its only
/// refresh token.
async fn end_session(file: &SessionFile, mut options: Options) -> Result<(), String> {
    let Some(session) = file.read() else {
        file.remove()?;
        notify("there is no session");
        return Ok(());
    };
    options.issuer.clone_from(&session.issuer);
    options.client_id.clone_from(&session.client_id);
    let revoked = match Issuer::discover(&options).await {
        Ok(issuer) => issuer.revoke(&session).await,
        Err(why) => Err(why),
    };
    file.remove()?;
    revoked?;
    notify(&format!("signed out at {}", options.issuer));
    Ok(())
}

async fn sign_in(issuer: &Issuer, options: &Options) -> Result<Session, String> {
    let callback = Callback::listen(&options.ports).await?;
    let attempt = issuer.begin(callback.redirect_uri())?;
    notify(&format!("Sign in at\n\n  {}\n", attempt.url));
    if options.open_browser {
        open(attempt.url.as_str());
    }
    let code = callback
        .wait(&attempt.state, issuer.name(), options.timeout)
        .await?;
    issuer.exchange(&attempt, &code).await
}

/// Opens a browser, if there is one. Failures are ignored, since the address is printed too.
fn open(url: &str) {
    let has = |name: &str| process_environment(name).is_some();
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if has("DISPLAY") || has("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return;
    };
    let _may_not_exist = Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

/// Prints to standard error: the shell evaluates standard output.
fn notify(text: &str) {
    let _unread = writeln!(std::io::stderr(), "{text}");
}
