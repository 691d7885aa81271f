//! `POST /api/admin/flags/{flagKey}/users`: sets the override of a user.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::error::Error;
use pennon_core::eval::Override;
use pennon_core::http::{self, Fields, Request, Response};
use pennon_core::service::{NewOverride, override_state};

/// Limit on a reason, in characters.
const MAX_REASON_LENGTH: usize = 500;
/// Limit on a user id and the name of a variant, in characters.
const MAX_NAME_LENGTH: usize = 255;

/// Returns 201 also when it replaces an override, as existing clients expect.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment()?;
    let key = request.flag_key()?;
    let (wanted, ignored) = parse(request.body())?;
    let changed = app
        .service
        .set_override(&environment, &key, wanted, actor, request.context())
        .await?;
    let response = http::json(StatusCode::CREATED, &override_state(&changed.value));
    let response = http::with_invalidation(response, changed.invalidated);
    Ok(http::with_ignored_fields(response, &ignored, request))
}

/// The override, and the names of ignored fields.
fn parse(body: &[u8]) -> Result<(NewOverride, Vec<String>), Error> {
    let mut fields = Fields::parse_for_existing_clients(body, &["variant"])?;
    let wanted = take_override(&mut fields);
    let ignored = fields.take_rest().keys().cloned().collect();
    fields.finish()?;
    Ok((wanted, ignored))
}

/// Takes the fields of an override and records their errors.
pub(crate) fn take_override(fields: &mut Fields) -> NewOverride {
    let user_id = fields.text("userId", 1..=MAX_NAME_LENGTH);
    fields.require("userId", user_id.as_ref());
    let kind = fields.text("overrideType", 0..=MAX_NAME_LENGTH);
    fields.require("overrideType", kind.as_ref());
    let reason = fields.text("reason", 0..=MAX_REASON_LENGTH);
    let variant = fields.text("variant", 1..=MAX_NAME_LENGTH);
    let kind = match (kind.as_deref(), variant) {
        (Some("include"), None) => Override::Include,
        (Some("include"), Some(variant)) => Override::Variant(variant),
        // The missing type is already reported.
        (Some("exclude"), None) | (None, _) => Override::Exclude,
        (Some("exclude"), Some(_)) => {
            let error = "Only an included user can get a variant";
            fields.errors.add("variant", error);
            Override::Exclude
        }
        (Some(_), _) => {
            let error = "Expected include or exclude";
            fields.errors.add("overrideType", error);
            Override::Exclude
        }
    };
    NewOverride {
        user_id: user_id.unwrap_or_default(),
        kind,
        reason,
    }
}
