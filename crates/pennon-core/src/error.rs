//! The application error. Its variants are named by what a caller can do about them.
//!
//! It is independent of HTTP: `http::reply` and `ofrep::error_reply` map it to a status. Cache failures are not
//! errors: the cache returns hit, miss or unavailable, and cannot fail a request.

use std::collections::BTreeMap;

use pennon_eval::{Violations, truncate_text};

use crate::role::Role;

/// Limit on unknown names that an error lists.
const MAX_UNKNOWN: usize = 20;
/// Limit on all field errors of a response, in bytes. As JSON within JSON, one byte takes at most seven.
const MAX_BYTES: usize = 400_000;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is invalid. It fails again unless the flags or settings that it was checked against change.
    #[error("validation failed")]
    Invalid(FieldErrors),
    /// The caller is not authenticated.
    #[error("no verified identity")]
    Unauthenticated,
    /// The request has no valid API key.
    #[error("no valid API key")]
    NoKey,
    /// The API key is valid, but the request names another environment than that of the key.
    #[error("the API key is for another environment")]
    OtherEnvironment,
    /// The API key is valid, but keys of its kind may not use the route; the text says which keys may.
    #[error("{0}")]
    KeyKind(&'static str),
    /// The caller is authenticated, but this role is missing.
    #[error("the role {0} is missing")]
    Forbidden(Role),
    /// The environment has no flag with this key.
    #[error("flag '{0}' not found")]
    FlagNotFound(String),
    /// The item does not exist; the text names it.
    #[error("{0} not found")]
    NotFound(String),
    /// The change conflicts with the current state; the caller has to resolve the conflict.
    #[error("{0}")]
    Conflict(String),
    /// The item is in a state in which it can no longer be changed.
    #[error("{0}")]
    InvalidState(String),
    /// The item has changed since the caller read it (`If-Match`).
    #[error("the item has changed since it was read")]
    PreconditionFailed,
    /// Some of the items that a request names have changed since the caller read them; the text names them.
    #[error("{0}")]
    ItemsChanged(String),
    /// The caller must name the state that it wants to replace (`If-Match`).
    #[error("If-Match is missing")]
    PreconditionRequired,
    /// Too many changes, or on the local server too many evaluations; the caller can retry later.
    #[error("too many changes; try again in {retry_after} s")]
    RateLimited {
        /// Whole seconds, at least one.
        retry_after: u64,
    },
    /// No route has this path.
    #[error("no such route")]
    RouteNotFound,
    /// The path has routes, but none for this method.
    #[error("the path supports only {allow}")]
    MethodNotAllowed {
        /// The methods of the path, as in the header `Allow`.
        allow: String,
    },
    /// The store, or a service of AWS that the request needs, is unavailable, and no snapshot can replace it. A retry
    /// may succeed.
    #[error("flags cannot be read or changed right now: {0}")]
    Unavailable(String),
    /// The file of the local store cannot be read or written. The text says where and why; callers of the local
    /// server may see it, because the file is theirs.
    #[error("{0}")]
    StoreFile(String),
    /// The body exceeds the limit.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The response exceeds the limit; the text says what to make smaller.
    #[error("{0}")]
    ResponseTooLarge(String),
    /// A defect of the code or the data. The text is logged and never sent to the caller.
    #[error("internal: {0}")]
    Internal(String),
}

/// Validation errors of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldErrors {
    /// Errors of the request as a whole.
    pub form: Vec<String>,
    /// Errors by field.
    pub fields: BTreeMap<String, Vec<String>>,
}

impl FieldErrors {
    /// Whether there is no error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.form.is_empty() && self.fields.is_empty()
    }

    /// All errors in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let fields = self.fields.iter().flat_map(|(field, errors)| {
            errors.iter().map(move |error| format!("{field}: {error}"))
        });
        let all: Vec<String> = self.form.iter().cloned().chain(fields).collect();
        all.join("; ")
    }

    /// `Ok` if there is no error.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all errors.
    pub fn into_result(self) -> Result<(), Error> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self))
        }
    }

    /// Adds an error for each unknown name, up to a limit: a request may hold millions.
    pub fn add_unknown<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a str>, why: &str) {
        let more = names.len().saturating_sub(MAX_UNKNOWN);
        for name in names.take(MAX_UNKNOWN) {
            self.add(name, why);
        }
        if more > 0 {
            self.form.push(format!("{more} more unknown names"));
        }
    }

    /// Keeps as many errors as fit into a response, and adds the number of the others.
    fn bounded(self) -> Self {
        let mut room = MAX_BYTES;
        let mut omitted = 0_usize;
        let mut fits = |name: &str, text: &str| {
            let left = room.checked_sub(name.len() + text.len());
            room = left.unwrap_or(room);
            omitted += usize::from(left.is_none());
            left.is_some()
        };
        let mut form: Vec<String> = self.form.into_iter().map(truncate_text).collect();
        form.retain(|error| fits("", error));
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, errors) in self.fields {
            let name = truncate_text(name);
            for error in errors.into_iter().map(truncate_text) {
                if fits(&name, &error) {
                    fields.entry(name.clone()).or_default().push(error);
                }
            }
        }
        if omitted > 0 {
            form.push(format!(
                "{omitted} more errors do not fit into this response"
            ));
        }
        Self { form, fields }
    }

    /// Adds an error of a field.
    pub fn add(&mut self, field: &str, error: impl Into<String>) {
        self.fields
            .entry(field.to_owned())
            .or_default()
            .push(error.into());
    }

    /// Adds violations as errors of fields named by their JSON pointers. A violation of the whole document has an empty
    /// pointer and becomes an error of the form.
    pub fn add_violations(&mut self, violations: Violations) {
        for found in violations.into_list() {
            if found.pointer.is_empty() {
                self.form.push(found.message);
            } else {
                self.add(&found.pointer, found.message);
            }
        }
    }

    /// Adds these errors, of an object at a place such as `steps/0`, to a list of violations.
    pub fn add_to(self, place: &str, list: &mut Violations) {
        for error in self.form {
            list.add_at(place, error);
        }
        for (field, errors) in self.fields {
            for error in errors {
                list.add_at(&format!("{place}/{field}"), error);
            }
        }
    }
}

impl Error {
    /// Truncates texts so that they fit into a response. They may quote the request, and Lambda fails if a
    /// response is too large.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Invalid(errors) => Self::Invalid(errors.bounded()),
            Self::FlagNotFound(key) => Self::FlagNotFound(truncate_text(key)),
            Self::NotFound(what) => Self::NotFound(truncate_text(what)),
            Self::Conflict(why) => Self::Conflict(truncate_text(why)),
            Self::InvalidState(why) => Self::InvalidState(truncate_text(why)),
            Self::ItemsChanged(why) => Self::ItemsChanged(truncate_text(why)),
            Self::StoreFile(why) => Self::StoreFile(truncate_text(why)),
            Self::ResponseTooLarge(why) => Self::ResponseTooLarge(truncate_text(why)),
            other @ (Self::Unauthenticated
            | Self::NoKey
            | Self::OtherEnvironment
            | Self::KeyKind(_)
            | Self::Forbidden(_)
            | Self::PreconditionFailed
            | Self::PreconditionRequired
            | Self::RateLimited { .. }
            | Self::RouteNotFound
            | Self::MethodNotAllowed { .. }
            | Self::Unavailable(_)
            | Self::TooLarge { .. }
            | Self::Internal(_)) => other,
        }
    }

    /// An error of one field.
    #[must_use]
    pub fn invalid_field(field: &str, error: impl Into<String>) -> Self {
        let mut errors = FieldErrors::default();
        errors.add(field, error);
        Self::Invalid(errors)
    }

    /// Reports violations as field errors; see [`FieldErrors::add_violations`].
    #[must_use]
    pub fn from_violations(violations: Violations) -> Self {
        let mut errors = FieldErrors::default();
        errors.add_violations(violations);
        Self::Invalid(errors)
    }

    /// An error of the request as a whole.
    #[must_use]
    pub fn invalid_form(error: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors {
            form: vec![error.into()],
            ..FieldErrors::default()
        })
    }

    /// The error of a body that ends early or is wrongly encoded.
    #[must_use]
    pub fn malformed_body() -> Self {
        Self::invalid_form("The body is incomplete, or its chunked encoding is malformed")
    }
}
