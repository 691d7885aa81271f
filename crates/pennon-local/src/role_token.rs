//! `pennon-local token`: tokens with one role, to try what each role may do on this machine.
//!
//! A token is a role and a MAC of it by the admin token, such as `editor:staging.X2bq…`. So the server stores none, and
//! replacing the admin token invalidates all of them.

use std::ffi::OsString;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pennon_core::auth::Role;
use pennon_core::config::Secret;
use ring::hmac;

/// The start of the authenticated text: no other use of the admin token as a key can make a token of a role.
const PURPOSE: &str = "pennon-local role ";

/// The token of a role.
pub(crate) fn issue(admin_token: &Secret, role: &Role) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, admin_token.expose().as_bytes());
    let tag = hmac::sign(&key, format!("{PURPOSE}{role}").as_bytes());
    format!("{role}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The role of a token that this server's admin token has issued.
pub(crate) fn role_of(admin_token: &Secret, sent: &str) -> Option<Role> {
    let (name, _mac) = sent.rsplit_once('.')?;
    let role = Role::of_group(name)?;
    (sent == issue(admin_token, &role)).then_some(role)
}

/// Parses the arguments after `token`; `None` for `--help`.
///
/// # Errors
/// A sentence about the first invalid argument.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Option<Role>, String> {
    let arguments: Vec<_> = arguments
        .iter()
        .map(|text| text.to_string_lossy())
        .collect();
    let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let unknown = |word: &str| format!("unknown argument '{word}'; token --help lists all");
    match words.as_slice() {
        ["--help" | "-h", ..] => Ok(None),
        [] | ["--role"] => Err("token needs --role ROLE; token --help describes it".to_owned()),
        ["--role", name, more @ ..] => match (Role::of_group(name), more) {
            (None, _) => Err(format!(
                "--role must be viewer, editor, editor:<environment> or admin (got '{name}')"
            )),
            (Some(role), []) => Ok(Some(role)),
            (Some(_), [word, ..]) => Err(unknown(word)),
        },
        [word, ..] => Err(unknown(word)),
    }
}

/// What `token --help` prints.
pub(crate) const HELP: &str = "pennon-local token
Prints a bearer token for the admin routes of a local server, with one role.

Usage: pennon-local token --role ROLE

  --role ROLE  viewer, editor, editor:<environment> (such as editor:staging) or admin

Run it with the same PENNON_ADMIN_TOKEN or PENNON_FLAGS_FILE as the server: the token is derived from the admin token,
and is valid until that one is replaced.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role::of_group(name).expect("a role")
    }

    #[test]
    fn a_token_has_the_role_for_which_it_was_issued_and_no_other() {
        let secret = Secret::new("secret");
        for name in ["viewer", "editor", "editor:eu-west_2", "admin"] {
            let token = issue(&secret, &role(name));
            assert_eq!(role_of(&secret, &token), Some(role(name)), "{token}");
            assert_eq!(role_of(&Secret::new("other"), &token), None, "{token}");
            let (_, mac) = token.rsplit_once('.').expect("a MAC");
            for forged in [
                format!("editor:production.{mac}"),
                format!("admins.{mac}0"),
                format!("admins.0{mac}"),
                format!("{name}."),
                format!("{name}.{}", &mac[2..]),
                format!("{name}.{}", &mac[1..]),
                format!("{name}.{mac}00"),
                token.to_uppercase(),
                format!(" {token}"),
                mac.to_owned(),
                String::new(),
            ] {
                assert_eq!(role_of(&secret, &forged), None, "{forged}");
            }
        }
        let viewer = issue(&secret, &role("viewer"));
        assert_eq!(role_of(&secret, &viewer.replace("viewer", "editor")), None);
        assert_eq!(role_of(&secret, &viewer.replace("viewer", "admin")), None);
    }

    #[test]
    fn an_invalid_command_line_is_rejected_with_a_message_about_the_argument() {
        let parsed = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            parse(&arguments)
        };
        assert_eq!(parsed(&["--help"]), Ok(None));
        let staging = Ok(Some(role("editor:staging")));
        assert_eq!(parsed(&["--role", "editor:staging"]), staging);
        for (wrong, named) in [
            (&[][..], "--role"),
            (&["--role"], "--role"),
            (&["--role", "viewer", "x"], "'x'"),
            (&["--role", "editor:"], "got 'editor:'"),
            (&["--role", "Editor"], "got 'Editor'"),
            (&["viewer"], "'viewer'"),
        ] {
            let why = parsed(wrong).expect_err("invalid");
            assert!(why.contains(named), "{wrong:?}: {why}");
        }
    }
}
