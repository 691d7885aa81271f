//! Templates with placeholders: the files in `infra/blocks`. A line in `infra` such as
//! `# @alarm name=latency condition=HasCache` is a directive, replaced by the block with these values.
//!
//! `<name>` in a block is a placeholder, and `<name=value>` one with a default. A line with `<name?>` is omitted if
//! there is no value.

/// A line that is replaced by a block.
pub(crate) struct Directive<'a> {
    /// The indentation of the line, and of the block.
    pub(crate) indent: usize,
    pub(crate) block: &'a str,
    pub(crate) values: Values,
}

/// The values of placeholders.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Values(Vec<(String, String)>);

impl Values {
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn with_some(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn require(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("{name}= is missing"))
    }

    /// Parses `name=value` pairs. A value may contain spaces; it ends before the next name.
    fn parse(text: &str) -> Result<Self, String> {
        let mut values = Self::default();
        for word in text.split_whitespace() {
            let pair = word.split_once('=');
            match (pair, values.0.last_mut()) {
                (Some((name, value)), _) if is_name(name) => {
                    values.0.push((name.to_owned(), value.to_owned()));
                }
                (_, Some((_, value))) => {
                    value.push(' ');
                    value.push_str(word);
                }
                (_, None) => return Err(format!("{word:?} is not of the form name=value")),
            }
        }
        Ok(values)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase())
}

/// Parses a line as a directive, if it is one.
pub(crate) fn directive(line: &str) -> Option<Result<Directive<'_>, String>> {
    let text = line.trim_start().strip_prefix("# @")?;
    let (block, values) = text.split_once(' ').unwrap_or((text, ""));
    Some(Values::parse(values).map(|values| Directive {
        indent: line.len() - line.trim_start().len(),
        block,
        values,
    }))
}

/// Replaces the placeholders of a block. A `<name>` without a value is an error, and so is a value without a
/// placeholder.
pub(crate) fn fill(block: &str, values: &Values) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let mut used = Vec::new();
    for line in block.lines() {
        if let Some(line) = fill_line(line, values, &mut used)? {
            lines.push(line);
        }
    }
    match values.0.iter().find(|(name, _)| !used.contains(name)) {
        Some((name, _)) => Err(format!("{name}= has no placeholder")),
        None => Ok(lines),
    }
}

fn fill_line(
    line: &str,
    values: &Values,
    used: &mut Vec<String>,
) -> Result<Option<String>, String> {
    let mut filled = String::new();
    let mut is_omitted = false;
    let mut rest = line;
    while let Some((before, placeholder)) = rest.split_once('<') {
        let Some((placeholder, after)) = placeholder.split_once('>') else {
            return Err(format!("a placeholder without '>': {line}"));
        };
        let (name, default) = match placeholder.split_once('=') {
            Some((name, default)) => (name, Some(default)),
            None => (placeholder.trim_end_matches('?'), None),
        };
        used.push(name.to_owned());
        filled.push_str(before);
        match values.get(name).or(default) {
            Some(value) => filled.push_str(value),
            None if placeholder.ends_with('?') => is_omitted = true,
            None => return Err(format!("{name}= is missing")),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok((!is_omitted).then_some(filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Values {
        Values::parse(text).expect("values")
    }

    #[test]
    fn a_value_ends_where_the_next_name_begins() {
        let line = "    # @alarm name=a-b description=Two words, and = more end=]}},";
        let directive = directive(line).expect("a directive").expect("values");
        assert_eq!((directive.indent, directive.block), (4, "alarm"));
        assert_eq!(
            directive.values.get("description"),
            Some("Two words, and = more")
        );
        assert_eq!(directive.values.get("end"), Some("]}},"));
        assert!(super::directive("    # a comment").is_none());
        assert!(super::directive("# @alarm latency").expect("one").is_err());
    }

    #[test]
    fn placeholders_are_replaced_have_defaults_or_omit_their_line() {
        let block = "Type: <type>\nCondition: <condition?>\nPeriod: <period=900>\n";
        let filled = fill(block, &values("type=A condition=B period=60"));
        assert_eq!(
            filled.expect("filled"),
            ["Type: A", "Condition: B", "Period: 60"]
        );
        let filled = fill(block, &values("type=A")).expect("filled");
        assert_eq!(filled, ["Type: A", "Period: 900"]);
    }

    #[test]
    fn a_placeholder_without_a_value_and_a_value_without_a_placeholder_are_errors() {
        let block = "Type: <type>\n";
        assert_eq!(fill(block, &values("")), Err("type= is missing".to_owned()));
        let unknown = fill(block, &values("type=A conditon=B"));
        assert_eq!(unknown, Err("conditon= has no placeholder".to_owned()));
    }
}
