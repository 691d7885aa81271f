//! The JSON of responses with all flags, in parts that are prepared once per snapshot: a response is then put together
//! by copying, without escaping a text or looking up a flag.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pennon_eval::{CompiledVariants, Reason};
use serde::Serialize;

use crate::key_kind::KeyKind;
use crate::ofrep_format::without_nested_values;
use crate::snapshot::Snapshot;

/// The text between a reason and the name of the variant.
const VARIANT_FIELD: &str = "\",\"variant\":";

/// The parts of a response with all flags. A [`Choice`] is one of the results that a flag can have in
/// the response; choices are numbered across all flags.
#[derive(Debug)]
pub(crate) struct Fragments {
    text: String,
    flags: Vec<FlagFragments>,
    choices: Vec<ChoiceFragments>,
    /// The end of the response.
    end: String,
    /// The text of each choice, escaped for API Gateway. Prepared on first use, because only Lambda functions need it.
    escaped: OnceLock<EscapedFragments>,
    /// The length of the last response, which the next one probably has too.
    last_length: AtomicUsize,
}

#[derive(Debug)]
struct EscapedFragments {
    text: String,
    choices: Vec<ChoiceText>,
}

/// The text of a choice.
#[derive(Debug)]
struct ChoiceText {
    /// Begins with a comma.
    all: Range<usize>,
    /// The usual reason, a part of `all`; empty in an object of booleans.
    reason: Range<usize>,
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct BodyText {
    pub(crate) text: String,
    /// The text is the body as a JSON string, as a Lambda function must return it to API Gateway. It is put together
    /// from escaped parts, because escaping a finished body would take longer.
    pub(crate) is_json_string: bool,
}

/// A variant of a flag, or the absence of a value, by its number in [`Fragments`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice(usize);

#[derive(Debug)]
struct FlagFragments {
    /// The key as JSON.
    key: Range<usize>,
    /// The flag is hidden from callers with a client key or without a key.
    is_server_only: bool,
    /// The choices: in an OFREP response the variants in the order of their names, then the absence of a value; in an
    /// object of booleans off, then on.
    choices: Range<usize>,
}

#[derive(Debug)]
struct ChoiceFragments {
    flag: usize,
    text: ChoiceText,
    /// With this reason, which most callers get, the text is copied in one piece.
    usual_reason: Option<Reason>,
    variant: VariantName,
}

#[derive(Debug)]
enum VariantName {
    /// As JSON.
    Json(Range<usize>),
    Fixed(&'static str),
}

impl Fragments {
    /// The parts of an OFREP response: an item for each flag.
    pub(crate) fn of_items(snapshot: &Snapshot) -> Self {
        let mut fragments = Self::empty();
        for (flag, compiled) in snapshot.flags.values().zip(snapshot.rules().variants()) {
            let is_server_only = !snapshot.shows(flag, KeyKind::Client);
            fragments.add_items(&compiled, is_server_only);
        }
        let metadata = without_nested_values(&snapshot.settings.metadata);
        fragments.end = if metadata.is_empty() {
            "]}".to_owned()
        } else {
            format!("],\"metadata\":{}}}", json(&metadata))
        };
        fragments
    }

    /// The parts of an object of booleans by key: two choices for each flag, off and on.
    pub(crate) fn of_switches(snapshot: &Snapshot) -> Self {
        let mut fragments = Self::empty();
        for (key, flag) in &snapshot.flags {
            let key = fragments.append(&json(key.as_str()));
            let number = fragments.flags.len();
            let first = fragments.choices.len();
            for (value, name) in [("false", "off"), ("true", "on")] {
                let begin = fragments.append(",").start;
                fragments.text.extend_from_within(key.clone());
                fragments.text.push(':');
                fragments.text.push_str(value);
                let end = fragments.text.len();
                fragments.choices.push(ChoiceFragments {
                    flag: number,
                    text: ChoiceText {
                        all: begin..end,
                        reason: end..end,
                    },
                    usual_reason: None,
                    variant: VariantName::Fixed(name),
                });
            }
            fragments.flags.push(FlagFragments {
                key,
                is_server_only: !snapshot.shows(flag, KeyKind::Client),
                choices: first..first + 2,
            });
        }
        fragments.end.push('}');
        fragments
    }

    fn empty() -> Self {
        Self {
            text: String::new(),
            flags: Vec::new(),
            choices: Vec::new(),
            end: String::new(),
            escaped: OnceLock::new(),
            last_length: AtomicUsize::new(0),
        }
    }

    fn add_items(&mut self, compiled: &CompiledVariants<'_>, is_server_only: bool) {
        let key = self.append(&json(compiled.key.as_str()));
        let metadata = without_nested_values(compiled.metadata);
        let end = if metadata.is_empty() {
            "}".to_owned()
        } else {
            format!(",\"metadata\":{}}}", json(&metadata))
        };
        let flag = self.flags.len();
        let first = self.choices.len();
        let values = compiled.variants.iter();
        let values = values.map(|(name, value)| (*name, Some(*value)));
        for (name, value) in values.chain([("", None)]) {
            let begin = self.append(",{\"key\":").start;
            self.text.extend_from_within(key.clone());
            if let Some(value) = value {
                self.append(",\"value\":");
                self.append(&json(value));
            }
            self.append(",\"reason\":\"");
            let reason = self.append(reason_name(compiled.usual_reason));
            self.append(VARIANT_FIELD);
            let variant = self.append(&json(name));
            let all = begin..self.append(&end).end;
            self.choices.push(ChoiceFragments {
                flag,
                text: ChoiceText { all, reason },
                usual_reason: Some(compiled.usual_reason),
                variant: VariantName::Json(variant),
            });
        }
        self.flags.push(FlagFragments {
            key,
            is_server_only,
            choices: first..self.choices.len(),
        });
    }

    fn append(&mut self, text: &str) -> Range<usize> {
        let begin = self.text.len();
        self.text.push_str(text);
        begin..self.text.len()
    }

    /// The positions of the flags that a caller with this kind of key may see, in the order of their keys.
    pub(crate) fn visible(&self, kind: KeyKind) -> impl Iterator<Item = usize> {
        let flags = self.flags.iter().enumerate();
        let visible = flags.filter(move |(_, flag)| match kind {
            KeyKind::Server | KeyKind::Sync => true,
            KeyKind::Client => !flag.is_server_only,
        });
        visible.map(|(position, _)| position)
    }

    /// The variant at this position of a flag, or the absence of a value.
    pub(crate) fn choice(&self, flag: usize, variant: Option<usize>) -> Choice {
        let choices = &self.flags[flag].choices;
        Choice(variant.map_or(choices.end - 1, |position| choices.start + position))
    }

    /// The number of choices of all flags.
    pub(crate) fn choice_count(&self) -> usize {
        self.choices.len()
    }

    /// Appends a choice, with a comma before it unless it is the first.
    pub(crate) fn write(
        &self,
        choice: Choice,
        reason: Option<Reason>,
        is_first: bool,
        output: &mut BodyText,
    ) {
        let parts = &self.choices[choice.0];
        let (text, part) = if output.is_json_string {
            let escaped = self.escaped();
            (&escaped.text, &escaped.choices[choice.0])
        } else {
            (&self.text, &parts.text)
        };
        let begin = part.all.start + usize::from(is_first);
        let output = &mut output.text;
        match reason.filter(|_| reason != parts.usual_reason) {
            None => output.push_str(&text[begin..part.all.end]),
            Some(reason) => {
                output.push_str(&text[begin..part.reason.start]);
                // It needs no escapes.
                output.push_str(reason_name(reason));
                output.push_str(&text[part.reason.end..part.all.end]);
            }
        }
    }

    fn escaped(&self) -> &EscapedFragments {
        self.escaped.get_or_init(|| {
            let mut text = String::new();
            let mut append = |part: Range<usize>| {
                let begin = text.len();
                escape(&self.text[part], &mut text);
                begin..text.len()
            };
            let choices = self.choices.iter().map(|choice| {
                let ChoiceText { all, reason } = &choice.text;
                let before = append(all.start..reason.start);
                let own_reason = append(reason.clone());
                let after = append(reason.end..all.end);
                ChoiceText {
                    all: before.start..after.end,
                    reason: own_reason,
                }
            });
            let choices = choices.collect();
            EscapedFragments { text, choices }
        })
    }

    /// The beginning of a response, with memory for the rest of it.
    pub(crate) fn begin(&self, begin: &str, is_json_string: bool) -> BodyText {
        // A little more, because the next one may have a longer reason.
        let capacity = self.last_length.load(Ordering::Relaxed) + 64;
        let mut body = BodyText {
            text: String::with_capacity(capacity),
            is_json_string,
        };
        if is_json_string {
            body.text.push('"');
        }
        body.push(begin);
        body
    }

    /// Ends a response.
    pub(crate) fn end(&self, body: &mut BodyText) {
        body.push(&self.end);
        if body.is_json_string {
            body.text.push('"');
        }
        self.last_length.store(body.text.len(), Ordering::Relaxed);
    }

    /// The key of the flag at this position.
    pub(crate) fn key(&self, flag: usize) -> String {
        self.parse(&self.flags[flag].key)
    }

    /// Parses a part, which is our own JSON.
    fn parse(&self, json: &Range<usize>) -> String {
        serde_json::from_str(&self.text[json.clone()]).unwrap_or_default()
    }

    /// The key of the flag and the name of the variant of a choice.
    pub(crate) fn names(&self, choice: Choice) -> (String, String) {
        let parts = &self.choices[choice.0];
        let variant = match &parts.variant {
            VariantName::Json(name) => self.parse(name),
            VariantName::Fixed(name) => (*name).to_owned(),
        };
        (self.key(parts.flag), variant)
    }
}

impl BodyText {
    /// Appends JSON.
    pub(crate) fn push(&mut self, json: &str) {
        if self.is_json_string {
            escape(json, &mut self.text);
        } else {
            self.text.push_str(json);
        }
    }
}

/// Appends JSON as a part of a JSON string. JSON without white space contains no control characters.
fn escape(json: &str, output: &mut String) {
    for part in json.split_inclusive(['"', '\\']) {
        match part.strip_suffix(['"', '\\']) {
            Some(before) => {
                output.push_str(before);
                output.push('\\');
                output.push_str(&part[before.len()..]);
            }
            None => output.push_str(part),
        }
    }
}

impl Choice {
    /// Its number, below [`Fragments::choice_count`].
    pub(crate) fn number(self) -> usize {
        self.0
    }

    /// The choice with this number.
    pub(crate) fn from_number(number: usize) -> Self {
        Self(number)
    }
}

/// The name of a reason in a response.
fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Static => "STATIC",
        Reason::Default => "DEFAULT",
        Reason::TargetingMatch => "TARGETING_MATCH",
        Reason::Split => "SPLIT",
        Reason::Disabled => "DISABLED",
    }
}

/// A value as JSON.
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> String {
    // The serialisation of our own types and of JSON values does not fail.
    serde_json::to_string(value).unwrap_or_default()
}
