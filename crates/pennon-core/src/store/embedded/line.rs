//! Where in a text of JSON a place is that a pointer names.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The line on which a place begins; of a place that is not there, the one that it would be in.
pub(super) fn line_of(text: &str, pointer: &str) -> Option<usize> {
    let mut steps: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    while !steps.is_empty() {
        let mut reader = serde_json::Deserializer::from_str(text);
        if let Err(error) = Find(&steps).deserialize(&mut reader)
            && error.to_string().starts_with(FOUND)
        {
            return Some(error.line());
        }
        steps.pop();
    }
    None
}

/// The error that says that the place is reached; its line is what is looked for.
const FOUND: &str = "found";

struct Find<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            return Err(D::Error::custom(FOUND));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return Ok(());
        };
        let Ok(wanted) = step.parse::<usize>() else {
            return Err(A::Error::custom("no such item"));
        };
        for _ in 0..wanted {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Find(rest))?;
        Err(A::Error::custom("no such item"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return Ok(());
        };
        while let Some(name) = map.next_key::<String>()? {
            if name == *step {
                return map.next_value_seed(Find(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(A::Error::custom("no such field"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_line() {
        let text = "{\n\"a/b\": {\n\"c\": [1,\n{\"d\": 2}\n]\n}\n}";
        for (pointer, line) in [
            ("/a~1b", Some(2)),
            ("/a~1b/c", Some(3)),
            ("/a~1b/c/1/d", Some(4)),
            ("/a~1b/missing", Some(2)),
            ("/a~1b/c/1/missing/deeper", Some(4)),
            ("/missing", None),
            ("", None),
        ] {
            assert_eq!(line_of(text, pointer), line, "{pointer}");
        }
    }
}
