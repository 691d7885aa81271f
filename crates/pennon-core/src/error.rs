//! The one application error, named by what a caller can do about it.
//!
//! It knows nothing of HTTP: `http::reply` holds the one match that maps it to a status. A cache
//! failure has no place here: the cache answers hit, miss or unavailable, and cannot fail a request.

use std::collections::BTreeMap;

/// So many unknown names are listed.
const MOST_UNKNOWN: usize = 20;
/// The longest text of an error, in bytes: more than any of our own.
const LONGEST_TEXT: usize = 4_000;
/// All complaints of an answer together, in bytes. As JSON within JSON a byte takes seven at most.
const MOST_BYTES: usize = 400_000;

/// Why a request was not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong; the same one will never succeed.
    #[error("validation failed")]
    Invalid(Complaints),
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
    Changed,
    /// The caller must say which state it wants to replace (`If-Match`).
    #[error("If-Match is missing")]
    StateNotNamed,
    /// Too many changes; later it will work.
    #[error("too many changes, again in {retry_after} s")]
    TooMany {
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
    FileOfNoUse(String),
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
pub struct Complaints {
    /// About the request as a whole.
    pub form: Vec<String>,
    /// About one field each.
    pub fields: BTreeMap<String, Vec<String>>,
}

impl Complaints {
    /// Nothing was complained about.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.form.is_empty() && self.fields.is_empty()
    }

    /// All of it in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let fields = self.fields.iter().flat_map(|(field, complaints)| {
            complaints
                .iter()
                .map(move |complaint| format!("{field}: {complaint}"))
        });
        let all: Vec<String> = self.form.iter().cloned().chain(fields).collect();
        all.join("; ")
    }

    /// Whether there is no complaint.
    ///
    /// # Errors
    /// [`Error::Invalid`] with all complaints.
    pub fn none(self) -> Result<(), Error> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(self))
        }
    }

    /// Adds a complaint about each name that is not known. Only some are named: a request may hold millions.
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
        form.retain(|complaint| fits("", complaint));
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, complaints) in self.fields {
            let name = cut(name);
            for complaint in complaints.into_iter().map(cut) {
                if fits(&name, &complaint) {
                    fields.entry(name.clone()).or_default().push(complaint);
                }
            }
        }
        if omitted > 0 {
            form.push(format!(
                "{omitted} more complaints do not fit into this answer"
            ));
        }
        Self { form, fields }
    }

    /// Adds a complaint about a field.
    pub fn add(&mut self, field: &str, complaint: impl Into<String>) {
        self.fields
            .entry(field.to_owned())
            .or_default()
            .push(complaint.into());
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
            Self::Invalid(complaints) => Self::Invalid(complaints.bounded()),
            Self::FlagNotFound(key) => Self::FlagNotFound(cut(key)),
            Self::NotFound(what) => Self::NotFound(cut(what)),
            Self::Conflict(why) => Self::Conflict(cut(why)),
            Self::InvalidState(why) => Self::InvalidState(cut(why)),
            Self::FileOfNoUse(why) => Self::FileOfNoUse(cut(why)),
            other @ (Self::Unauthenticated
            | Self::NoKey
            | Self::OtherEnvironment
            | Self::Forbidden
            | Self::Changed
            | Self::StateNotNamed
            | Self::TooMany { .. }
            | Self::RouteNotFound
            | Self::MethodNotAllowed { .. }
            | Self::Unavailable(_)
            | Self::TooLarge { .. }
            | Self::Internal(_)) => other,
        }
    }

    /// One field is wrong.
    #[must_use]
    pub fn invalid_field(field: &str, complaint: impl Into<String>) -> Self {
        let mut complaints = Complaints::default();
        complaints.add(field, complaint);
        Self::Invalid(complaints)
    }

    /// The request as a whole is wrong.
    #[must_use]
    pub fn invalid_form(complaint: impl Into<String>) -> Self {
        Self::Invalid(Complaints {
            form: vec![complaint.into()],
            ..Complaints::default()
        })
    }
}
