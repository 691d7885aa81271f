//! `POST /api/admin/environments/{environment}/import`: imports a flagd file.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::auth::Actor;
use pennon_core::environment::Environment;
use pennon_core::error::Error;
use pennon_core::eval::flagd::Mode;
use pennon_core::eval::json::{self, JsonError};
use pennon_core::http::{self, ETag, Request, Response};
use pennon_core::service::{Difference, FlagDifference, Import, SettingsDifference};
use serde::Serialize;
use serde_json::{Value, json};

/// With `?dryRun=true` it returns only the differences; the same file with `If-Match` set to the `ETag` of that
/// response makes exactly these changes. With `?mode=merge`, flags that the file lacks stay.
pub(crate) async fn handle(app: &App, request: &Request, actor: &Actor) -> Result<Response, Error> {
    let environment = request.environment_in_path()?;
    let dry_run = request.boolean("dryRun")?;
    let mode = mode(request)?;
    let expected = request.expected()?;
    http::check_value_count(request.body())?;
    let file = json::parse(request.body()).map_err(|error| match error {
        JsonError::Syntax(error) => http::not_json(&error),
        JsonError::Duplicates(problems) => Error::from_violations(problems),
    })?;
    let import = Import { file: &file, mode };
    if dry_run {
        let (difference, revision) = app
            .service
            .compare_import(&environment, import, actor)
            .await?;
        let response = answer(&environment, true, difference);
        let tag = ETag::of_record(revision.0);
        return Ok(http::with_header(response, "etag", tag.as_str()));
    }
    expected.require_if_match()?;
    let changed = app
        .service
        .import(&environment, import, &expected, actor, request.context())
        .await?;
    let response = answer(&environment, false, changed.value);
    Ok(http::with_invalidation(response, changed.invalidated))
}

fn mode(request: &Request) -> Result<Mode, Error> {
    match request.query("mode") {
        None | Some("replace") => Ok(Mode::Replace),
        Some("merge") => Ok(Mode::Merge),
        Some(other) => {
            let error = format!("Expected replace or merge (got '{other}')");
            Err(Error::invalid_field("mode", error))
        }
    }
}

/// If the response is larger than Lambda allows, it contains only the keys of flags and no settings, and if it is still
/// too large, only some of the keys. It must not fail, because the change is already committed.
pub(super) fn answer(
    environment: &Environment,
    dry_run: bool,
    mut difference: Difference,
) -> Response {
    let whole = http::json(StatusCode::OK, &body(environment, dry_run, &difference, 0));
    if http::size_above_limit(&whole).is_none() {
        return whole;
    }
    let Difference {
        created,
        changed,
        archived,
        settings,
        ..
    } = &mut difference;
    for flag in [created, changed, archived].into_iter().flatten() {
        (flag.before, flag.after) = (None, None);
    }
    if let Some(settings) = settings {
        (settings.before, settings.after) = (None, None);
    }
    let mut omitted = 0;
    loop {
        let body = body(environment, dry_run, &difference, omitted);
        let answer = http::json(StatusCode::OK, &body);
        let before = omitted;
        if http::size_above_limit(&answer).is_some() {
            omitted += halve(&mut difference);
        }
        if omitted == before {
            return answer;
        }
    }
}

/// Removes half of each list of a difference, and returns the number of removed entries. A list of flags keeps an entry:
/// without one, the console would not say that flags are archived.
fn halve(difference: &mut Difference) -> usize {
    fn shorten<T>(list: &mut Vec<T>, least: usize) -> usize {
        let before = list.len();
        list.truncate(least.max(before / 2));
        before - list.len()
    }
    shorten(&mut difference.created, 1)
        + shorten(&mut difference.changed, 1)
        + shorten(&mut difference.archived, 1)
        + shorten(&mut difference.kept, 0)
}

/// The JSON of a response.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    environment: &'a str,
    dry_run: bool,
    created: &'a [FlagDifference],
    changed: &'a [FlagDifference],
    archived: &'a [FlagDifference],
    unchanged: usize,
    settings: Option<&'a SettingsDifference>,
    kept: &'a [String],
    warnings: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<usize>,
}

fn body<'a>(
    environment: &'a Environment,
    dry_run: bool,
    difference: &'a Difference,
    omitted: usize,
) -> Body<'a> {
    let warnings = difference
        .warnings
        .iter()
        .map(|found| json!({"pointer": found.pointer, "message": found.message}));
    Body {
        environment: environment.as_str(),
        dry_run,
        created: &difference.created,
        changed: &difference.changed,
        archived: &difference.archived,
        unchanged: difference.unchanged,
        settings: difference.settings.as_ref(),
        kept: &difference.kept,
        warnings: warnings.collect(),
        omitted: (omitted > 0).then_some(omitted),
    }
}
