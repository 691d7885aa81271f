//! Decides what a caller of an admin route may do, from the claims that API Gateway has verified.
//!
//! Direct invocations and `sam local` bypass the gateway's authorizer, so a request to an admin route without
//! verified claims is rejected.
//!
//! Gateways write lists as text: an HTTP API writes `[site admin]` for one group of that name, and also for the
//! two groups `site` and `admin`. Therefore the groups are read as JSON from the token in the request, if it is
//! the token whose claims the gateway has verified. An ambiguous text never gives a caller a role.

mod payload;

use lambda_http::http::HeaderMap;
use lambda_http::http::header::AUTHORIZATION;
use pennon_eval::UserId;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::config::AuthConfig;
use crate::error::Error;
use crate::limits::{is_blank, is_invisible};
pub use crate::role::{Role, Roles};
use payload::{Payload, PayloadError};

/// Cognito's claim with groups. Names of Cognito groups contain no space.
const COGNITO_GROUPS: &str = "cognito:groups";
/// The claim with the role of a caller of the local server.
const LOCAL_ROLE: &str = "role";
/// The longest `sub`, in characters: the length of the columns with user ids.
const MAX_SUBJECT_LENGTH: usize = 255;

/// The token of `Authorization: Bearer …`. The scheme is case-insensitive (RFC 9110, section 11.1).
#[must_use]
pub fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who has verified a token. The formats of claims differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifier {
    /// The JWT authorizer of an HTTP API.
    HttpApi,
    /// The authorizer of a REST API.
    RestApi,
    /// The local server, which creates the claims itself.
    Local,
}

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    values: Map<String, Value>,
    verifier: Verifier,
}

impl Claims {
    /// Claims that an authorizer in front of this function has verified.
    #[must_use]
    pub fn verified(values: Map<String, Value>, verifier: Verifier) -> Self {
        Self { values, verifier }
    }

    /// The claims of a token that the local server has verified, in the form in which the JWT authorizer of an HTTP API
    /// passes them.
    #[must_use]
    pub fn of_token(claims: &Map<String, Value>) -> Self {
        let plain = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => value.to_string(),
        };
        let written = |value: &Value| match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => plain(value),
        };
        let claims = claims.iter();
        let values = claims.map(|(name, value)| (name.clone(), written(value).into()));
        Self::verified(values.collect(), Verifier::HttpApi)
    }

    /// The claims of a caller of the local server.
    #[must_use]
    pub fn of_local(role: &Role) -> Self {
        let role = role.to_string();
        let values = [("sub", format!("local-{role}")), (LOCAL_ROLE, role)];
        let values = values.map(|(name, value)| (name.to_owned(), value.into()));
        Self {
            values: Map::from_iter(values),
            verifier: Verifier::Local,
        }
    }

    /// The subject of the token.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        UserId::parse(self.text("sub")?)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    /// The groups of the caller, from the claim that `ADMIN_CLAIM` names. On the local server, from the claim `role`.
    fn groups(&self, headers: &HeaderMap, config: &AuthConfig) -> Result<Vec<String>, GroupsError> {
        if self.verifier == Verifier::Local {
            return names(self.values.get(LOCAL_ROLE));
        }
        let claim = &config.admin_claim;
        let Some(payload) = token_of(headers)? else {
            return self.groups_without_token(claim);
        };
        for name in ["iss", "sub"] {
            let verified = self.text(name).ok_or(GroupsError::OtherToken(name))?;
            if payload.get(name).and_then(Value::as_str) != Some(verified) {
                return Err(GroupsError::OtherToken(name));
            }
        }
        let exp = self.text("exp").ok_or(GroupsError::OtherToken("exp"))?;
        if !self.is_expiry(exp, payload.get("exp")) {
            return Err(GroupsError::OtherToken("exp"));
        }
        let groups = names(payload.get(claim))?;
        // The authorizer may have verified another token than that of the header `Authorization`.
        let is_confirmed = match (self.text(claim), self.verifier) {
            (Some(written), Verifier::HttpApi) => match payload.get(claim) {
                Some(Value::String(name)) => written == name,
                _ => written == format!("[{}]", groups.join(" ")),
            },
            // REST APIs write lists in more than one way.
            (Some(written), Verifier::RestApi) => {
                groups.iter().all(|group| lists_name(written, group))
            }
            // Gateways pass every claim of a verified token, as text. So without a text here, the verified
            // token has no groups.
            (None, Verifier::HttpApi | Verifier::RestApi) | (_, Verifier::Local) => {
                groups.is_empty()
            }
        };
        if is_confirmed {
            Ok(groups)
        } else {
            Err(GroupsError::OtherGroups)
        }
    }

    /// Reads the groups from the gateway's claims alone, if the text is unambiguous.
    fn groups_without_token(&self, claim: &str) -> Result<Vec<String>, GroupsError> {
        let Some(text) = self.text(claim) else {
            return names(self.values.get(claim));
        };
        let Some(rest) = text.strip_prefix('[') else {
            return Ok(vec![text.to_owned()]);
        };
        let list = rest.strip_suffix(']').ok_or(GroupsError::AmbiguousText)?;
        // REST APIs write lists in more than one way, and names in other claims may contain spaces.
        if claim != COGNITO_GROUPS || self.verifier != Verifier::HttpApi {
            return Err(GroupsError::AmbiguousText);
        }
        match list.split(' ').map(str::to_owned).collect::<Vec<_>>() {
            _ if list.is_empty() => Ok(Vec::new()),
            names if names.iter().any(String::is_empty) => Err(GroupsError::AmbiguousText),
            names => Ok(names),
        }
    }

    /// Whether this text stands for `exp`. Gateways write the number, REST APIs also a date. The local server writes
    /// the JSON, even of a number that is not whole.
    fn is_expiry(&self, written: &str, exp: Option<&Value>) -> bool {
        let Some(exp) = exp.filter(|exp| exp.is_number()) else {
            return false;
        };
        let as_json = exp.to_string();
        let is_of = |seconds: i64| {
            written == seconds.to_string()
                || (self.verifier == Verifier::RestApi && date(seconds).as_deref() == Some(written))
        };
        written == as_json || whole_seconds(exp).is_some_and(is_of)
    }
}

/// Why the groups of a caller are unknown. The message is for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum GroupsError {
    #[error("the token has two claims with the same name")]
    DuplicateClaim,
    #[error("{0} of the token in the request differs from the verified claim")]
    OtherToken(&'static str),
    #[error("the groups of the token in the request differ from the verified claim")]
    OtherGroups,
    #[error("the groups are neither a string nor a list of strings")]
    NotNames,
    #[error(
        "the gateway wrote a list as text, which is ambiguous because a name may contain spaces or \
         brackets, and the request has no token to read the list from"
    )]
    AmbiguousText,
}

/// The payload of the token in the header `Authorization`. Several tokens count as none, because it is unknown
/// which of them the gateway has verified.
fn token_of(headers: &HeaderMap) -> Result<Option<Payload>, GroupsError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let Ok(text) = value.to_str() else {
        return Ok(None);
    };
    // Authorizers also accept a token without the scheme `Bearer`.
    let token = bearer_token(text).unwrap_or_else(|| text.trim());
    match Payload::parse(token) {
        Ok(payload) => Ok(Some(payload)),
        Err(PayloadError::NotAToken) => Ok(None),
        Err(PayloadError::DuplicateClaim) => Err(GroupsError::DuplicateClaim),
    }
}

/// The names in a JSON claim: a string or a list of strings.
fn names(claim: Option<&Value>) -> Result<Vec<String>, GroupsError> {
    match claim {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(name)) => Ok(vec![name.clone()]),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or(GroupsError::NotNames)
            })
            .collect(),
        Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => Err(GroupsError::NotNames),
    }
}

/// Whether a list that a REST API has written as text contains this name. Part of a longer name does not count:
/// `editor` is not in `editor:staging`.
fn lists_name(written: &str, name: &str) -> bool {
    let delimits =
        |next: Option<char>| next.is_none_or(|next| matches!(next, ',' | ' ' | '[' | ']' | '"'));
    written.match_indices(name).any(|(start, _)| {
        let before = written.get(..start).unwrap_or_default();
        let after = written.get(start + name.len()..).unwrap_or_default();
        delimits(before.chars().next_back()) && delimits(after.chars().next())
    })
}

/// An integer, also if it is written as a float (`1.79e9`).
fn whole_seconds(value: &Value) -> Option<i64> {
    if let Some(seconds) = value.as_i64() {
        return Some(seconds);
    }
    let seconds = value.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only used if whole and within ±1e15; otherwise the cast saturates"
    )]
    let whole = (seconds.fract() == 0.0 && seconds.abs() < 1e15).then_some(seconds as i64);
    whole
}

/// Formats a time as the authorizer of a REST API does: `Thu Mar 12 07:57:31 UTC 2020`.
fn date(seconds: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let (hour, minute, second) = time.to_hms();
    let (weekday, month) = (time.weekday().to_string(), time.month().to_string());
    Some(format!(
        "{} {} {:02} {hour:02}:{minute:02}:{second:02} UTC {}",
        weekday.get(..3)?,
        month.get(..3)?,
        time.day(),
        time.year()
    ))
}

/// A person with a role, whom the gateway has verified. Create one only with [`Actor::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The token's `sub`.
    pub id: String,
    /// What the person may do.
    pub roles: Roles,
}

impl Actor {
    /// Checks that the caller has a role. `headers` are those of the request; its token is used to read the groups.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without verified claims that have a valid `sub`; [`Error::Forbidden`] if the
    /// caller has no role, or if the groups cannot be read, in which case the log states the reason.
    pub fn verify(
        claims: Option<&Claims>,
        headers: &HeaderMap,
        config: &AuthConfig,
    ) -> Result<Self, Error> {
        let claims = claims.ok_or(Error::Unauthenticated)?;
        let subject = claims.text("sub").ok_or(Error::Unauthenticated)?;
        let length = subject.chars().count();
        let is_hidden = |character: char| character.is_control() || is_invisible(character);
        if subject.trim_matches(is_blank).is_empty()
            || length > MAX_SUBJECT_LENGTH
            || subject.contains(is_hidden)
        {
            tracing::warn!(
                domain = "config",
                length,
                "the verified sub is blank, longer than 255 characters or has a control, format or invisible character"
            );
            return Err(Error::Unauthenticated);
        }
        let groups = claims.groups(headers, config).map_err(|error| {
            tracing::warn!(
                domain = "config",
                claim = %config.admin_claim,
                reason = %error,
                "the caller is treated as a person without a role"
            );
            Error::Forbidden(Role::Viewer)
        })?;
        let roles = Roles::of_groups(&groups).ok_or(Error::Forbidden(Role::Viewer))?;
        Ok(Self {
            id: subject.to_owned(),
            roles,
        })
    }

    /// Checks that the roles include this one.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the missing role.
    pub fn require(&self, needed: Role) -> Result<(), Error> {
        if self.roles.include(&needed) {
            Ok(())
        } else {
            Err(Error::Forbidden(needed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    fn config(claim: &str) -> AuthConfig {
        AuthConfig {
            admin_claim: claim.to_owned(),
            trust_user_id_parameter: false,
            public_config: crate::config::PublicConfigRoutes::Open,
        }
    }

    fn claims(values: &Value, verifier: Verifier) -> Claims {
        Claims::verified(values.as_object().expect("an object").clone(), verifier)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values.iter();
        let values = values.map(|value| (AUTHORIZATION, value.parse().expect("a header")));
        values.collect()
    }

    /// An `Authorization` header whose token has this payload, which need not be JSON.
    fn token(payload: &str) -> String {
        format!("Bearer e30.{}.sig", URL_SAFE_NO_PAD.encode(payload))
    }

    /// Verifies claims without a token.
    fn verify(claim: &str, groups: &str, verifier: Verifier) -> Result<Actor, Error> {
        let claims = claims(&json!({"sub": "u-1", claim: groups}), verifier);
        Actor::verify(Some(&claims), &HeaderMap::new(), &config(claim))
    }

    /// Verifies claims with a token. `changed` replaces claims, or with the prefix `token:` those of the token.
    fn with_token(
        groups: &str,
        payload: &Value,
        changed: &[(&str, Value)],
    ) -> Result<Actor, Error> {
        let mut values = json!({
            "sub": "u-1", "iss": "https://issuer.example", "exp": "1790000000", "roles": groups,
        });
        let mut token_claims = json!({
            "sub": "u-1", "iss": "https://issuer.example", "exp": 1_790_000_000, "roles": payload,
        });
        for (name, value) in changed {
            match name.strip_prefix("token:") {
                Some(name) => token_claims[name] = value.clone(),
                None => values[*name] = value.clone(),
            }
        }
        let headers = headers(&[&token(&token_claims.to_string())]);
        let claims = claims(&values, Verifier::HttpApi);
        Actor::verify(Some(&claims), &headers, &config("roles"))
    }

    #[test]
    fn cognito_groups_are_read_from_text_because_their_names_have_no_spaces() {
        for groups in ["admin", "admins", "[users admin]", "[admin]"] {
            assert!(
                verify(COGNITO_GROUPS, groups, Verifier::HttpApi).is_ok(),
                "{groups}"
            );
        }
        for groups in [
            "",
            "[]",
            "[",
            "administrator",
            "[not-admin users]",
            "Admin",
            "admin ",
            "[Admin]",
            "admin2",
            "x,admin",
            "admin,x",
            "admin]",
            "[admin",
            "[[admin]]",
            "[[admin] x]",
            "[x,admin]",
            "[ admin]",
            "[x  admin]",
            "[x\tadmin]",
            "super admin",
            r#"["admin"]"#,
            r#"["users","admin"]"#,
        ] {
            assert_eq!(
                verify(COGNITO_GROUPS, groups, Verifier::HttpApi),
                Err(Error::Forbidden(Role::Viewer)),
                "{groups}"
            );
        }
    }

    #[test]
    fn without_a_token_only_cognito_groups_of_an_http_api_are_read_as_a_list() {
        assert!(verify("roles", "admin", Verifier::HttpApi).is_ok());
        assert!(verify("roles", "admin", Verifier::RestApi).is_ok());
        for groups in ["[admin]", "[site admin]", "[admin users]", "site admin"] {
            for verifier in [Verifier::HttpApi, Verifier::RestApi] {
                let verified = verify("roles", groups, verifier);
                assert_eq!(verified, Err(Error::Forbidden(Role::Viewer)), "{groups}");
            }
        }
        // REST APIs write lists in more than one way, and a name may also contain commas and brackets.
        for groups in ["[admin]", "users,admin", "admin,users"] {
            let verified = verify(COGNITO_GROUPS, groups, Verifier::RestApi);
            assert_eq!(verified, Err(Error::Forbidden(Role::Viewer)), "{groups}");
        }
    }

    #[test]
    fn groups_are_read_from_the_token_as_the_issuer_wrote_them() {
        for (groups, payload) in [
            ("[admin]", json!(["admin"])),
            ("[site admin]", json!(["site", "admin"])),
            ("admins", json!("admins")),
        ] {
            assert!(with_token(groups, &payload, &[]).is_ok(), "{payload}");
        }
        for (groups, payload) in [
            ("[site admin]", json!(["site admin"])),
            ("[admin]", json!("[admin]")),
            ("site admin", json!("site admin")),
            (r#"["admin"]"#, json!(r#"["admin"]"#)),
            ("[[admin]]", json!([["admin"]])),
            ("[admin [x]]", json!(["admin", ["x"]])),
            ("[admin 5]", json!(["admin", 5])),
            ("map[admin:true]", json!({"admin": true})),
            ("true", json!(true)),
            ("[]", json!([])),
            ("", json!(null)),
            // The token differs from the verified claim.
            ("[users]", json!(["admin"])),
            ("[admin]", json!(["users"])),
        ] {
            assert_eq!(
                with_token(groups, &payload, &[]),
                Err(Error::Forbidden(Role::Viewer)),
                "{payload}"
            );
        }
    }

    #[test]
    fn a_token_that_differs_from_the_verified_claims_makes_nobody_an_admin() {
        let admin = json!(["admin"]);
        for changed in [
            ("token:iss", json!("https://other.example")),
            ("token:iss", json!(["https://issuer.example"])),
            ("token:iss", json!(null)),
            ("token:sub", json!("u-2")),
            ("token:sub", json!(1)),
            ("token:exp", json!(1_790_000_001)),
            ("token:exp", json!(1_790_000_000.5)),
            ("token:exp", json!("1790000000")),
            ("token:exp", json!(null)),
            ("iss", json!("https://other.example")),
            ("iss", json!(null)),
            ("exp", json!("1.79e9")),
            ("exp", json!("01790000000")),
            ("exp", json!("+1790000000")),
            ("exp", json!("Mon Sep 21 14:13:20 UTC 2026")),
            ("exp", json!(null)),
            ("exp", json!(1_790_000_000)),
        ] {
            let verified = with_token("[admin]", &admin, std::slice::from_ref(&changed));
            assert_eq!(verified, Err(Error::Forbidden(Role::Viewer)), "{changed:?}");
        }
        let same = ("token:exp", json!(1.79e9));
        assert!(with_token("[admin]", &admin, &[same]).is_ok());
    }

    #[test]
    fn an_expiry_of_a_verified_token_need_not_be_an_integer() {
        for exp in ["1790000000", "1790000000.5", "1.79e9", "1790000000.0"] {
            let payload =
                format!(r#"{{"sub": "u-1", "iss": "i", "exp": {exp}, "roles": ["admin"]}}"#);
            let headers = headers(&[&token(&payload)]);
            let claims = serde_json::from_str(&payload).expect("claims");
            let claims = Claims::of_token(&claims);
            let verified = Actor::verify(Some(&claims), &headers, &config("roles"));
            assert!(verified.is_ok(), "{exp}");
        }
    }

    #[test]
    fn groups_that_are_only_in_the_token_make_nobody_an_admin() {
        for groups in [json!(["admin"]), json!("admin"), json!(["users", "admins"])] {
            let payload = json!({"sub": "u-1", "iss": "i", "exp": 1, "roles": groups});
            let headers = headers(&[&token(&payload.to_string())]);
            for verifier in [Verifier::HttpApi, Verifier::RestApi] {
                let verify = |of_event: Option<Value>| {
                    let mut values = json!({"sub": "u-1", "iss": "i", "exp": "1"});
                    if let Some(value) = of_event {
                        values["roles"] = value;
                    }
                    let claims = claims(&values, verifier);
                    Actor::verify(Some(&claims), &headers, &config("roles"))
                };
                for other in [
                    None,
                    Some(json!(null)),
                    Some(json!(5)),
                    Some(json!(true)),
                    Some(json!([])),
                    Some(json!(["admin"])),
                    Some(json!({"admin": true})),
                    Some(json!("")),
                    Some(json!("[]")),
                    Some(json!("users")),
                ] {
                    let verified = verify(other.clone());
                    assert_eq!(
                        verified,
                        Err(Error::Forbidden(Role::Viewer)),
                        "{groups} {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_token_with_a_duplicate_claim_makes_nobody_an_admin() {
        let claims = claims(
            &json!({"sub": "u-1", "iss": "i", "exp": "1", "roles": "admin"}),
            Verifier::HttpApi,
        );
        for payload in [
            r#"{"sub":"u-1","iss":"i","exp":1,"roles":"users","roles":"admin"}"#,
            r#"{"sub":"u-1","iss":"i","exp":1,"roles":"admin","\u0073ub":"u-1"}"#,
        ] {
            let headers = headers(&[&token(payload)]);
            let verified = Actor::verify(Some(&claims), &headers, &config("roles"));
            assert_eq!(verified, Err(Error::Forbidden(Role::Viewer)), "{payload}");
        }
    }

    #[test]
    fn without_exactly_one_token_the_gateways_claims_alone_decide() {
        let payload = |groups: &str| {
            token(&format!(
                r#"{{"sub":"u-1","iss":"i","exp":1,"roles":["{groups}"]}}"#
            ))
        };
        let (users, admin) = (payload("users"), payload("admin"));
        for values in [
            vec![users.as_str(), admin.as_str()],
            vec![&format!("{users}, {admin}")],
            vec![&format!("{users},{admin}")],
            vec!["Basic dTpw"],
            vec!["Bearer not-a-token"],
            vec![],
        ] {
            let headers = headers(&values);
            for (groups, is_admin) in [("admin", true), ("[admin]", false), ("[users]", false)] {
                let claims = claims(
                    &json!({"sub": "u-1", "iss": "i", "exp": "1", "roles": groups}),
                    Verifier::HttpApi,
                );
                let verified = Actor::verify(Some(&claims), &headers, &config("roles"));
                assert_eq!(verified.is_ok(), is_admin, "{values:?} {groups}");
            }
        }
    }

    #[test]
    fn the_expiry_of_a_rest_api_may_be_a_date() {
        let payload = r#"{"sub":"u-1","iss":"i","exp":1583999851,"cognito:groups":["x","admin"]}"#;
        for (exp, is_admin) in [
            ("Thu Mar 12 07:57:31 UTC 2020", true),
            ("1583999851", true),
            ("Thu Mar 12 07:57:32 UTC 2020", false),
            ("2020-03-12T07:57:31Z", false),
        ] {
            let values = json!({"sub": "u-1", "iss": "i", "exp": exp, "cognito:groups": "x,admin"});
            let claims = claims(&values, Verifier::RestApi);
            // REST APIs also accept a token without the scheme.
            for header in [token(payload), token(payload).replace("Bearer ", "")] {
                let headers = headers(&[&header]);
                let verified = Actor::verify(Some(&claims), &headers, &config(COGNITO_GROUPS));
                assert_eq!(verified.is_ok(), is_admin, "{exp}");
            }
        }
    }

    #[test]
    fn part_of_a_longer_name_in_the_text_of_a_rest_api_is_no_group() {
        let verified = |written: &str, group: &str| {
            let values = json!({"sub": "u-1", "iss": "i", "exp": "1", "cognito:groups": written});
            let payload = json!({"sub": "u-1", "iss": "i", "exp": 1, "cognito:groups": [group]});
            let headers = headers(&[&token(&payload.to_string())]);
            let claims = claims(&values, Verifier::RestApi);
            Actor::verify(Some(&claims), &headers, &config(COGNITO_GROUPS))
        };
        for (written, group) in [
            ("administrators", "admin"),
            ("not-admin", "admin"),
            ("x,admin2", "admin"),
            ("editor:staging", "editor"),
            ("x,editor:staging,y", "editor"),
            ("[x, editor:staging]", "editor"),
            ("editor:production-eu", "editor:production"),
            ("my editor:staging2", "editor:staging"),
            ("\u{e4}admin", "admin"),
        ] {
            let refused = Err(Error::Forbidden(Role::Viewer));
            assert_eq!(verified(written, group), refused, "{group} of {written}");
        }
        for (written, group) in [
            ("editor:staging", "editor:staging"),
            ("administrators,admin", "admin"),
            ("editor:staging,editor", "editor"),
            ("[x, editor:staging]", "editor:staging"),
            (r#"["x","admin"]"#, "admin"),
        ] {
            let actor = verified(written, group).expect("a role");
            let names: Vec<String> = actor.roles.iter().map(Role::to_string).collect();
            assert_eq!(names, [group], "{written}");
        }
    }

    #[test]
    fn ten_thousand_groups_give_the_roles_that_they_name() {
        let mut groups: Vec<String> = (0..10_000)
            .map(|number| format!("editor:e{number}"))
            .collect();
        groups.push("viewers".to_owned());
        let written = format!("[{}]", groups.join(" "));
        let actor = verify(COGNITO_GROUPS, &written, Verifier::HttpApi).expect("a role");
        assert_eq!(actor.roles.environments().count(), 10_000);
        assert!(!actor.roles.include(&Role::Editor));
        let production = Role::EditorOf(crate::environment::Environment::production());
        assert_eq!(
            actor.require(production.clone()),
            Err(Error::Forbidden(production))
        );
    }

    #[test]
    fn a_caller_of_the_local_server_has_one_role() {
        for name in ["viewer", "editor:staging", "editor", "admin"] {
            let role = Role::of_group(name).expect("a role");
            let claims = Claims::of_local(&role);
            // A token that the local server has not issued does not change the role.
            let payload =
                json!({"sub": "local-admin", "role": ["admin"], COGNITO_GROUPS: ["admin"]});
            let headers = headers(&[&token(&payload.to_string())]);
            let actor = Actor::verify(Some(&claims), &headers, &config(COGNITO_GROUPS));
            let actor = actor.expect("a role");
            assert_eq!(actor.id, format!("local-{name}"));
            assert_eq!(actor.roles.iter().collect::<Vec<_>>(), [&role]);
        }
    }

    #[test]
    fn claims_without_a_valid_subject_make_nobody_an_admin() {
        let config = config(COGNITO_GROUPS);
        let verify = |claims: Option<&Claims>| Actor::verify(claims, &HeaderMap::new(), &config);
        assert_eq!(verify(None), Err(Error::Unauthenticated));
        for subject in [
            json!(null),
            json!(""),
            json!(" \t"),
            json!("\u{a0}"),
            json!("\u{200b}"),
            json!("\u{3164}"),
            json!("\u{2800}"),
            json!("alice\u{200b}"),
            json!("ali\u{e0100}ce"),
            json!("a\0b"),
            json!("ä".repeat(256)),
            json!(5),
            json!(["a"]),
        ] {
            let values = json!({"sub": subject, "cognito:groups": "admin"});
            let claims = claims(&values, Verifier::HttpApi);
            assert_eq!(
                verify(Some(&claims)),
                Err(Error::Unauthenticated),
                "{subject}"
            );
        }
        let longest = json!({"sub": "ä".repeat(255), "cognito:groups": "admin"});
        assert!(verify(Some(&claims(&longest, Verifier::HttpApi))).is_ok());
    }

    #[test]
    fn the_scheme_before_a_token_is_case_insensitive() {
        for text in ["Bearer abc", "bearer abc", "BEARER  abc ", " Bearer abc"] {
            assert_eq!(bearer_token(text), Some("abc"), "{text}");
        }
        for text in ["abc", "Basic abc", "Bearer", ""] {
            assert_eq!(bearer_token(text), None, "{text}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use std::collections::BTreeSet;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use pennon_fuzz::{for_all, json, text};
    use serde_json::json;

    use super::*;

    fn config(claim: &str) -> AuthConfig {
        AuthConfig {
            admin_claim: claim.to_owned(),
            trust_user_id_parameter: false,
            public_config: crate::config::PublicConfigRoutes::Open,
        }
    }

    /// The roles of these groups.
    fn roles_of<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<Role> {
        names.filter_map(Role::of_group).collect()
    }

    fn found(actor: &Actor) -> BTreeSet<Role> {
        actor.roles.iter().cloned().collect()
    }

    /// Without a token, only an unambiguous text gives roles.
    #[test]
    fn an_ambiguous_text_of_a_claim_gives_no_role() {
        let examples = [
            "admin",
            "[admin]",
            "[users admin]",
            "[site admin]",
            "admins",
            "users",
            "[]",
            "editor:staging",
            "[viewer editor:production]",
        ];
        let words = &[
            "admin", "admins", "[", "]", " ", ",", "\"", "[admin]", "\u{a0}", "\t", "Admin", "\0",
            "editor", ":", "viewer", "staging", "*",
        ];
        for_all(&text(examples, words), |written| {
            for claim in [COGNITO_GROUPS, "roles"] {
                for verifier in [Verifier::HttpApi, Verifier::RestApi] {
                    let values = json!({"sub": "u-1", claim: written});
                    let values = values.as_object().expect("an object").clone();
                    let claims = Claims::verified(values, verifier);
                    let config = config(claim);
                    let actor = Actor::verify(Some(&claims), &HeaderMap::new(), &config);
                    let of_text = roles_of(std::iter::once(written.as_str()));
                    let list = written
                        .strip_prefix('[')
                        .and_then(|rest| rest.strip_suffix(']'));
                    let is_readable = claim == COGNITO_GROUPS && verifier == Verifier::HttpApi;
                    let of_list = list.filter(|_| is_readable).map(|list| list.split(' '));
                    let of_list = roles_of(of_list.into_iter().flatten());
                    let found = actor.as_ref().map(found).unwrap_or_default();
                    assert!(
                        found.is_empty() || found == of_text || found == of_list,
                        "{claim} {verifier:?}"
                    );
                    assert!(found.is_superset(&of_text), "{claim} {verifier:?}");
                }
            }
        });
    }

    /// With a token, only its groups count, and only if it matches the verified claims.
    #[test]
    fn a_caller_has_only_roles_of_groups_that_the_token_names() {
        let examples = [
            json!([{"sub": "u-1", "iss": "i", "exp": "1790000000", "roles": "[users admin]"},
                {"sub": "u-1", "iss": "i", "exp": 1_790_000_000, "roles": ["users", "admin"]}]),
            json!([{"sub": "u-1", "iss": "i", "exp": "1790000000", "roles": "[site admin]"},
                {"sub": "u-1", "iss": "i", "exp": 1_790_000_000, "roles": ["site admin"]}]),
            json!([{"sub": "u-1", "iss": "i", "exp": "1790000000", "roles": "admin"},
                {"sub": "u-1", "iss": "i", "exp": 1.79e9, "roles": "admin"}]),
            json!([{"sub": "u-1", "iss": "i", "exp": "1790000000", "roles": "[viewer editor:staging]"},
                {"sub": "u-1", "iss": "i", "exp": 1_790_000_000, "roles": ["viewer", "editor:staging"]}]),
        ];
        for_all(&json(examples), |pair| {
            let (Some(values), payload) = (pair[0].as_object(), &pair[1]) else {
                return;
            };
            let token = format!(
                "Bearer e30.{}.c2ln",
                URL_SAFE_NO_PAD.encode(payload.to_string())
            );
            let Ok(value) = token.parse() else {
                return;
            };
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            let claims = Claims::verified(values.clone(), Verifier::HttpApi);
            let Ok(actor) = Actor::verify(Some(&claims), &headers, &config("roles")) else {
                return;
            };
            assert_eq!(values["sub"], actor.id.as_str());
            let named = |claim: &Value| match claim {
                Value::String(name) => roles_of(std::iter::once(name.as_str())),
                Value::Array(names) => roles_of(names.iter().filter_map(Value::as_str)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                    BTreeSet::new()
                }
            };
            // Only an object that can be parsed, which excludes deep nesting, is a token. Without a token, the groups
            // come from the verified claim.
            let parsed = serde_json::from_str::<Value>(&payload.to_string());
            let is_token = parsed.is_ok_and(|payload| payload.is_object());
            let source = if is_token { payload } else { &pair[0] };
            assert!(named(&source["roles"]).is_superset(&found(&actor)));
            if is_token {
                for name in ["sub", "iss"] {
                    assert_eq!(payload[name], values[name]);
                }
            }
        });
    }
}
