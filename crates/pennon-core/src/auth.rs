//! Who asks. Identity is what API Gateway has verified and passes along; nothing else is believed.
//!
//! A function checks again what the gateway's authorizer has checked: a direct invocation and
//! `sam local` come past the gateway, and an admin route without verified claims is closed.

use pennon_eval::UserId;
use serde_json::{Map, Value};

use crate::config::AuthConfig;
use crate::error::Error;

/// Groups whose members are admins.
const ADMIN_GROUPS: [&str; 2] = ["admin", "admins"];

/// The token of `Authorization: Bearer …`. The word is one without case (RFC 9110, section 11.1).
#[must_use]
pub fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who has verified a token, which decides how claims are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifier {
    /// The JWT authorizer of an HTTP API.
    HttpApi,
    /// The authorizer of a REST API.
    RestApi,
    /// The local server, which makes the claims itself.
    Local,
}

/// The claims of a token that somebody whom we trust has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    values: Map<String, Value>,
    verifier: Verifier,
}

impl Claims {
    /// The claims that whoever stands before this function has verified.
    #[must_use]
    pub fn verified(values: Map<String, Value>, verifier: Verifier) -> Self {
        Self { values, verifier }
    }

    /// The claims of the admin of the local server.
    #[must_use]
    pub fn of_local_admin(id: &str) -> Self {
        Self {
            values: Map::from_iter([("sub".to_owned(), id.into())]),
            verifier: Verifier::Local,
        }
    }

    /// The user that the token is about.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        UserId::parse(self.text("sub")?)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    fn is_admin(&self, config: &AuthConfig) -> bool {
        self.verifier == Verifier::Local
            || self.text(&config.admin_claim).is_some_and(|groups| {
                members(groups)
                    .iter()
                    .any(|group| ADMIN_GROUPS.contains(&group.as_str()))
            })
    }
}

/// An identity that may change flags. Having one is the proof: there is no other way to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The token's `sub`.
    pub id: String,
}

impl Admin {
    /// Checks that the claims are an admin's.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without verified claims that name someone, [`Error::Forbidden`]
    /// when that is no admin.
    pub fn verify(claims: Option<&Claims>, config: &AuthConfig) -> Result<Self, Error> {
        let claims = claims.ok_or(Error::Unauthenticated)?;
        let user = claims.user().ok_or(Error::Unauthenticated)?;
        if !claims.is_admin(config) {
            return Err(Error::Forbidden);
        }
        Ok(Self {
            id: user.as_str().to_owned(),
        })
    }
}

/// The members of a list claim. A claim reaches us as text: a JSON array; `[a b]`, which is how HTTP
/// APIs write a list; or one bare word. Nothing else is split, so that no odd name of one group can
/// be read as the name of another.
fn members(text: &str) -> Vec<String> {
    if let Ok(list) = serde_json::from_str::<Vec<String>>(text) {
        return list;
    }
    match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(list) => list.split(' ').map(str::to_owned).collect(),
        None => vec![text.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AuthConfig {
        AuthConfig {
            admin_claim: "cognito:groups".to_owned(),
            trust_user_id_parameter: false,
            public_config: crate::config::PublicConfigRoutes::Open,
        }
    }

    fn claims(pairs: &[(&str, &str)]) -> Claims {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).into()));
        Claims::verified(pairs.collect(), Verifier::HttpApi)
    }

    fn verify(groups: &str) -> Result<Admin, Error> {
        let claims = claims(&[("sub", "u-1"), ("cognito:groups", groups)]);
        Admin::verify(Some(&claims), &config())
    }

    #[test]
    fn a_list_claim_is_read_in_every_form_it_comes_in() {
        for groups in [
            "admin",
            "admins",
            "[users admin]",
            r#"["users","admin"]"#,
            "[admin]",
        ] {
            assert!(verify(groups).is_ok(), "{groups}");
        }
        for groups in [
            "",
            "[]",
            "administrator",
            "[not-admin users]",
            "Admin",
            "admin2",
            "x,admin",
            "admin]",
            "[[admin]]",
            "[x,admin]",
            "super admin",
        ] {
            assert_eq!(verify(groups), Err(Error::Forbidden), "{groups}");
        }
    }

    #[test]
    fn without_verified_claims_nobody_is_an_admin() {
        assert_eq!(Admin::verify(None, &config()), Err(Error::Unauthenticated));
        let nameless = claims(&[("cognito:groups", "admin")]);
        assert_eq!(
            Admin::verify(Some(&nameless), &config()),
            Err(Error::Unauthenticated)
        );
    }

    #[test]
    fn the_claim_that_lists_groups_can_be_another() {
        let other = AuthConfig {
            admin_claim: "roles".to_owned(),
            ..config()
        };
        let claims = claims(&[("sub", "u-1"), ("roles", "[admin]")]);
        assert!(Admin::verify(Some(&claims), &other).is_ok());
        assert_eq!(
            Admin::verify(Some(&claims), &config()),
            Err(Error::Forbidden)
        );
    }
}
