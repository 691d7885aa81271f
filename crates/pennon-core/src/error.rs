//! The one application error, named by what a caller can do about it.
//!
//! It knows nothing of HTTP: `http::reply` holds the one match that maps it to a status. A cache
//! failure has no place here: the cache answers hit, miss or unavailable, and cannot fail a request.

use std::collections::BTreeMap;

use pennon_eval::Violation;

/// So many unknown names are listed.
const MOST_UNKNOWN: usize = 20;
/// The longest text of an error, in bytes: more than any of our own.
const LONGEST_TEXT: usize = 4_000;
/// All field errors of an answer together, in bytes. As JSON within JSON a byte takes seven at most.
const MOST_BYTES: usize = 400_000;

/// Why a request was not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong; the same one will never succeed.
    #[error("validation failed")]
    Invalid(FieldErrors),
    /// Nobody has proven who they are.
    #[error("no verified identity")]
    Unauthenticated,
    /// The request has no API key that opens anything.
    #[error("no valid API key")]
    NoKey,
    /// The API key is valid, and the request names another environment than the key does.
    #[error("the API key is for another environment")]
    OtherEnvironment,
    /// The identity is proven, and is not an admin's.
    #[error("not an admin")]
    Forbidden,
    /// There is no flag under this key in this environment.
    #[error("flag '{0}' not found")]
    FlagNotFound(String),
    /// There is no such thing; the text says what was looked for.
    #[error("{0} not found")]
    NotFound(String),
    /// What is there already is in the way, and only the caller can decide what to do about it.
    #[error("{0}")]
    Conflict(String),
    /// It is too late for this: what it is about has been decided already.
    #[error("{0}")]
    InvalidState(String),
    /// Somebody else has changed it since the caller last looked (`If-Match`).
    #[error("it has been changed meanwhile")]
    PreconditionFailed,
    /// The caller must say which state it wants to replace (`If-Match`).
    #[error("If-Match is missing")]
    PreconditionRequired,
    /// Too many changes; later it will work.
    #[error("too many changes, again in {retry_after} s")]
    RateLimited {
        /// Whole seconds, at least one.
        retry_after: u64,
    },
    /// No route has this path.
    #[error("no such route")]
    RouteNotFound,
    /// The path has routes, and none for this method.
    #[error("the method is none of {allow}")]
    MethodNotAllowed {
        /// The methods that the path has, as the header `Allow` names them.
        allow: String,
    },
    /// Neither the cache nor the database answers, and nothing is known from before. Later may work.
    #[error("flags cannot be read or changed right now: {0}")]
    Unavailable(String),
    /// The file of the local store cannot be read or written. The text says where and why, and may be
    /// told: whoever asks has the file.
    #[error("{0}")]
    StoreFile(String),
    /// The body is larger than any that this service has a use for.
    #[error("the body is larger than {most} bytes")]
    TooLarge {
        /// How large it may be, in bytes.
        most: usize,
    },
    /// A defect, ours or the data's. The text is for the log and never leaves the service.
    #[error("internal: {0}")]
    Internal(String),
}

/// What is wrong with a request, as a whole and field by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldErrors {
    /// About the request as a whole.
    pub form: Vec<String>,
    /// About one field each.
    pub fields: BTreeMap<String, Vec<String>>,
}

impl FieldErrors {
    /// Whether there is no error.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.form.is_empty() && self.fields.is_empty()
    }

    /// All of it in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let fields = self.fields.iter().flat_map(|(field, errors)| {
            errors.iter().map(move |error| format!("{field}: {error}"))
        });
        let all: Vec<String> = self.form.iter().cloned().chain(fields).collect();
        all.join("; ")
    }

    /// Returns the errors, if there are any.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all errors.
    pub fn none(self) -> Result<(), Error> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self))
        }
    }

    /// Adds an error for each unknown name. Only some are named: a request may hold millions.
    pub fn add_unknown<'a>(&mut self, names: impl ExactSizeIterator<Item = &'a str>, why: &str) {
        let more = names.len().saturating_sub(MOST_UNKNOWN);
        for name in names.take(MOST_UNKNOWN) {
            self.add(name, why);
        }
        if more > 0 {
            self.form.push(format!("{more} more unknown names"));
        }
    }

    /// As many of them as an answer has room for, with the number of the others.
    fn bounded(self) -> Self {
        let mut room = MOST_BYTES;
        let mut omitted = 0_usize;
        let mut fits = |name: &str, text: &str| {
            let left = room.checked_sub(name.len() + text.len());
            room = left.unwrap_or(room);
            omitted += usize::from(left.is_none());
            left.is_some()
        };
        let mut form: Vec<String> = self.form.into_iter().map(cut).collect();
        form.retain(|error| fits("", error));
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, errors) in self.fields {
            let name = cut(name);
            for error in errors.into_iter().map(cut) {
                if fits(&name, &error) {
                    fields.entry(name.clone()).or_default().push(error);
                }
            }
        }
        if omitted > 0 {
            form.push(format!("{omitted} more errors do not fit into this answer"));
        }
        Self { form, fields }
    }

    /// Adds a error about a field.
    pub fn add(&mut self, field: &str, error: impl Into<String>) {
        self.fields
            .entry(field.to_owned())
            .or_default()
            .push(error.into());
    }
}

/// A text of an error, at most so long.
fn cut(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let mut end = LONGEST_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Error {
    /// The same with texts that fit into an answer. Names and texts of a request may stand in them, and
    /// Lambda fails with an answer that is too large.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Invalid(errors) => Self::Invalid(errors.bounded()),
            Self::FlagNotFound(key) => Self::FlagNotFound(cut(key)),
            Self::NotFound(what) => Self::NotFound(cut(what)),
            Self::Conflict(why) => Self::Conflict(cut(why)),
            Self::InvalidState(why) => Self::InvalidState(cut(why)),
            Self::StoreFile(why) => Self::StoreFile(cut(why)),
            other @ (Self::Unauthenticated
            | Self::NoKey
            | Self::OtherEnvironment
            | Self::Forbidden
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

    /// One field is wrong.
    #[must_use]
    pub fn invalid_field(field: &str, error: impl Into<String>) -> Self {
        let mut errors = FieldErrors::default();
        errors.add(field, error);
        Self::Invalid(errors)
    }

    /// Reports violations as field errors named by their JSON pointers. A violation of the whole document
    /// has an empty pointer and becomes an error of the form.
    #[must_use]
    pub fn from_violations(violations: Vec<Violation>) -> Self {
        let mut errors = FieldErrors::default();
        for found in violations {
            if found.at.is_empty() {
                errors.form.push(found.problem);
            } else {
                errors.add(&found.at, found.problem);
            }
        }
        Self::Invalid(errors)
    }

    /// The request as a whole is wrong.
    #[must_use]
    pub fn invalid_form(error: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors {
            form: vec![error.into()],
            ..FieldErrors::default()
        })
    }
}
