//! The template under one choice of parameters: with conditions evaluated, and functions merged with their globals.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::{Map, Value, json};

/// A choice of parameters, and the region.
pub(super) type Profile = BTreeMap<&'static str, &'static str>;

const CACHE_MODES: [&str; 5] = [
    "none",
    "single",
    "both-use-single",
    "both-use-cluster",
    "cluster",
];
const DATABASE_ROLES: [&str; 3] = ["one", "moving", "separate"];
/// For each cache mode and egress mode: an index of `DATABASE_ROLES`, and whether there is a proxy. The values were
/// found by a search, so that every pair of values of two parameters occurs in a profile.
const ROLES_AND_PROXY: [[(usize, bool); 3]; 5] = [
    [(0, false), (2, true), (1, true)],
    [(2, true), (1, true), (0, false)],
    [(1, false), (0, true), (2, false)],
    [(1, true), (2, false), (0, true)],
    [(1, true), (0, true), (2, false)],
];
const EGRESS_MODES: [&str; 3] = ["ipv6", "endpoint", "nat"];
/// Values that no profile combines, because a rule of the template rejects them together. Profiles do contain other
/// pairs that rules reject, such as a proxy with `DatabaseRoles=one`: they test conditions, not rules.
const REJECTED: [(&str, &str); 2] = [("EgressMode", "endpoint"), ("EventBusName", "changes")];

/// Fifteen choices that contain every pair of values of two parameters except `REJECTED`. They can miss a mistake that
/// depends on three parameters at once.
pub(super) fn profiles() -> Vec<Profile> {
    let mut profiles = Vec::new();
    for (c, cache) in CACHE_MODES.into_iter().enumerate() {
        for (e, egress) in EGRESS_MODES.into_iter().enumerate() {
            let external = (c + e) % 2 == 1;
            let canary = (e == 0) != (c % 2 == 1);
            let foreign = (e == 2) != (c / 2 % 2 == 1);
            let elsewhere = (e == 1) != [1, 4].contains(&c);
            let two_zones = (e == 0) != (c == 3);
            let zones_chosen = (e == 2) != (c == 1);
            let has_console = (e == 1) != (c == 0);
            let has_layer = (c + e) % 3 == 0;
            let has_bus = e != 1 && (e == 2) == [2, 4].contains(&c);
            profiles.push(BTreeMap::from([
                ("CacheMode", cache),
                ("EgressMode", egress),
                ("EventBusName", if has_bus { "changes" } else { "" }),
                ("PublishExtension", if has_layer { "true" } else { "false" }),
                ("DatabaseRoles", DATABASE_ROLES[ROLES_AND_PROXY[c][e].0]),
                (
                    "DatabaseProxy",
                    if ROLES_AND_PROXY[c][e].1 {
                        "true"
                    } else {
                        "false"
                    },
                ),
                ("DatabaseMode", if external { "external" } else { "rds" }),
                ("Rollout", if canary { "canary" } else { "all-at-once" }),
                (
                    "JwtIssuer",
                    if foreign {
                        "https://issuer.example"
                    } else {
                        ""
                    },
                ),
                (
                    "ConsoleUrl",
                    if has_console {
                        "https://flags.example"
                    } else {
                        ""
                    },
                ),
                ("ZoneB", if zones_chosen { "eu-west-1b" } else { "" }),
                ("ZoneC", if two_zones { "none" } else { "" }),
                (
                    "AWS::Region",
                    if elsewhere { "eu-west-1" } else { "us-east-1" },
                ),
            ]));
        }
    }
    profiles
}

/// The resources that exist in one profile.
pub(super) struct Stack {
    pub(super) profile: Profile,
    pub(super) parameters: Value,
    resources: BTreeMap<String, Arc<Value>>,
    functions: Vec<Arc<Function>>,
    mistaken: Mistaken,
}

/// A function, merged with the globals.
pub(super) struct Function {
    /// Its name in the template.
    pub(super) id: String,
    /// Its handler, which is its name everywhere else.
    pub(super) handler: String,
    pub(super) properties: Value,
    /// Whether it has a route of the API.
    pub(super) has_route: bool,
}

impl Stack {
    pub(super) fn of(template: &Value, profile: Profile) -> Self {
        Self::of_mistake(template, profile, &Mistaken::default())
    }

    /// The same, but takes the resources that the mistake does not affect from the committed template.
    pub(super) fn of_mistake(template: &Value, profile: Profile, mistaken: &Mistaken) -> Self {
        let committed = mistaken.0.as_ref().map(|_| committed(&profile));
        let decide = Conditions::of(template, &profile);
        let mut resources = BTreeMap::new();
        let mut functions: Vec<Arc<Function>> = Vec::new();
        let shared = decide.resolve(&template["Globals"]["Function"]);
        let shared = shared.expect("globals");
        for (id, resource) in template["Resources"].as_object().expect("resources") {
            if let Some(committed) = &committed
                && mistaken.spares(id)
            {
                let resource = committed.resources.get(id);
                resources.extend(resource.map(|resource| (id.clone(), resource.clone())));
                let function = committed.functions.iter().find(|one| one.id == *id);
                functions.extend(function.cloned());
                continue;
            }
            let exists = resource["Condition"]
                .as_str()
                .is_none_or(|name| decide.holds(name));
            if !exists {
                continue;
            }
            let resolved = decide.resolve(resource).expect("a resource");
            if resolved["Type"] == "AWS::Serverless::Function" {
                functions.push(Arc::new(Function::of(id, &resolved["Properties"], &shared)));
            }
            resources.insert(id.clone(), Arc::new(resolved));
        }
        Self {
            parameters: template["Parameters"].clone(),
            functions,
            resources,
            profile,
            mistaken: mistaken.clone(),
        }
    }

    /// Whether the planted mistake is known not to affect this function. Checks that read only the function and the
    /// parameters can then be skipped: they find no problem in the committed template.
    pub(super) fn has_mistake_elsewhere(&self, function: &Function) -> bool {
        self.mistaken.spares(&function.id)
    }

    /// Whether a parameter has this value.
    pub(super) fn has(&self, parameter: &str, value: &str) -> bool {
        self.value(parameter) == value
    }

    /// The chosen value of a parameter, or its default.
    pub(super) fn value(&self, parameter: &str) -> &str {
        let default = || text(&self.parameters[parameter]["Default"]);
        self.profile.get(parameter).copied().unwrap_or_else(default)
    }

    pub(super) fn get(&self, id: &str) -> &Value {
        self.resources.get(id).map_or(&Value::Null, Arc::as_ref)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.resources
            .iter()
            .map(|(id, resource)| (id.as_str(), resource.as_ref()))
    }

    /// Every resource of a type, with its properties.
    pub(super) fn of_type<'a>(
        &'a self,
        kind: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.all()
            .filter(move |(_, resource)| resource["Type"] == kind)
            .map(|(id, resource)| (id, &resource["Properties"]))
    }

    pub(super) fn functions(&self) -> &[Arc<Function>] {
        &self.functions
    }
}

impl Function {
    fn of(id: &str, properties: &Value, shared: &Value) -> Self {
        let mut events = properties["Events"].as_object().into_iter().flatten();
        Self {
            id: id.to_owned(),
            handler: text(&properties["Handler"]).to_owned(),
            properties: merge(shared, properties),
            has_route: events.any(|(_, event)| event["Type"] == "HttpApi"),
        }
    }
}

/// The resources that a planted mistake affects; `None` if it may affect all of them, or if there is no mistake.
#[derive(Clone, Default)]
pub(super) struct Mistaken(Option<Arc<BTreeSet<String>>>);

impl Mistaken {
    /// Compares a template with the committed one.
    pub(super) fn of(template: &Value) -> Self {
        let committed = &*COMMITTED;
        let settings = ["Conditions", "Parameters", "Globals", "Mappings"];
        if settings
            .iter()
            .any(|section| committed[*section] != template[*section])
        {
            return Self(None);
        }
        let resources = template["Resources"].as_object().expect("resources");
        let changed = resources
            .iter()
            .filter(|(id, resource)| committed["Resources"][id.as_str()] != **resource);
        let changed: BTreeSet<String> = changed.map(|(id, _)| id.clone()).collect();
        // Without a mistake, no resource is taken from the committed template.
        Self((committed != template).then(|| Arc::new(changed)))
    }

    /// Whether this resource is known to be as in the committed template.
    fn spares(&self, id: &str) -> bool {
        self.0.as_ref().is_some_and(|ids| !ids.contains(id))
    }
}

static COMMITTED: LazyLock<Value> = LazyLock::new(|| super::parse(&super::read("template.yaml")));

/// The committed template with a profile, which is resolved once for all mistakes.
fn committed(profile: &Profile) -> Arc<Stack> {
    static KNOWN: Mutex<BTreeMap<Profile, Arc<Stack>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("no test fails here");
    let stack = known
        .entry(profile.clone())
        .or_insert_with(|| Arc::new(Stack::of(&COMMITTED, profile.clone())));
    stack.clone()
}

/// Whether the rules of a template accept these parameters.
pub(super) fn accepts(template: &Value, profile: &Profile) -> bool {
    let decide = Conditions::of(template, profile);
    let rules = template["Rules"].as_object().expect("rules");
    rules.values().all(|rule| {
        !decide.truth(&rule["RuleCondition"])
            || list(&rule["Assertions"])
                .iter()
                .all(|assertion| decide.truth(&assertion["Assert"]))
    })
}

/// SAM's rule: maps are merged, lists are joined, all other values are replaced.
fn merge(shared: &Value, own: &Value) -> Value {
    match (shared, own) {
        (Value::Object(shared), Value::Object(own)) if !is_intrinsic(own) => {
            let mut merged = shared.clone();
            for (name, value) in own {
                let value = match shared.get(name) {
                    Some(shared) => merge(shared, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(shared), Value::Array(own)) => shared.iter().chain(own).cloned().collect(),
        _ => own.clone(),
    }
}

fn is_intrinsic(map: &Map<String, Value>) -> bool {
    map.len() == 1
        && map
            .keys()
            .all(|key| key == "Ref" || key.starts_with("Fn::"))
}

struct Conditions<'a> {
    template: &'a Value,
    profile: &'a Profile,
    /// The conditions that were evaluated, because a template names each of them many times.
    known: RefCell<BTreeMap<String, bool>>,
}

impl<'a> Conditions<'a> {
    fn of(template: &'a Value, profile: &'a Profile) -> Self {
        Self {
            template,
            profile,
            known: RefCell::default(),
        }
    }

    fn holds(&self, name: &str) -> bool {
        if let Some(holds) = self.known.borrow().get(name) {
            return *holds;
        }
        let condition = &self.template["Conditions"][name];
        assert!(!condition.is_null(), "no condition {name}");
        let holds = self.truth(condition);
        self.known.borrow_mut().insert(name.to_owned(), holds);
        holds
    }

    fn truth(&self, condition: &Value) -> bool {
        let (operator, argument) = only(condition).expect("a condition");
        let list = || argument.as_array().expect("a list").iter();
        match operator {
            "Condition" => self.holds(text(argument)),
            "Fn::Not" => !self.truth(&argument[0]),
            "Fn::And" => list().all(|part| self.truth(part)),
            "Fn::Or" => list().any(|part| self.truth(part)),
            "Fn::Equals" => self.value(&argument[0]) == self.value(&argument[1]),
            other => panic!("{other} in a condition"),
        }
    }

    /// The value of a parameter as text, because conditions compare text.
    fn value(&self, of: &Value) -> String {
        let plain = |value: &Value| {
            let text = value.as_str().map(str::to_owned);
            text.unwrap_or_else(|| value.to_string())
        };
        let Some(("Ref", name)) = only(of) else {
            return plain(of);
        };
        match self.profile.get(text(name)) {
            Some(chosen) => (*chosen).to_owned(),
            None => plain(&self.template["Parameters"][text(name)]["Default"]),
        }
    }

    /// Evaluates every `Fn::If`; `None` for `AWS::NoValue`.
    fn resolve(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Object(map) => {
                if let Some(("Fn::If", argument)) = only(value) {
                    let way = if self.holds(text(&argument[0])) { 1 } else { 2 };
                    return self.resolve(&argument[way]);
                }
                if only(value).is_some_and(|it| it.0 == "Ref" && it.1 == "AWS::NoValue") {
                    return None;
                }
                let pairs = map.iter();
                let pairs =
                    pairs.filter_map(|(name, value)| Some((name.clone(), self.resolve(value)?)));
                Some(Value::Object(pairs.collect()))
            }
            Value::Array(items) => Some(items.iter().filter_map(|it| self.resolve(it)).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Some(value.clone())
            }
        }
    }
}

/// The only entry of a map with one entry.
pub(super) fn only(value: &Value) -> Option<(&str, &Value)> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.iter()
        .next()
        .map(|(name, value)| (name.as_str(), value))
}

/// The text, or "".
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of a list, or none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `{"Ref": id}`.
pub(super) fn reference(id: &str) -> Value {
    json!({ "Ref": id })
}

/// The target of a `Ref` or a `Fn::GetAtt`, or "".
pub(super) fn target(value: &Value) -> &str {
    match only(value) {
        Some(("Ref", name)) => text(name),
        Some(("Fn::GetAtt", path)) => text(&path[0]),
        _ => "",
    }
}

#[test]
fn every_pair_of_values_that_is_not_rejected_occurs_in_a_profile() {
    let profiles = profiles();
    for one in &profiles {
        for two in &profiles {
            for (first, value) in one {
                for (second, other) in two {
                    let together =
                        |profile: &Profile| profile[first] == *value && profile[second] == *other;
                    let pair = [(*first, *value), (*second, *other)];
                    let is_rejected = REJECTED.iter().all(|one| pair.contains(one));
                    assert!(
                        first == second || is_rejected || profiles.iter().any(together),
                        "no profile has {first}={value} and {second}={other}"
                    );
                }
            }
        }
    }
}
