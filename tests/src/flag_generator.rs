//! Generates unusual flags and contexts from a seed.
//!
//! Nearly everything generated is valid under flagd's JSON Schemas; the test drops the rest. The generator avoids
//! cases in which no engine's result is a useful reference:
//!
//! - attributes named like members of every JavaScript object (`constructor`), and `../`, which one engine
//!   interprets as a parent;
//! - complete versions with surrounding white space or numbers beyond 2^53, which one engine rejects, and versions
//!   with two `v`, which one accepts;
//! - integers beyond 2^53 that are written without an exponent, except in the bucketing value of fractional v3;
//! - characters beyond U+FFFF where text is cut or ordered, and non-ASCII text in fractional v2;
//! - evaluators that refer to an earlier one, which no engine resolves, or whose name needs an escape in JSON,
//!   for which one engine rejects the whole file.

use serde_json::{Map, Value, json};

use crate::rng::Rng;

/// What the generated flags test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Every operator except `fractional`, in unusual combinations.
    Operators,
    /// `fractional` over text, with portable operators around it.
    FractionalV2,
    /// `fractional` over CBOR, with portable operators around it.
    FractionalV3,
}

/// The data that `var` reads in an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Context,
    Item,
    Reduction,
}

/// Generates flags and contexts.
#[derive(Debug)]
pub struct FlagGenerator {
    rng: Rng,
    subject: Subject,
}

/// Deep enough that every operator occurs inside every other one; deeper rules would only take longer.
const DEPTH: u32 = 3;

const WORDS: &[&str] = &[
    "a",
    "b",
    "gold",
    "gold-plus",
    "Gold",
    "beta",
    "x,y",
    "käse",
    "日本",
    "",
];
/// Texts that languages convert to different numbers.
const NUMERALS: &[&str] = &[
    "0", "1", "01", "1.50", " 5 ", "1e3", "0x1F", "12abc", "-3", "NaN", "Infinity", "1_000",
    "true", "null", ".5", "5.", "+7", "\t", "1 2",
];
const VERSIONS: &[&str] = &[
    "1.2.3",
    "1.2.4",
    "1.3.0",
    "2.0.0",
    "2.0.0-beta.1",
    "2.0.0-beta.11",
    "2.0.0-beta",
    "1.2.3+build",
    "1.2.3-rc.1+b5",
    "0.0.0",
    "10.20.30",
    "1.2.3-0a",
    "1.2.3--",
];
const ODD_VERSIONS: &[&str] = &[
    "v1.2.3", "V2.0.0", "1.2", "1", "v2", "v1.3", "01.2.3", "1.2.3.4", "", "abc", "1.0.0-",
    "1-beta", "1.2-beta", "1.2+b", "1.2.3-01", "1.x", "-1.2.3", "1..2", "1.2.", "v", "1.2.3-ä",
];

/// Attributes that are texts, or absent.
const TEXT_ATTRIBUTES: &[&str] = &["plan", "email", "country"];
/// Paths of attributes. Most have a value of any type, and some do not exist.
const UNTYPED_ATTRIBUTES: &[&str] = &[
    "name",
    "text",
    "score",
    "count",
    "tags",
    "nums",
    "items",
    "user",
    "user.email",
    "user.age",
    "user.roles",
    "user.roles.0",
    "nums.1",
    "items.0.x",
    "words.length",
    "name.length",
    "name.0",
    "nothing",
    "absent",
    "user.absent.deep",
    "flag",
    "nums.01",
    "nums.-1",
    "0",
    "targetingKey",
    "plan",
    "age",
];

impl FlagGenerator {
    /// Creates a generator; the same seed generates the same flags.
    pub fn new(seed: u64, subject: Subject) -> Self {
        let rng = Rng::new(seed);
        Self { rng, subject }
    }

    fn one_in(&self, sides: u32) -> bool {
        self.rng.roll(sides) == 0
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        let sides = u32::try_from(from.len()).expect("few");
        from[self.rng.roll(sides) as usize].clone()
    }

    fn word(&self) -> &'static str {
        match self.subject {
            // Without words that are not ASCII, and without the empty one.
            Subject::FractionalV2 => self.pick(&WORDS[..7]),
            Subject::Operators | Subject::FractionalV3 => self.pick(WORDS),
        }
    }

    fn several(&self, least: u32, most: u32, mut one: impl FnMut() -> Value) -> Vec<Value> {
        let count = least + self.rng.roll(most - least + 1);
        (0..count).map(|_| one()).collect()
    }

    /// Generates a flagd file with this many flags.
    pub fn file(&self, flags: u32) -> Value {
        let flags: Map<_, _> = (0..flags)
            .map(|number| (format!("flag-{number}"), self.flag()))
            .collect();
        json!({
            "$schema": "https://flagd.dev/schema/v0/flags.json",
            "metadata": { "flagSetId": "conformance", "version": "3", "owner": "all" },
            "$evaluators": self.evaluators(),
            "flags": flags,
        })
    }

    fn evaluators(&self) -> Value {
        let condition = || loop {
            let condition = match self.subject {
                Subject::Operators => self.condition(2, Scope::Context),
                Subject::FractionalV2 | Subject::FractionalV3 => self.portable_condition(1),
            };
            let text = condition.to_string();
            if text.is_ascii() && !text.contains('\\') && !text.contains("$ref") {
                break condition;
            }
        };
        json!({
            "shared-1": { "if": [{ "$ref": "shared-2" }, condition(), condition()] },
            "shared-2": { "and": [condition(), true] },
            "shared.3 (*)": { "!!": [condition()] },
        })
    }

    fn flag(&self) -> Value {
        let (variants, names) = self.variants();
        let mut flag = json!({
            "state": if self.one_in(20) { "DISABLED" } else { "ENABLED" },
            "variants": variants,
        });
        match self.rng.roll(12) {
            0 => {}
            1 => flag["defaultVariant"] = Value::Null,
            2 if self.one_in(3) => flag["defaultVariant"] = json!(""),
            _ => flag["defaultVariant"] = json!(self.pick(&names)),
        }
        match self.rng.roll(25) {
            0 => {}
            1 => flag["targeting"] = json!({}),
            _ => flag["targeting"] = self.targeting(&names),
        }
        if self.one_in(4) {
            flag["metadata"] = json!({ "owner": "team", "version": 1.5, "live": true });
        }
        flag
    }

    /// Variants of one type, and their names. Some are named `true` or `1`: rules may return a boolean or a number for
    /// them.
    fn variants(&self) -> (Value, Vec<&'static str>) {
        let names = match self.rng.roll(4) {
            0 => vec!["on", "off"],
            1 => vec!["true", "false", "a", "b"],
            2 => vec!["0", "1", "2", "a", "b"],
            _ => vec!["a", "b", "gold"],
        };
        let kind = self.rng.roll(5);
        let variants: Map<_, _> = names
            .iter()
            .enumerate()
            .map(|(number, name)| {
                let value = match kind {
                    0 => json!(number == 0),
                    1 => json!(number),
                    2 => json!([1.5, 2.0, 0.0, -3.25, 1e21][number]),
                    3 => json!({ "is": name, "list": [number, 2.0, null] }),
                    _ => json!(format!("value of {name}")),
                };
                ((*name).to_owned(), value)
            })
            .collect();
        (variants.into(), names)
    }

    fn targeting(&self, names: &[&'static str]) -> Value {
        match self.subject {
            Subject::Operators => self.operators(names),
            Subject::FractionalV2 | Subject::FractionalV3 => self.split(names),
        }
    }

    fn operators(&self, names: &[&'static str]) -> Value {
        let name = || json!(self.pick(names));
        let loose = || self.any(DEPTH, Scope::Context);
        match self.rng.roll(8) {
            // The test adds a variant with the rule's result as its name.
            0 | 1 => self.operation(DEPTH, Scope::Context),
            2 | 3 => json!({ "cat": ["v", loose()] }),
            4 => json!({ "if": [self.condition(DEPTH, Scope::Context), name(), name()] }),
            5 => json!({ "if": [loose(), name(), loose(), name(), name()] }),
            6 => json!({ "if": [self.condition(DEPTH, Scope::Context), name()] }),
            _ => json!({ "if": [loose(), name(), null] }),
        }
    }

    // Unrestricted expressions: every operator with every operand.

    fn any(&self, depth: u32, scope: Scope) -> Value {
        if depth == 0 || self.one_in(5) {
            return self.leaf(scope);
        }
        self.operation(depth, scope)
    }

    fn operation(&self, depth: u32, scope: Scope) -> Value {
        match self.rng.roll(5) {
            0 => self.condition(depth, scope),
            1 => self.number(depth, scope),
            2 => self.text(depth, scope),
            3 => self.list(depth, scope),
            _ => self.choice(depth, scope),
        }
    }

    fn leaf(&self, scope: Scope) -> Value {
        if self.one_in(2) {
            self.var(scope)
        } else {
            self.literal()
        }
    }

    fn literal(&self) -> Value {
        match self.rng.roll(9) {
            0 => Value::Null,
            1 => json!(self.one_in(2)),
            2 | 3 => self.plain_number(),
            4 => json!(self.pick(NUMERALS)),
            5 => Value::Array(self.several(0, 3, || self.scalar())),
            _ => json!(self.word()),
        }
    }

    fn scalar(&self) -> Value {
        match self.rng.roll(6) {
            0 => Value::Null,
            1 => json!(self.one_in(2)),
            2 | 3 => self.plain_number(),
            4 => json!(self.pick(NUMERALS)),
            _ => json!(self.word()),
        }
    }

    fn plain_number(&self) -> Value {
        self.pick(&[
            json!(0),
            json!(1),
            json!(2),
            json!(3),
            json!(-1),
            json!(7),
            json!(18),
            json!(100),
            json!(0.5),
            json!(2.0),
            json!(-2.5),
            json!(0.1),
            json!(0.2),
            json!(1e21),
            json!(1e-7),
            json!(1_234_567_890_123_i64),
        ])
    }

    fn var(&self, scope: Scope) -> Value {
        let name = match scope {
            Scope::Context => self.pick(UNTYPED_ATTRIBUTES),
            Scope::Item => self.pick(&["", "", "x", "n", "y.z", "0", "length", "absent"]),
            Scope::Reduction => self.pick(&[
                "current",
                "accumulator",
                "current.x",
                "accumulator.0",
                "",
                "plan",
            ]),
        };
        match self.rng.roll(10) {
            0 => json!({ "var": [name] }),
            1 | 2 => json!({ "var": [name, self.literal()] }),
            3 if self.one_in(3) => json!({ "var": { "if": [true, name] } }),
            4 if self.one_in(3) && scope == Scope::Item => json!({ "var": self.rng.roll(3) }),
            5 if scope == Scope::Context => json!({ "var": "$flagd.flagKey" }),
            _ => json!({ "var": name }),
        }
    }

    /// Usually an operand of the operator's type, sometimes any.
    fn mostly(&self, kind: impl FnOnce() -> Value, depth: u32, scope: Scope) -> Value {
        if self.one_in(8) {
            self.any(depth, scope)
        } else {
            kind()
        }
    }

    fn condition(&self, depth: u32, scope: Scope) -> Value {
        if depth == 0 {
            return self.leaf(scope);
        }
        let depth = depth - 1;
        let any = || self.any(depth, scope);
        let number = || self.mostly(|| self.number(depth, scope), depth, scope);
        let text = || self.mostly(|| self.text(depth, scope), depth, scope);
        let list = || self.mostly(|| self.list(depth, scope), depth, scope);
        match self.rng.roll(15) {
            0 => json!({ self.pick(&["==", "!="]): [any(), any()] }),
            1 => json!({ self.pick(&["===", "!=="]): [any(), any()] }),
            2 => json!({ self.pick(&["==", "!=", "===", "!=="]): [text(), text()] }),
            3 => json!({ self.pick(&["==", "!=", "===", "!=="]): [number(), number()] }),
            4 => json!({ self.pick(&["<", "<=", ">", ">="]): [number(), number()] }),
            5 => json!({ self.pick(&["<", "<=", ">", ">="]): [any(), any()] }),
            6 => json!({ self.pick(&["<", "<="]): [number(), number(), number()] }),
            7 => {
                let operator = self.pick(&["and", "or"]);
                json!({ operator: self.several(1, 3, || self.condition(depth, scope)) })
            }
            8 => json!({ self.pick(&["!", "!!"]): [any()] }),
            9 => json!({ "!": self.condition(depth, scope) }),
            10 => json!({ "in": [any(), if self.one_in(2) { list() } else { text() }] }),
            11 => {
                json!({ self.pick(&["starts_with", "ends_with"]): [self.piece(depth, scope), self.piece(depth, scope)] })
            }
            12 => self.sem_ver(),
            13 => {
                let operator = self.pick(&["all", "some", "none"]);
                json!({ operator: [list(), self.condition(depth, Scope::Item)] })
            }
            _ if scope == Scope::Context && self.one_in(2) => {
                json!({ "$ref": self.pick(&["shared-1", "shared-2", "shared.3 (*)"]) })
            }
            // The present is later than the first time and earlier than the second.
            _ => self.pick(&[
                json!({ ">": [{ "var": "$flagd.timestamp" }, 1_500_000_000] }),
                json!({ "<": [4_000_000_000_u32, { "var": "$flagd.timestamp" }] }),
                json!({ "===": [{ "%": [{ "var": ["$flagd.timestamp"] }, 1] }, 0] }),
            ]),
        }
    }

    /// The operands that the schema allows for `starts_with`: a text or a rule.
    fn piece(&self, depth: u32, scope: Scope) -> Value {
        if self.one_in(3) {
            json!(self.word())
        } else if self.one_in(2) {
            self.var(scope)
        } else {
            self.text(depth.max(1), scope)
        }
    }

    fn sem_ver(&self) -> Value {
        let version = || {
            if self.one_in(3) {
                json!(self.pick(VERSIONS))
            } else {
                json!({ "var": self.pick(&["version", "release", "minimum"]) })
            }
        };
        let operator = self.pick(&["=", "!=", "<", "<=", ">", ">=", "^", "~"]);
        json!({ "sem_ver": [version(), operator, version()] })
    }

    fn number(&self, depth: u32, scope: Scope) -> Value {
        if depth == 0 || self.one_in(4) {
            return if self.one_in(2) {
                self.plain_number()
            } else {
                self.var(scope)
            };
        }
        let depth = depth - 1;
        let number = || self.mostly(|| self.number(depth, scope), depth, scope);
        match self.rng.roll(7) {
            0 => json!({ "+": self.several(1, 3, number) }),
            1 => json!({ "-": self.several(1, 2, number) }),
            2 => json!({ "*": self.several(2, 3, number) }),
            3 => json!({ "/": [number(), number()] }),
            4 => json!({ "%": [number(), number()] }),
            5 => json!({ self.pick(&["min", "max"]): self.several(1, 3, number) }),
            _ => json!({ "reduce": [
                self.list(depth, scope),
                { self.pick(&["+", "-", "*", "max"]): [{ "var": "current" }, { "var": "accumulator" }] },
                self.plain_number(),
            ] }),
        }
    }

    fn text(&self, depth: u32, scope: Scope) -> Value {
        if depth == 0 || self.one_in(4) {
            return if self.one_in(2) {
                json!(self.word())
            } else {
                self.var(scope)
            };
        }
        let depth = depth - 1;
        let text = || self.mostly(|| self.text(depth, scope), depth, scope);
        let number = || self.mostly(|| json!(i64::from(self.rng.roll(9)) - 4), depth, scope);
        match self.rng.roll(4) {
            0 => json!({ "cat": self.several(1, 3, || self.any(depth, scope)) }),
            1 => json!({ "cat": self.several(1, 3, text) }),
            2 => json!({ "substr": [text(), number()] }),
            _ => json!({ "substr": [text(), number(), number()] }),
        }
    }

    fn list(&self, depth: u32, scope: Scope) -> Value {
        if depth == 0 || self.one_in(4) {
            return match self.rng.roll(3) {
                0 => Value::Array(self.several(0, 3, || self.scalar())),
                1 => {
                    json!({ "var": self.pick(&["tags", "nums", "items", "user.roles", "words"]) })
                }
                _ => self.var(scope),
            };
        }
        let depth = depth - 1;
        let list = || self.mostly(|| self.list(depth, scope), depth, scope);
        match self.rng.roll(7) {
            0 => json!({ "map": [list(), self.any(depth, Scope::Item)] }),
            1 => json!({ "filter": [list(), self.condition(depth, Scope::Item)] }),
            2 => json!({ "merge": self.several(1, 3, || self.any(depth, scope)) }),
            3 => json!({ "reduce": [list(), self.any(depth, Scope::Reduction), self.literal()] }),
            4 => {
                let names = self.several(1, 3, || json!(self.pick(UNTYPED_ATTRIBUTES)));
                json!({ "missing": names })
            }
            5 => {
                let names = self.several(1, 3, || json!(self.pick(UNTYPED_ATTRIBUTES)));
                json!({ "missing_some": [self.rng.roll(4), names] })
            }
            _ => Value::Array(self.several(1, 2, || self.any(depth, scope))),
        }
    }

    fn choice(&self, depth: u32, scope: Scope) -> Value {
        let depth = depth.saturating_sub(1);
        let any = || self.any(depth, scope);
        match self.rng.roll(4) {
            0 => json!({ "if": self.several(1, 5, any) }),
            1 => json!({ "if": [self.condition(depth, scope), any(), any()] }),
            2 => json!({ "or": self.several(1, 3, any) }),
            _ => json!({ "and": self.several(1, 3, any) }),
        }
    }

    // Portable expressions, which every engine evaluates alike, around `fractional`.

    fn portable_condition(&self, depth: u32) -> Value {
        match self.rng.roll(if depth == 0 { 6 } else { 8 }) {
            0 => json!({ "in": [{ "var": "plan" }, ["gold", "beta"]] }),
            1 => json!({ "==": [{ "var": self.pick(TEXT_ATTRIBUTES) }, self.word()] }),
            2 => json!({ ">=": [{ "var": "age" }, self.rng.roll(40)] }),
            3 => {
                json!({ self.pick(&["starts_with", "ends_with"]): [{ "var": "email" }, self.pick(&["a", "@b.c", "z"])] })
            }
            4 => json!({ "sem_ver": [{ "var": "release" }, self.pick(&["<", "^", "="]), "1.2.3"] }),
            5 => json!({ "!": [{ "var": "country" }] }),
            6 => {
                json!({ self.pick(&["and", "or"]): self.several(1, 3, || self.portable_condition(depth - 1)) })
            }
            _ => json!({ "$ref": self.pick(&["shared-1", "shared-2", "shared.3 (*)"]) }),
        }
    }

    fn split(&self, names: &[&'static str]) -> Value {
        let name = || json!(self.pick(names));
        match self.rng.roll(6) {
            0 => json!({ "if": [self.portable_condition(1), self.fractional(names, 1), name()] }),
            1 => json!({ "if": [self.portable_condition(1), name(), self.fractional(names, 1)] }),
            2 => json!({ "if": [{ "===": [self.fractional(names, 0), name()] }, name(), name()] }),
            _ => self.fractional(names, 1),
        }
    }

    fn fractional(&self, names: &[&'static str], depth: u32) -> Value {
        let mut arguments = self.several(1, 4, || self.bucket(names, depth));
        if self.one_in(2) {
            arguments.insert(0, self.bucketing());
        }
        json!({ "fractional": arguments })
    }

    /// The expression that replaces flag key and targeting key in the hash.
    fn bucketing(&self) -> Value {
        match self.rng.roll(6) {
            0 => json!({ "var": self.pick(TEXT_ATTRIBUTES) }),
            1 => json!({ "cat": [{ "var": "$flagd.flagKey" }, { "var": "email" }] }),
            2 => {
                json!({ "if": [self.portable_condition(0), { "var": "email" }, { "var": "bucket" }] })
            }
            3 => json!({ "var": "targetingKey" }),
            _ => json!({ "var": "bucket" }),
        }
    }

    /// A variant, usually with a weight.
    fn bucket(&self, names: &[&'static str], depth: u32) -> Value {
        let variant = match self.rng.roll(9) {
            0 if depth > 0 => self.fractional(names, depth - 1),
            1 => json!({ "if": [self.portable_condition(0), self.pick(names), self.pick(names)] }),
            2 => json!({ "var": "plan" }),
            3 => self.pick(&[json!(true), json!(false), json!(1), json!(0), Value::Null]),
            _ => json!(self.pick(names)),
        };
        let weight = match self.rng.roll(12) {
            0 | 1 => return json!([variant]),
            2 => json!({ "var": "weight" }),
            3 => json!({ "-": [100, { "var": "age" }] }),
            4 => json!({ "if": [self.portable_condition(0), self.rng.roll(100), 1] }),
            5 => json!(0),
            6 if self.one_in(3) => json!(i32::MAX),
            7 => json!(self.rng.roll(1_000_000)),
            _ => json!(self.rng.roll(101)),
        };
        json!([variant, weight])
    }

    /// Generates the attributes of a caller.
    pub fn context(&self) -> Value {
        let mut context = Map::new();
        let mut set = |name: &str, value: Value| context.insert(name.to_owned(), value);
        if !self.one_in(8) {
            set("targetingKey", self.targeting_key());
        }
        for name in TEXT_ATTRIBUTES {
            if !self.one_in(6) {
                set(name, self.text_attribute());
            }
        }
        set("age", json!(self.rng.roll(130)));
        set("release", json!(self.pick(VERSIONS)));
        if self.subject == Subject::Operators {
            self.untyped_attributes(&mut set);
        } else {
            set("bucket", self.bucketing_value());
            if !self.one_in(5) {
                set("weight", self.weight());
            }
        }
        if self.one_in(10) {
            set("$flagd", json!({ "flagKey": "not this", "timestamp": 1 }));
        }
        context.into()
    }

    fn targeting_key(&self) -> Value {
        let number = self.rng.roll(100_000);
        match (self.subject, self.rng.roll(12)) {
            (_, 0) => json!(""),
            (Subject::FractionalV3, 1 | 2) => json!(format!("käse-日本-😀-{number}")),
            (_, 3) => json!("u".repeat(self.rng.roll(80) as usize + 1)),
            _ => json!(format!("user-{number}")),
        }
    }

    fn text_attribute(&self) -> Value {
        let number = self.rng.roll(1_000);
        match self.rng.roll(4) {
            0 => json!(format!("a{number}@b.c")),
            1 => json!("gold"),
            _ => json!(self.word()),
        }
    }

    fn weight(&self) -> Value {
        self.pick(&[
            json!(0),
            json!(1),
            json!(10),
            json!(50),
            json!(-5),
            json!(2.0),
            json!(1.5),
            json!("10"),
            json!(true),
            Value::Null,
            json!(i32::MAX),
            json!(3_000_000_000_u32),
            json!([1]),
        ])
    }

    /// A bucketing value: any value for CBOR, otherwise usually a text.
    fn bucketing_value(&self) -> Value {
        if self.subject == Subject::FractionalV2 || self.one_in(3) {
            return match self.rng.roll(10) {
                0 => self.weight(),
                1 => json!(["a", 1]),
                _ => json!(format!("bucket {}", self.rng.roll(100_000))),
            };
        }
        match self.rng.roll(8) {
            0 => {
                json!({ "zz": self.cbor_number(), "a": [self.cbor_number()], "": null, "b": "é", "aa": {} })
            }
            1 => {
                json!({ "id": self.cbor_number(), "käse": true, "much longer than twenty-three bytes": [[]] })
            }
            2 => json!("x".repeat(self.rng.roll(300) as usize)),
            3 => json!(self.one_in(2)),
            4 => json!(format!("😀{}", self.rng.roll(1_000))),
            _ => self.cbor_number(),
        }
    }

    /// Numbers on both sides of each boundary of the CBOR encoding.
    fn cbor_number(&self) -> Value {
        self.pick(&[
            json!(0),
            json!(-1),
            json!(23),
            json!(24),
            json!(-24),
            json!(-25),
            json!(255),
            json!(256),
            json!(65_535),
            json!(65_536),
            json!(-65_537),
            json!(u32::MAX),
            json!(4_294_967_296_u64),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(9_007_199_254_740_993_u64),
            json!(2.0),
            json!(-0.0),
            json!(1e15),
            json!(1e16),
            json!(1.5),
            json!(0.1),
            json!(-4.1),
            json!(65_504.5),
            json!(3.402_823_5e38),
            json!(1e300),
            json!(5.9e-8),
            json!(5.960_464_477_539_063e-8),
            json!(0.000_061_035_156_25),
            json!(1.401_298_464_324_817e-45),
            json!(5e-324),
            json!(18_446_744_073_709_551_616.0),
            json!(9.3e18),
            json!(-9.3e18),
            json!(0.333_251_953_125),
        ])
    }

    fn untyped_attributes(&self, set: &mut impl FnMut(&str, Value) -> Option<Value>) {
        let usual = |name: &str| {
            match name {
            "name" | "text" => json!(self.word()),
            "score" | "count" => self.plain_number(),
            "tags" | "words" => Value::Array(self.several(0, 4, || json!(self.word()))),
            "nums" => Value::Array(self.several(0, 4, || self.plain_number())),
            "items" => Value::Array(self.several(0, 3, || {
                json!({ "x": self.scalar(), "n": self.plain_number(), "y": { "z": self.scalar() } })
            })),
            "user" => json!({ "email": self.word(), "age": self.plain_number(), "roles": ["admin", self.word()] }),
            "flag" => json!(self.one_in(2)),
            "version" | "minimum" => json!(if self.one_in(2) { self.pick(VERSIONS) } else { self.pick(ODD_VERSIONS) }),
            _ => Value::Null,
        }
        };
        for name in [
            "name", "text", "score", "count", "tags", "words", "nums", "items", "user", "flag",
            "version", "minimum", "nothing", "0",
        ] {
            match self.rng.roll(8) {
                0 => {}
                1 => {
                    set(name, self.literal());
                }
                _ => {
                    set(name, usual(name));
                }
            }
        }
    }
}

/// Smaller versions of a value: one part removed, or replaced by a part of itself. A failing case is reduced with
/// these.
pub fn smaller_versions(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => {
            found.extend(items.iter().cloned());
            for (place, item) in items.iter().enumerate() {
                let mut fewer = items.clone();
                fewer.remove(place);
                found.push(fewer.into());
                for item in smaller_versions(item) {
                    let mut items = items.clone();
                    items[place] = item;
                    found.push(items.into());
                }
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Value::Array(items) = value {
                    found.extend(items.iter().cloned());
                } else {
                    found.push(value.clone());
                }
                let mut fewer = fields.clone();
                fewer.shift_remove(name);
                found.push(fewer.into());
                for value in smaller_versions(value) {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), value);
                    found.push(fields.into());
                }
            }
        }
    }
    found
}
