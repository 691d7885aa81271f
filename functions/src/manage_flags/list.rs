//! `GET /api/admin/flags`: lists flags by key, in pages.

use lambda_http::http::StatusCode;
use pennon_core::app::App;
use pennon_core::error::Error;
use pennon_core::http::{self, Request, Response};
use pennon_core::store::FlagQuery;
use serde_json::{Value, json};

use super::view;

/// Limit on the search text, in characters: the longest key of a new flag.
const MAX_SEARCH_LENGTH: usize = 255;

/// `?search=` matches a part of key or description, ignoring case. `?archived=true` lists only archived flags; without
/// it, only flags in use are listed.
pub(crate) async fn handle(app: &App, request: &Request) -> Result<Response, Error> {
    let environment = request.environment()?;
    let page = request.page()?;
    let archived = request.boolean("archived")?;
    let search = request.query("search").unwrap_or_default();
    if search.chars().count() > MAX_SEARCH_LENGTH || search.contains('\0') {
        let error = "Must have at most 255 characters, and no NUL character";
        return Err(Error::invalid_field("search", error));
    }
    let query = FlagQuery {
        search: search.to_owned(),
        archived,
        page,
    };
    let found = app.service.store().list_flags(&environment, &query).await?;
    let mut flags: Vec<Value> = found
        .items
        .iter()
        .map(|(key, record)| view::flag(key, record))
        .collect();
    // If the page is too large for a response, large fields are omitted. A smaller page, or the route of the single
    // flag, returns them.
    http::omit_large_fields(&mut flags, &["definition", "broken"]);
    let body = json!({ "flags": flags, "pagination": http::pagination(page, &found) });
    Ok(http::json(StatusCode::OK, &body))
}
