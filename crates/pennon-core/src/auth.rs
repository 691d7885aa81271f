//! Who asks. Identity is what API Gateway has verified and passes along; nothing else is believed.
//!
//! A function checks again what the gateway's authorizer has checked: a direct invocation and
//! `sam local` come past the gateway, and an admin route without verified claims is closed.

use std::collections::BTreeMap;

use lambda_http::request::RequestContext;
use pennon_eval::UserId;

use crate::config::AuthConfig;
use crate::error::Error;

/// Groups whose members are admins.
const ADMIN_GROUPS: [&str; 2] = ["admin", "admins"];

/// The claims of a token that somebody whom we trust has verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<String, String>);

impl Claims {
    /// Claims that the local server vouches for.
    #[must_use]
    pub fn trusted(pairs: &[(&str, &str)]) -> Self {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self(owned.collect())
    }

    /// The claims that API Gateway's JWT authorizer has verified, if it has.
    #[must_use]
    pub fn of(context: &RequestContext) -> Option<Self> {
        match context {
            RequestContext::ApiGatewayV2(context) => {
                let claims = &context.authorizer.as_ref()?.jwt.as_ref()?.claims;
                Some(Self(claims.clone().into_iter().collect()))
            }
            RequestContext::ApiGatewayV1(context) => {
                let claims = context.authorizer.fields.get("claims")?.as_object()?;
                let texts = claims.iter().map(|(name, value)| {
                    let text = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    (name.clone(), text)
                });
                Some(Self(texts.collect()))
            }
            _ => None,
        }
    }

    /// The user that the token is about.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        UserId::parse(self.0.get("sub")?.as_str())
    }

    fn is_admin(&self, config: &AuthConfig) -> bool {
        self.0.get(&config.admin_claim).is_some_and(|groups| {
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
        }
    }

    fn verify(groups: &str) -> Result<Admin, Error> {
        let claims = Claims::trusted(&[("sub", "u-1"), ("cognito:groups", groups)]);
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
        let nameless = Claims::trusted(&[("cognito:groups", "admin")]);
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
        let claims = Claims::trusted(&[("sub", "u-1"), ("roles", "[admin]")]);
        assert!(Admin::verify(Some(&claims), &other).is_ok());
        assert_eq!(
            Admin::verify(Some(&claims), &config()),
            Err(Error::Forbidden)
        );
    }
}
