//! Generates `template.yaml` from the parts in `infra`.

use std::path::Path;

use crate::blocks::{Values, directive, fill};
use crate::functions::{Canary, Function, Functions, camel};
use crate::{read, routes};

/// The parts, from top to bottom.
const PARTS: [&str; 16] = [
    "header",
    "parameters",
    "conditions",
    "globals",
    "api",
    "functions",
    "roles",
    "release",
    "network",
    "cache",
    "database",
    "identity",
    "alarms",
    "dashboard",
    "cost",
    "outputs",
];
const FIRST_LINE: &str = "# Generated from infra/ and the route table by `cargo xtask generate`. Change those, not this file.";
/// The maximum width of wrapped lists and of horizontal lines.
const WIDTH: usize = 120;
/// Types of resources with a list of tags in the property `Tags`.
const TAGGED: &str = "
    AWS::CloudWatch::Alarm AWS::CloudWatch::Dashboard AWS::EC2::EIP AWS::EC2::EgressOnlyInternetGateway
    AWS::EC2::FlowLog AWS::EC2::InternetGateway AWS::EC2::NatGateway AWS::EC2::RouteTable AWS::EC2::SecurityGroup
    AWS::EC2::Subnet AWS::EC2::VPC AWS::EC2::VPCEndpoint AWS::ElastiCache::ParameterGroup
    AWS::ElastiCache::ReplicationGroup AWS::ElastiCache::SubnetGroup AWS::ElastiCache::User AWS::ElastiCache::UserGroup
    AWS::IAM::Role AWS::Logs::LogGroup AWS::RDS::DBInstance AWS::RDS::DBParameterGroup AWS::RDS::DBProxy
    AWS::RDS::DBSubnetGroup AWS::SNS::Topic AWS::SecretsManager::Secret";
const TAGS: [&str; 2] = [
    "{Key: Feature, Value: FeatureFlags}",
    "{Key: Stage, Value: !Ref Stage}",
];

/// The text of `template.yaml`.
pub(crate) fn template(root: &Path) -> Result<String, String> {
    let sources = Sources {
        root,
        functions: Functions::read(root)?,
    };
    let mut lines = vec![FIRST_LINE.to_owned()];
    for part in PARTS {
        let path = format!("infra/{part}.yaml");
        let text = read(root, &path)?;
        if part != PARTS[0] {
            lines.push(String::new());
        }
        let mut expanded = Vec::new();
        for (at, line) in text.lines().enumerate() {
            match directive(line) {
                None => expanded.push(line.to_owned()),
                Some(directive) => {
                    let block = directive.and_then(|directive| {
                        if directive.block == "function" {
                            check_heading(expanded.last(), directive.values.require("name")?)?;
                        }
                        let lines = sources.block(directive.block, &directive.values)?;
                        Ok(indented(directive.indent, lines))
                    });
                    let with_position = |problem| format!("{path}:{}: {problem}", at + 1);
                    expanded.extend(block.map_err(with_position)?);
                }
            }
        }
        lines.extend(titled(&path, expanded)?);
    }
    Ok(tagged(lines)?.join("\n") + "\n")
}

/// Checks that the line above the directive of a function is the function's logical id.
fn check_heading(line: Option<&String>, function: &str) -> Result<(), String> {
    let heading = format!("  {}Function:", camel(function));
    if line == Some(&heading) {
        Ok(())
    } else {
        Err(format!("{function} is not below {heading}"))
    }
}

/// Adds the path of the source file, and horizontal lines, to the heading of a part: its first comment, if that begins
/// with a number, as in `# 6  Cache.`. Further lines of a heading begin with `#  `.
fn titled(path: &str, mut lines: Vec<String>) -> Result<Vec<String>, String> {
    let is_comment = |line: &String| line.trim_start().starts_with('#');
    let is_numbered = |line: &String| {
        let text = line.trim_start().strip_prefix("# ");
        text.is_some_and(|text| text.starts_with(|first: char| first.is_ascii_digit()))
    };
    let Some(first) = lines.iter().position(is_comment) else {
        return Ok(lines);
    };
    let mut later = lines[first + 1..].iter();
    if let Some(line) = later.find(|line| is_numbered(line)) {
        return Err(format!(
            "{path}: {:?} begins like the heading of a part, but is not the first comment",
            line.trim_start()
        ));
    }
    let heading = &lines[first];
    if !is_numbered(heading) {
        return Ok(lines);
    }
    let indent = heading.len() - heading.trim_start().len();
    let rule = format!("{}# {}", " ".repeat(indent), "-".repeat(WIDTH - indent - 3));
    let rest = lines[first + 1..].iter();
    let length = rest.take_while(|line| line.trim_start().starts_with("#  "));
    let end = first + 1 + length.count();
    lines.insert(end, rule.clone());
    lines.insert(end, format!("{}#    Source: {path}", " ".repeat(indent)));
    lines.insert(first, rule);
    Ok(lines)
}

/// The sources of the lines that replace directives.
struct Sources<'a> {
    root: &'a Path,
    functions: Functions,
}

impl Sources<'_> {
    /// The lines that replace a directive: a file in `infra/blocks`, or generated lines.
    fn block(&self, name: &str, values: &Values) -> Result<Vec<String>, String> {
        match name {
            "route-settings" => Ok(routes::settings()),
            "function" => self.function(self.functions.find(values.require("name")?)?),
            "function-logs" => self.function_logs(),
            "canary-alarms" => self.canary_alarms(),
            "alarm" => {
                let (comparison, threshold) = match values.get("above") {
                    Some(threshold) => ("GreaterThanThreshold", threshold),
                    None => ("LessThanThreshold", values.require("below")?),
                };
                let values = values.clone().without("above").without("below");
                self.text(
                    name,
                    &values
                        .with("comparison", comparison)
                        .with("threshold", threshold),
                )
            }
            "role" => {
                let role = values.require("name")?;
                let functions = self.functions.all().iter();
                let logs: Vec<_> = functions
                    .filter(|function| function.role == role)
                    .map(|function| format!("!GetAtt {}Logs.Arn", function.id()))
                    .collect();
                self.text(
                    name,
                    &values.clone().without("name").with("logs", logs.join(", ")),
                )
            }
            "query" => {
                let functions = self
                    .functions
                    .select(values.require("functions")?)?
                    .into_iter();
                let logs: Vec<_> = functions
                    .map(|function| format!("!Ref {}Logs", function.id()))
                    .collect();
                self.text(
                    name,
                    &values
                        .clone()
                        .without("functions")
                        .with("logs", logs.join(", ")),
                )
            }
            "metrics" => {
                let mut lines = Vec::new();
                let suffix = values.get("suffix").unwrap_or_default();
                for function in self.functions.select(values.require("functions")?)? {
                    let values = values.clone().without("functions").without("suffix");
                    let alias = format!("{}{suffix}", function.short()?);
                    lines.extend(self.text(
                        "metric",
                        &values.with("alias", alias).with("id", function.id()),
                    )?);
                }
                Ok(lines)
            }
            "node-metrics" => {
                let node =
                    |number: &str| self.text("node-metric", &values.clone().with("number", number));
                Ok([node("1")?, node("2")?, node("3")?].concat())
            }
            "function-variables" => {
                let functions = self
                    .functions
                    .select(values.require("functions")?)?
                    .into_iter();
                functions
                    .map(|function| {
                        let variable = variable(function)?;
                        Ok(format!("{variable}: !Ref {}Function", function.id()))
                    })
                    .collect()
            }
            "metrics-by-function" | "metrics-by-version" | "metrics-by-node" => {
                self.widget_rows(name, values)
            }
            name => self.text(name, values),
        }
    }

    /// A file of `infra/blocks` with its placeholders replaced.
    fn text(&self, name: &str, values: &Values) -> Result<Vec<String>, String> {
        let path = format!("infra/blocks/{name}.yaml");
        let lines = fill(&read(self.root, &path)?, values);
        let lines = lines.map_err(|problem| format!("{path}: {problem}"))?;
        Ok(lines.into_iter().flat_map(wrapped).collect())
    }

    fn function(&self, function: &Function) -> Result<Vec<String>, String> {
        let after = match &function.after {
            Some(after) => {
                let functions = self.functions.select(after)?.into_iter();
                let aliases: Vec<_> = functions
                    .map(|function| format!("{}FunctionAliaslive", function.id()))
                    .collect();
                Some(format!("[{}]", aliases.join(", ")))
            }
            None => function.in_network.then(|| "NetworkReady".to_owned()),
        };
        let values = Values::default()
            .with("id", function.id())
            .with("function", function.name.as_str())
            .with("name", function.full_name())
            .with("role", function.role.as_str())
            .with_some("concurrency", function.concurrency.as_deref())
            .with_some("after", after);
        let mut lines = self.text("function", &values)?;
        let mut properties = Vec::new();
        if function.in_network {
            properties.extend(self.text("function-network", &Values::default())?);
        }
        if ["Change", "Ramp", "Reconcile"].contains(&function.role.as_str()) {
            properties.extend(self.text("function-writes", &Values::default())?);
        }
        properties.extend(deployment(function));
        let events = routes::events(&function.name);
        if !events.is_empty() {
            properties.push("Events:".to_owned());
        }
        for event in events {
            let values = Values::default()
                .with("event", event.name)
                .with_some("authorizer", event.admin.then_some("AdminToken"))
                .with_some("method", event.method)
                .with_some("path", event.path);
            properties.extend(indented(2, self.text("route", &values)?));
        }
        lines.extend(indented(2, properties));
        Ok(lines)
    }

    fn function_logs(&self) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for function in self.functions.all() {
            let name = format!("/aws/lambda/{}", function.full_name());
            lines.push(format!("{}Logs:", function.id()));
            let group = self.text("log-group", &Values::default().with("name", name))?;
            lines.extend(indented(2, group));
        }
        Ok(lines)
    }

    fn canary_alarms(&self) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for function in self.functions.all() {
            for alarm in function.canary.alarms() {
                let mut values = Values::default()
                    .with("id", function.id())
                    .with("function", function.name.as_str());
                match function.canary {
                    Canary::Crashes => values = values.with("event", "failed three times"),
                    Canary::ScheduledCrashes => {
                        values = values
                            .with("event", "failed twice")
                            .with("period", "3600")
                            .with("threshold", "2");
                    }
                    Canary::None | Canary::Errors | Canary::Rates => {}
                }
                lines.extend(self.text(&format!("canary-{alarm}"), &values)?);
            }
        }
        Ok(lines)
    }

    /// Rows of a widget of the dashboard: a metric per function, per version of each function, or per cache node.
    fn widget_rows(&self, kind: &str, values: &Values) -> Result<Vec<String>, String> {
        let metric = values.require("metric")?;
        let mut rows = Vec::new();
        if kind == "metrics-by-node" {
            let nodes = [
                "${Single}-001",
                "${Cluster}-0001-001",
                "${Cluster}-0001-002",
                "${Cluster}-0001-003",
            ];
            let skipped = usize::from(values.require("nodes")? == "cluster");
            for node in &nodes[skipped..] {
                rows.push(format!(
                    "[\"AWS/ElastiCache\", \"{metric}\", \"CacheClusterId\", \"{node}\"],"
                ));
            }
        } else {
            for function in self.functions.select(values.require("functions")?)? {
                let variable = variable(function)?;
                rows.push(if kind == "metrics-by-function" {
                    let label = match values.get("label") {
                        Some(label) => format!("{label}, {}", function.name),
                        None => function.name.clone(),
                    };
                    format!("[\"Pennon\", \"{metric}\", \"Function\", \"${{{variable}}}\", {{\"label\": \"{label}\"}}],")
                } else {
                    let search = format!("${{Schema}} MetricName=\\\"{metric}\\\" Function=\\\"${{{variable}}}\\\"");
                    let stat = values.require("stat")?;
                    format!("[{{\"expression\": \"SEARCH('{search}', '{stat}', 60)\"}}],")
                });
            }
        }
        // The end of the list replaces the comma after the last row.
        if let (Some(end), Some(last)) = (values.get("end"), rows.last_mut()) {
            last.truncate(last.len() - 1);
            last.push_str(end);
        }
        Ok(rows)
    }
}

/// The variable of a function in the dashboard.
fn variable(function: &Function) -> Result<String, String> {
    Ok(camel(function.short()?))
}

fn deployment(function: &Function) -> Vec<String> {
    if function.canary == Canary::None {
        return vec!["DeploymentPreference: {Enabled: false}".to_owned()];
    }
    let names = function.canary.alarms().iter();
    let names = names.map(|alarm| format!("!Ref {}Canary{}Alarm", function.id(), camel(alarm)));
    let names: Vec<_> = names.collect();
    let mut lines = vec![
        "DeploymentPreference:".to_owned(),
        "  Alarms: !If".to_owned(),
    ];
    lines.push("    - UseCanary".to_owned());
    lines.extend(wrapped(format!("    - [{}]", names.join(", "))));
    lines.push("    - [!Ref AWS::NoValue]".to_owned());
    lines
}

fn indented(by: usize, lines: Vec<String>) -> Vec<String> {
    let indent = " ".repeat(by);
    lines
        .into_iter()
        .map(|line| indent.clone() + &line)
        .collect()
}

/// Wraps a list in brackets that is too wide. Six columns are reserved for the indentation of the block.
fn wrapped(line: String) -> Vec<String> {
    let width = WIDTH - 6;
    let indent = line.len() - line.trim_start().len() + 2;
    let is_list =
        (line.contains(": [") || line.trim_start().starts_with("- [")) && line.ends_with(']');
    let mut lines = Vec::new();
    let mut rest = line;
    while is_list && rest.len() > width {
        let Some(end) = rest[..width].rfind(", ").map(|comma| comma + 1) else {
            break;
        };
        let next = format!("{}{}", " ".repeat(indent), rest[end..].trim_start());
        rest.truncate(end);
        lines.push(rest);
        rest = next;
    }
    lines.push(rest);
    lines
}

/// Adds the tags of the stack to every resource whose type has tags.
fn tagged(lines: Vec<String>) -> Result<Vec<String>, String> {
    let mut out: Vec<String> = Vec::new();
    let mut resource = 0;
    // `None` after the last line ends the last resource.
    for line in lines.into_iter().map(Some).chain([None]) {
        let ends = line
            .as_ref()
            .is_none_or(|line| !line.is_empty() && !line.starts_with("   "));
        if ends {
            let last = out.split_off(resource);
            out.extend(tagged_resource(last)?);
            resource = out.len();
        }
        out.extend(line);
    }
    Ok(out)
}

/// Adds the tags of the stack to a resource, if its type has tags: after its own tags, or as the last property. These
/// lines are appended, so its properties must be its last section, and its own tags the last property.
fn tagged_resource(mut lines: Vec<String>) -> Result<Vec<String>, String> {
    let has_tags = |line: &String| {
        let kind = line.strip_prefix("    Type: ");
        kind.is_some_and(|kind| TAGGED.split_whitespace().any(|tagged| tagged == kind))
    };
    if !lines.iter().any(has_tags) {
        return Ok(lines);
    }
    let names = |indent: &str| -> Vec<&str> {
        let names = lines.iter().filter_map(|line| line.strip_prefix(indent));
        names
            .filter(|name| name.starts_with(|first: char| first.is_ascii_alphabetic()))
            .collect()
    };
    let (sections, properties) = (names("    "), names("      "));
    let has_own = properties.iter().any(|name| name.starts_with("Tags:"));
    if sections.last() != Some(&"Properties:") || has_own && properties.last() != Some(&"Tags:") {
        let id = lines[0].trim();
        return Err(format!(
            "{id} Properties must be the last section, and Tags, as a list with a line for each, the last property"
        ));
    }
    let blank = lines.iter().rev().take_while(|line| line.is_empty());
    let after = lines.split_off(lines.len() - blank.count());
    if has_own {
        lines.extend(TAGS.map(|tag| format!("        - {tag}")));
    } else {
        lines.push(format!("      Tags: [{}]", TAGS.join(", ")));
    }
    lines.extend(after);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn resources_that_support_tags_get_them_after_their_own() {
        let text = "Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      Path: /

  # A network.
  Network:
    Type: AWS::EC2::VPC
    Properties:
      Tags:
        - {Key: Name, Value: x}
  Route:
    Type: AWS::EC2::Route
  Topic:
    Type: AWS::SNS::Topic
    Properties:
";
        let expected = "Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      Path: /
      Tags: [{Key: Feature, Value: FeatureFlags}, {Key: Stage, Value: !Ref Stage}]

  # A network.
  Network:
    Type: AWS::EC2::VPC
    Properties:
      Tags:
        - {Key: Name, Value: x}
        - {Key: Feature, Value: FeatureFlags}
        - {Key: Stage, Value: !Ref Stage}
  Route:
    Type: AWS::EC2::Route
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      Tags: [{Key: Feature, Value: FeatureFlags}, {Key: Stage, Value: !Ref Stage}]
";
        assert_eq!(tagged(lines(text)), Ok(lines(expected)));
    }

    #[test]
    fn a_resource_to_which_tags_cannot_be_appended_is_an_error() {
        for wrong in [
            "    Type: AWS::SNS::Topic\n    Properties:\n      TopicName: a\n    DeletionPolicy: Retain",
            "    Properties:\n      TopicName: a\n    Type: AWS::SNS::Topic",
            "    Type: AWS::SNS::Topic",
            "    Type: AWS::SNS::Topic\n    Properties:\n      Tags:\n        - {Key: a, Value: b}\n      TopicName: a",
            "    Type: AWS::SNS::Topic\n    Properties:\n      Tags: [{Key: a, Value: b}]",
        ] {
            let text =
                format!("Resources:\n  Topic:\n{wrong}\n  Other:\n    Type: AWS::EC2::Route");
            let error = tagged(lines(&text)).expect_err(wrong);
            assert!(error.starts_with("Topic: "), "{error}");
        }
    }

    #[test]
    fn the_heading_of_a_part_gets_its_source() {
        let text = "Resources:\n  # 2  API.\n  #    More.\n  # A note.\n  HttpApi:";
        let titled = |text| super::titled("infra/api.yaml", lines(text));
        let found = titled(text).expect("a heading");
        assert!(found[1].starts_with("  # ---"), "{found:?}");
        assert_eq!(found[4], "  #    Source: infra/api.yaml");
        assert_eq!(found[5], found[1]);
        assert_eq!(&found[6..], lines("  # A note.\n  HttpApi:"));
        let without = "# A note.\nOutputs:";
        assert_eq!(titled(without), Ok(lines(without)));
        for wrong in [
            "# A note.\n# 5 % of the calls",
            "# 2  API.\n# 5 % of the calls",
        ] {
            let error = titled(wrong).expect_err(wrong);
            assert!(error.contains("5 %"), "{error}");
        }
    }

    #[test]
    fn a_long_list_is_wrapped_and_a_long_text_is_not() {
        let names = ["!Ref OneResourceWithAVeryLongName"; 5].join(", ");
        let wrapped = super::wrapped(format!("  Resource: [{names}]"));
        assert_eq!(wrapped.len(), 2);
        assert!(
            wrapped.iter().all(|line| line.len() <= WIDTH - 6),
            "{wrapped:?}"
        );
        assert!(wrapped[1].starts_with("    !Ref "), "{wrapped:?}");
        let text = format!("Description: {}", "many words, ".repeat(20));
        assert_eq!(super::wrapped(text.clone()), [text]);
    }
}
