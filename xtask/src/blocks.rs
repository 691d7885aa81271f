//! Text with gaps: the files of `infra/blocks`, and lines such as `# @alarm name=latency condition=HasCache` in `infra`,
//! which stand for a block with these values in its gaps.
//!
//! `<name>` in a block is a gap. `<name=value>` has a default. A line with `<name?>` is left out where nothing fills it.

/// A line that stands for a block.
pub(crate) struct Directive<'a> {
    /// How far the line is indented; its block will be, too.
    pub(crate) indent: usize,
    pub(crate) block: &'a str,
    pub(crate) values: Values,
}

/// What fills gaps.
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

    pub(crate) fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("{name}= is missing"))
    }

    /// Takes `name=value` pairs apart. A value may have spaces; it ends where the next name begins.
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

/// The directive that a line is, if it is one.
pub(crate) fn directive(line: &str) -> Option<Result<Directive<'_>, String>> {
    let text = line.trim_start().strip_prefix("# @")?;
    let (block, values) = text.split_once(' ').unwrap_or((text, ""));
    Some(Values::parse(values).map(|values| Directive {
        indent: line.len() - line.trim_start().len(),
        block,
        values,
    }))
}

/// Fills the gaps of a block. A gap that must be filled and is not, and a value without a gap, are errors.
pub(crate) fn fill(block: &str, values: &Values) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let mut used = Vec::new();
    for line in block.lines() {
        if let Some(line) = fill_line(line, values, &mut used)? {
            lines.push(line);
        }
    }
    match values.0.iter().find(|(name, _)| !used.contains(name)) {
        Some((name, _)) => Err(format!("{name}= is not known here")),
        None => Ok(lines),
    }
}

fn fill_line(
    line: &str,
    values: &Values,
    used: &mut Vec<String>,
) -> Result<Option<String>, String> {
    let mut filled = String::new();
    let mut is_left_out = false;
    let mut rest = line;
    while let Some((before, gap)) = rest.split_once('<') {
        let Some((gap, after)) = gap.split_once('>') else {
            return Err(format!("a gap without an end: {line}"));
        };
        let (name, default) = match gap.split_once('=') {
            Some((name, default)) => (name, Some(default)),
            None => (gap.trim_end_matches('?'), None),
        };
        used.push(name.to_owned());
        filled.push_str(before);
        match values.get(name).or(default) {
            Some(value) => filled.push_str(value),
            None if gap.ends_with('?') => is_left_out = true,
            None => return Err(format!("{name}= is missing")),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok((!is_left_out).then_some(filled))
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
    fn gaps_are_filled_have_defaults_or_leave_their_line_out() {
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
    fn a_gap_that_stays_empty_and_a_value_without_a_gap_are_errors() {
        let block = "Type: <type>\n";
        assert_eq!(fill(block, &values("")), Err("type= is missing".to_owned()));
        let unknown = fill(block, &values("type=A conditon=B"));
        assert_eq!(unknown, Err("conditon= is not known here".to_owned()));
    }
}
