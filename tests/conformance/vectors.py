"""Writes vectors.json: rules, contexts, and the results of flagd's engines.

  .tools/flagd-python/bin/python tests/conformance/vectors.py

crates/pennon-eval/tests/vectors.rs checks them without these engines. `from` of a vector names the source of its
result. Operators: "both" if flagd's engines for JavaScript and Python agree, else "jsonlogic", the reference
implementation. `fractional`: "javascript" for its version v2, "python" for v3, because each engine computes only one
version (docs/local-evaluation.md#versions-of-fractional).
"""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

HERE = Path(__file__).parent

VALUES = [None, True, False, 0, 1, -1, 1.5, "", "0", "1", "a", "A", " 5 ", "12abc", [], [1], [1, 2], ["a"]]
PAIRS = [
    (None, None), (None, 0), (None, ""), (None, False), (0, ""), (0, "0"), (1, "1"), (1, True), (0, False),
    (True, "true"), (True, "1"), ("a", "a"), ("a", "b"), ("a", "A"), ("10", "9"), (10, "9"), (1, 1.0), (1, 2),
    (2, 1), (0.1, 0.3), ("", " "), (1, "abc"), ("é", "f"),
]
CONTEXT = {
    "targetingKey": "user-1",
    "name": "alice",
    "email": "alice@example.com",
    "age": 42,
    "nothing": None,
    "empty": "",
    "off": False,
    "zero": 0,
    "nums": [3, 1, 2],
    "words": ["red", "green"],
    "user": {"roles": ["admin", "dev"], "address": {"city": "Bern"}},
    "items": [{"sku": "a", "price": 5}, {"sku": "b", "price": 7.5}],
}
VERSIONS = [
    ("1.2.3", "1.2.3"), ("1.2.3", "1.2.4"), ("1.10.0", "1.9.9"), ("2.0.0", "1.9.9"), ("1.2.3-beta.2", "1.2.3-beta.10"),
    ("1.2.3-beta", "1.2.3"), ("1.2.3-1", "1.2.3-a"), ("1.2.3+one", "1.2.3+two"), ("v1.2.3", "1.2.3"), ("V2.0.0", "2.0.0"),
    ("1", "1.0.0"), ("1.2", "1.2.0"), ("v1", "1.0.0"), (1, "1.0.0"), (1.5, "1.5.0"), ("01.2.3", "1.2.3"), ("1.2.3.4", "1.2.3"),
    ("abc", "1.2.3"), ("", "1.2.3"), (None, "1.2.3"), ("1.x", "1.0.0"),
]


def operators():
    """Rules and contexts for every operator except fractional."""
    for pair, operator in product(PAIRS, ["==", "===", "<", "<="]):
        yield {operator: list(pair)}, {}
    for pair, operator in product(PAIRS[::3], ["!=", "!==", ">", ">="]):
        yield {operator: list(pair)}, {}
    for low, value, high in [(1, 2, 3), (1, 1, 3), (3, 2, 1), (1, 3, 3)]:
        yield {"<": [low, value, high]}, {}
        yield {"<=": [low, value, high]}, {}
    for value in VALUES:
        yield {"if": [{"var": "it"}, "yes", "no"]}, {"it": value}
        yield {"!": [{"var": "it"}]}, {"it": value}
        yield {"!!": [{"var": "it"}]}, {"it": value}
        yield {"cat": ["=", {"var": "it"}]}, {"it": value}
        yield {"cat": ["=", {"+": [{"var": "it"}, 1]}]}, {"it": value}
        yield {"in": [{"var": "it"}, [0, "0", "a", 1.5]]}, {"it": value}
        yield {"in": [{"var": "it"}, "a0A"]}, {"it": value}
        yield {"starts_with": [{"var": "it"}, "a"]}, {"it": value}
        yield {"ends_with": [{"var": "it"}, "a"]}, {"it": value}
        yield {"var": "it"}, {"it": value}
    for name in [
        "name", "age", "nothing", "absent", "nums.1", "nums.9", "nums.-1", "user.address.city", "user.absent.city",
        "name.length", "words.length", "name.0", "items.1.sku", "$flagd.flagKey", "targetingKey", "zero", "off", "empty",
    ]:
        yield {"cat": ["=", {"var": name}]}, CONTEXT
        yield {"var": [name, "otherwise"]}, CONTEXT
    for names in [["name"], ["absent", "name", "nothing"], ["empty", "zero", "off"], ["user.address.city", "user.x"]]:
        yield {"cat": ["=", {"missing": names}]}, CONTEXT
        for least in range(3):
            yield {"cat": ["=", {"missing_some": [least, names]}]}, CONTEXT
    for arguments in [["a"], [True, "a"], [False, "a"], [False, "a", "b"], [False, "a", 0, "b", "c"], ["", "a", [], "b", "c"]]:
        yield {"if": arguments}, {}
    for arguments in [[True, "a"], [0, "a"], ["", 0, "b"], [[], "a"], ["a", "b", False]]:
        yield {"and": arguments}, {}
        yield {"or": arguments}, {}
    for operator in ["+", "-", "*", "/", "%"]:
        for one, other in [(7, 2), (-7, 2), (7, -2), (0.1, 0.2), ("3", "4"), (1e21, 1), (5, 0), ("x", 1), (None, 3), (True, 2)]:
            yield {"cat": ["=", {operator: [one, other]}]}, {}
    for arguments in [["3"], ["-2.5"], [1, 2, 3, "4"]]:
        yield {"cat": ["=", {"+": arguments}]}, {}
    yield {"cat": ["=", {"-": [3]}]}, {}
    for operator, arguments in product(["min", "max"], [[1, 2, 3], [3], [-1, -1.5], ["2", 1]]):
        yield {"cat": ["=", {operator: arguments}]}, {}
    for rule in [
        {"map": [{"var": "nums"}, {"*": [{"var": ""}, 2]}]},
        {"map": [{"var": "items"}, {"var": "sku"}]},
        {"map": [{"var": "absent"}, {"var": ""}]},
        {"map": [{"var": "words"}, {"var": "length"}]},
        {"filter": [{"var": "nums"}, {">": [{"var": ""}, 1]}]},
        {"filter": [{"var": "items"}, {"var": "absent"}]},
        {"reduce": [{"var": "nums"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 10]},
        {"reduce": [{"var": "items"}, {"max": [{"var": "current.price"}, {"var": "accumulator"}]}, 0]},
        {"reduce": [[], {"var": "current"}, "start"]},
        {"merge": [1, [2, [3]], "a", None]},
        {"merge": [{"var": "words"}, {"var": "nums"}]},
        {"cat": ["a", 1, True, None, 1.5, [1, "b"]]},
    ]:
        yield {"cat": ["=", rule]}, CONTEXT
    for operator, (items, test) in product(
        ["all", "some", "none"],
        [("nums", {">": [{"var": ""}, 0]}), ("nums", {">": [{"var": ""}, 2]}), ("absent", True), ("words", {"in": ["z", {"var": ""}]})],
    ):
        yield {operator: [{"var": items}, test]}, CONTEXT
    for operator in ["all", "some", "none"]:
        yield {operator: [[], {"var": ""}]}, {}
    for text, *cut in [
        ("feature", 3), ("feature", -3), ("feature", 1, 3), ("feature", 1, -2), ("feature", -4, 2), ("feature", 9),
        ("feature", -9, 3), ("feature", 0, 0), ("grüße", 2, 2), ("feature", 4, -9),
    ]:
        yield {"cat": ["=", {"substr": [text, *cut]}]}, {}
    for one, other in [("alice", "al"), ("alice", ""), ("Alice", "al"), ("al", "alice"), ("grüße", "grü")]:
        yield {"starts_with": [one, other]}, {}
        yield {"ends_with": [one, other]}, {}
    for (one, other), operator in product(VERSIONS, ["=", "<", ">=", "^", "~"]):
        yield {"sem_ver": [{"var": "one"}, operator, {"var": "other"}]}, {"one": one, "other": other}
    for operator in ["!=", "<=", ">", "==", "", None]:
        yield {"sem_ver": ["1.2.3", operator, "1.2.4"]}, {}
    yield {"if": [{"$ref": "internal"}, "in", "out"]}, CONTEXT
    yield {"if": [{"$ref": "internal"}, "in", "out"]}, {"email": "bob@other.org"}
    yield {}, CONTEXT


SPLIT = [["a", 50], ["b", 30], ["c", 20]]


def splits():
    """Rules and contexts for fractional, in every version."""
    for number in range(40):
        yield {"fractional": SPLIT}, {"targetingKey": f"user-{number}"}
        yield {"fractional": [{"var": "email"}, *SPLIT]}, {"targetingKey": "u", "email": f"{number}@example.com"}
    for number in range(8):
        by = {"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}
        context = {"targetingKey": f"user-{number}", "part": [0, -5, 10, 2.5, "10", True, None, 2147483647][number]}
        yield {"fractional": [by, ["a", 25], ["b", 75]]}, context
        yield {"fractional": [["a"], ["b"], ["c"]]}, context
        yield {"fractional": [["a", 0], ["b", 1]]}, context
        yield {"fractional": [["a", {"var": "part"}], ["b", 10]]}, context
        yield {"fractional": [[True, 1], [False, 1]]}, context
        yield {"fractional": [[None, 1], ["b", 1]]}, context
        yield {"fractional": [["a", 2147483646], ["b", 1]]}, context
        yield {"fractional": [["a", 2147483647], ["b", 1]]}, context
        yield {"fractional": [[{"if": [{"var": "part"}, "a", "b"]}, 1], [{"fractional": [["c"], ["d"]]}, 1]]}, context
    yield {"fractional": SPLIT}, {}
    yield {"fractional": SPLIT}, {"targetingKey": ""}
    yield {"fractional": [{"var": "absent"}, *SPLIT]}, {"targetingKey": "user-1"}
    yield {"fractional": [["a", 0]]}, {"targetingKey": "user-1"}


def cbor():
    """Bucketing values of every type: `fractional` v3 hashes their CBOR encoding, v2 supports only text."""
    numbers = [
        0, 1, 23, 24, 255, 256, 65535, 65536, 4294967295, 4294967296, 2**53 + 1, 2**63 - 1, 2**64 - 1, -1, -24, -25, -256,
        -257, -65537, -(2**63), 2.0, -0.0, 1.5, 0.1, -4.1, 65504.5, 3.4028235e38, 1e300, 5.960464477539063e-08,
        6.103515625e-05, 1e16, 9.3e18, 18446744073709551616.0, 5e-324,
    ]
    texts = ["", "a", "käse", "日本", "😀", "x" * 23, "x" * 24, "x" * 255, "x" * 256]
    rest = [True, False, {}, {"b": 1, "a": 2}, {"bb": 1, "c": 2.0, "a": {"y": None, "x": [1.5, []]}}, {"list": [1, 2.0, "3"]}]
    for value in [*numbers, *texts, *rest]:
        yield {"fractional": [{"var": "by"}, *([f"v{number}", 1] for number in range(64))]}, {"by": value}
    for key in ["käse", "日本", "😀"]:
        yield {"fractional": [[f"v{number}", 1] for number in range(64)]}, {"targetingKey": key}


class Engine:
    def __init__(self, *command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, batch):
        self.process.stdin.write(json.dumps(batch) + "\n")
        self.process.stdin.flush()
        answered = json.loads(self.process.stdout.readline())
        if "failure" in answered:
            sys.exit(f"{answered['failure']} for {batch}")
        return answered["answers"][0]


EVALUATORS = {"internal": {"ends_with": [{"var": "email"}, "@example.com"]}}


def file(rule, names):
    variants = {name: f"value of {name}" for name in names}
    flag = {"state": "ENABLED", "variants": variants, "defaultVariant": "default", "targeting": rule}
    return {"$evaluators": EVALUATORS, "flags": {"flag": flag}}


def vector(rule, context, version, engines):
    names = ["default"]
    for _ in range(2):  # The first pass finds the names that the rule returns.
        answers = [ask(rule, context, names) for ask in engines]
        unknown = [answer["unknownVariant"] for answer in answers if answer.get("unknownVariant")]
        names += sorted(set(unknown) - set(names))
    plain = [{name: answer.get(name) for name in ("variant", "reason", "errorCode")} for answer in answers]
    if len(engines) == 1:
        expected, source = plain[0], {"v2": "javascript", "v3": "python"}[version]
    elif plain[0]["errorCode"] and plain[1]["errorCode"]:
        # One engine fails when it compiles the rule, the other when it evaluates it.
        expected, source = {"reason": "ERROR", "errorCode": "GENERAL"}, "both"
    elif plain[0] == plain[1]:
        expected, source = plain[0], "both"
    else:
        expected, source = plain[2], "jsonlogic"
    found = {name: value for name, value in expected.items() if value is not None}
    return {"fractional": version, "targeting": rule, "context": context, "variants": names, "expected": found, "from": source}


def main():
    node = Engine("node", str(HERE / "engine.mjs"))
    python = Engine(sys.executable, str(HERE / "engine.py"))

    def by(engine, algorithm):
        def ask(rule, context, names):
            return engine.ask({"flags": file(rule, names), "cases": [{"key": "flag", "context": context}], "by": algorithm})

        return ask

    javascript, flagd_python, reference = by(node, "flagd"), by(python, "flagd"), by(node, "jsonlogic")
    vectors = [vector(rule, context, "v3", [javascript, flagd_python, reference]) for rule, context in operators()]
    vectors += [vector(rule, context, "v2", [javascript]) for rule, context in splits()]
    vectors += [vector(rule, context, "v3", [flagd_python]) for rule, context in [*splits(), *cbor()]]
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in vectors)
    text = f'{{"$evaluators": {json.dumps(EVALUATORS)},\n"vectors": [\n{lines}\n]}}\n'
    (HERE / "vectors.json").write_text(text, encoding="utf-8")
    sources = [one["from"] for one in vectors]
    print({source: sources.count(source) for source in sorted(set(sources))})


main()
