//! template.yaml follows the rules in these modules.
//!
//! Each rule checks the resources that exist with given parameters ([`Stack`]), and reports problems. Most rules run
//! for fifteen combinations of parameters ([`stack::profiles`]). Beside each rule are planted mistakes: each test
//! changes the text of the template, and exactly the expected problems must be reported. Findings of linters (unknown
//! properties, dangling references, cycles) are left to `scripts/check-template`.

mod commands;
mod concurrency;
mod cost;
mod data;
mod documents;
mod functions;
mod identity;
mod network;
mod replacement;
mod rollout;
mod routes;
mod stack;
mod users;
mod watch;
mod yaml;

pub(crate) use yaml::parse;

use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::path::Path;

use stack::{Mistaken, Stack};

/// Problems: a resource, and a description. The same problem with several choices of parameters counts once.
#[derive(Default)]
struct Problems {
    found: BTreeSet<String>,
    /// The inputs of the expensive checks that have run.
    checked: HashSet<String>,
}

impl Problems {
    fn add(&mut self, about: &str, what: impl Display) {
        self.found.insert(format!("{about}: {what}"));
    }

    /// Begins an expensive check of this input. Returns false if the input was checked already: many choices of
    /// parameters lead to the same input.
    fn begin_check(&mut self, input: String) -> bool {
        self.checked.insert(input)
    }

    /// Adds the problem unless this holds.
    fn unless(&mut self, holds: bool, about: &str, what: impl Display) {
        if !holds {
            self.add(about, what);
        }
    }
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All problems of a template.
fn problems(text: &str) -> Vec<String> {
    let template = yaml::parse_by_entry(text);
    let mut problems = Problems::default();
    let mistaken = Mistaken::of(&template);
    for profile in stack::profiles() {
        let stack = Stack::of_mistake(&template, profile, &mistaken);
        functions::check(&stack, &mut problems);
        routes::check(&stack, &mut problems);
        rollout::check(&stack, &mut problems);
        network::check(&stack, &mut problems);
        data::check(&stack, &mut problems);
        identity::check(&stack, &mut problems);
        watch::check(&stack, &mut problems);
        cost::check(&stack, &mut problems);
    }
    concurrency::check(&template, &mut problems);
    problems.found.into_iter().collect()
}

#[test]
fn the_template_keeps_every_rule() {
    let problems = problems(&read("template.yaml"));
    assert!(problems.is_empty(), "{problems:#?}");
}

/// A mistake: in the section with this name, the first text is replaced by the second.
struct Mistake(&'static str, &'static str, &'static str);

/// Removes the whole section.
const GONE: &str = "(the section is gone)";

/// Inserts a text after the section.
const AFTER: &str = "(after the section)";

impl Mistake {
    /// The template with this mistake.
    fn plant(&self, template: &str) -> String {
        let Self(section, from, to) = self;
        let begin = [format!("\n  {section}:\n"), format!("\n{section}:\n")]
            .iter()
            .find_map(|heading| template.find(heading.as_str()))
            .unwrap_or_else(|| panic!("no section {section}"))
            + 1;
        let indented = template[begin..].starts_with("  ");
        let next_begins = |line: &str| {
            let deeper = if indented { "   " } else { " " };
            !line.is_empty() && !line.starts_with(deeper) && line != "\n"
        };
        let mut end = begin;
        for (number, line) in template[begin..].split_inclusive('\n').enumerate() {
            if number > 0 && next_begins(line) {
                break;
            }
            end += line.len();
        }
        let (before, rest) = template.split_at(begin);
        let (section_text, after) = rest.split_at(end - begin);
        let changed = match *from {
            GONE => String::new(),
            AFTER => format!("{section_text}{to}"),
            _ => {
                assert!(section_text.contains(from), "no {from:?} in {section}");
                section_text.replacen(from, to, 1)
            }
        };
        format!("{before}{changed}{after}")
    }
}

/// Plants mistakes and expects exactly these problems.
fn assert_found(mistakes: &[Mistake], expected: &[&str]) {
    let mut template = read("template.yaml");
    for mistake in mistakes {
        template = mistake.plant(&template);
    }
    assert_eq!(problems(&template), expected);
}

/// Defines a test for each mistake.
macro_rules! planted {
    ($($name:ident: [$($mistake:expr),+] => $($problem:expr),+;)+) => { $(
        #[test]
        fn $name() {
            crate::template::assert_found(&[$($mistake),+], &[$($problem),+]);
        }
    )+ };
}
use planted;
