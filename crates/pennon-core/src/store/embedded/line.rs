//! Finds the line of a JSON pointer in a text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The line of the value at a pointer or, if there is none, of its nearest parent. `None` for the whole text.
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

/// The message of the error that stops the parser at the value. serde adds the line.
const FOUND: &str = "found";

/// Follows the steps of a pointer.
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
    fn a_pointer_has_the_line_of_its_value_or_of_the_nearest_parent() {
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
