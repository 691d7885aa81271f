//! The table of routes in the documents.

use pennon_core::http::{ENDPOINTS, PAGES};

/// The path of the document.
pub(crate) const PATH: &str = "docs/routes.md";
const BEGIN: &str = "<!-- The table below is written by `cargo xtask generate`. -->\n";
const END: &str = "<!-- The table above is written by `cargo xtask generate`. -->\n";

/// The document with the table between its markers.
pub(crate) fn routes(document: &str) -> Result<String, String> {
    let missing = || format!("{PATH}: the markers around the table are missing");
    let (before, rest) = document.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    let row = |cells: [&str; 5]| format!("| {} |", cells.join(" | "));
    let mut rows = vec![row([
        "Route",
        "Summary",
        "Allowed callers",
        "Query",
        "Function",
    ])];
    rows.push(row(["---"; 5]));
    for endpoint in ENDPOINTS.iter().chain(PAGES) {
        let query: Vec<_> = endpoint
            .query
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        rows.push(row([
            &format!("`{} {}`", endpoint.method, endpoint.path),
            endpoint.summary,
            endpoint.authorization.label(),
            &query.join(", "),
            &format!("`{}`", endpoint.function),
        ]));
    }
    let table = rows.join("\n");
    Ok(format!("{before}{BEGIN}\n{table}\n\n{END}{after}"))
}
