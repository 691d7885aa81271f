"""Transforms template.yaml as CloudFormation does and lints the result, for many sets of parameters.

cfn-lint does not apply the transform, so it does not see the resources that SAM generates, or references to them; `sam
validate` checks one set of parameters. Therefore SAM's own translator transforms the template for each profile below,
and the conditions are evaluated. References of the result must exist and form no cycle. cfn-lint then checks every form
of a resource, that is, every distinct definition that it has in some profile.

The profiles cover every pair of values of two parameters that no rule rejects (pairwise testing): 27 instead of
76,800. They may miss a mistake that needs certain values of three parameters at once.

scripts/check-template runs this with the Python of .tools/sam. An optional argument is a folder that keeps the
linted document.
"""

import collections
import concurrent.futures
import functools
import graphlib
import itertools
import json
import logging
import pathlib
import pickle
import re
import sys
import tempfile

# The translator logs warnings about feature switches that exist only inside AWS.
logging.disable(logging.CRITICAL)

from boto3.session import Session  # noqa: E402
from cfnlint.api import lint_file, ManualArgs  # noqa: E402
from samcli.yamlhelper import yaml_parse  # noqa: E402
from samtranslator.open_api import open_api  # noqa: E402
from samtranslator.parser.parser import Parser  # noqa: E402
from samtranslator.translator.translator import Translator  # noqa: E402

# The translator copies the OpenAPI document of the API three times for each route, which takes 95 % of its time. The
# originals are not used again: without the copies, the result is the same.
open_api._deepcopy = lambda document: document

CHOICES = {
    "CacheMode": ["none", "single", "both-use-single", "both-use-cluster", "cluster"],
    "EgressMode": ["ipv6", "endpoint", "nat"],
    "DatabaseMode": ["rds", "external"],
    "DatabaseRoles": ["one", "moving", "separate"],
    "DatabaseProxy": ["true", "false"],
    "Rollout": ["canary", "all-at-once"],
    "CacheEngine": ["valkey", "redis"],
    "CacheAccess": ["token", "prepare", "switch", "moved", "users"],
    "Stage": ["dev", "production"],
    "ZoneB": ["", "us-east-1b"],
    "ZoneC": ["", "none"],
    "JwtIssuer": ["", "https://issuer.example"],
    "AWS::Region": ["us-east-1", "eu-west-1"],
}
# Parameters set together with a choice: those that it requires, and others, so that their other values are tested too.
SET_WITH = {
    ("DatabaseMode", "external"): {
        "ExternalDatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:db-AbCdEf",
        "ExternalDatabaseCidr": "10.30.4.0/24",
    },
    # Not with EgressMode endpoint: a rule of the template rejects EventBusName there.
    ("EgressMode", "nat"): {
        "EventBusName": "changes",
        "PublishExtension": "true",
        "ConsoleUrl": "https://flags.example.com/flags",
    },
    ("JwtIssuer", "https://issuer.example"): {
        "JwtAudience": "client-1,client-2",
        "ConsoleClientId": "client-2",
        "AlarmEmail": "operator@example.com",
        "ReservedConcurrency": "20",
        "AdminConcurrency": "3",
    },
}
# Expected in a transformed template: parameters (W2001) and mappings (W7001) that the transform has resolved, a
# DependsOn that repeats a reference (W3005), and defaults that the Rules of the template rule out (W1030). Expected in
# a document with all forms of all resources: its size (E1002, E3010), repeated names (E3019), and a second endpoint of
# the same service (E3064). scripts/check-template also lints the source, with all of these rules except W1030, which
# the source ignores too.
EXPECTED_FINDINGS = ["W2001", "W7001", "W3005", "W1030", "E1002", "E3010", "E3019", "E3064"]
# CloudFormation rejects a template that declares more than 500 resources, whether their conditions hold or not. A route
# is one resource (a permission), a function with a canary about ten. The headroom makes this check fail before a
# deployment does.
ALLOWED_RESOURCES = 500
HEADROOM = 50


def is_allowed(profile):
    """Whether the template's rule about DatabaseProxy accepts this; `SET_WITH` satisfies the other rules."""
    has_proxy = profile.get("DatabaseProxy") == "true"
    return not has_proxy or (profile.get("DatabaseRoles") != "one" and profile.get("DatabaseMode") != "external")


def profiles():
    """A small set of profiles that covers every pair of values of two parameters that no rule rejects."""
    # Parameters with many values first: they determine how many profiles are needed.
    names = sorted(CHOICES, key=lambda name: -len(CHOICES[name]))
    missing = {
        frozenset([(one, a), (two, b)])
        for one, two in itertools.combinations(names, 2)
        for a in CHOICES[one]
        for b in CHOICES[two]
        if is_allowed({one: a, two: b})
    }
    found = []
    while missing:
        # Each profile begins with a missing pair, so that the number of missing pairs falls.
        profile = dict(min(missing, key=sorted))
        for name in [name for name in names if name not in profile]:
            # The value that forms most missing pairs with those chosen before, and among equals the one in most missing
            # pairs of all.
            profile[name] = max(
                (value for value in CHOICES[name] if is_allowed({**profile, name: value})),
                key=lambda value: (
                    sum(frozenset([chosen, (name, value)]) in missing for chosen in profile.items()),
                    sum((name, value) in pair for pair in missing),
                ),
            )
        missing -= set(map(frozenset, itertools.combinations(profile.items(), 2)))
        found.append(profile)
    return found


def transform(template, parameters, region):
    """The template after CloudFormation's Serverless transform."""
    for resource in template["Resources"].values():
        # `sam build` and `sam package` replace these paths by S3 addresses, which the translator expects.
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://bucket/key"
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["ContentUri"] = "s3://bucket/key"
    template["Globals"]["Function"].pop("CodeUri", None)
    defaults = {
        name: str(parameter["Default"])
        for name, parameter in template["Parameters"].items()
        if "Default" in parameter
    }
    session = Session(region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
    translator = Translator({}, Parser(), boto_session=session)
    return json.loads(json.dumps(translator.translate(template, {**defaults, **parameters})))


class Evaluated:
    """A transformed template with its conditions evaluated."""

    def __init__(self, template, parameters, region):
        self.template = template
        self.values = {
            **{name: parameter.get("Default") for name, parameter in template["Parameters"].items()},
            **parameters,
            "AWS::Region": region,
        }

    def holds(self, name):
        return self.truth(self.template["Conditions"][name])

    def truth(self, condition):
        ((operator, operands),) = condition.items()
        if operator == "Condition":
            return self.holds(operands)
        if operator == "Fn::Not":
            return not self.truth(operands[0])
        if operator == "Fn::And":
            return all(map(self.truth, operands))
        if operator == "Fn::Or":
            return any(map(self.truth, operands))
        assert operator == "Fn::Equals", operator
        left, right = (self.values[it["Ref"]] if isinstance(it, dict) else it for it in operands)
        return str(left) == str(right)

    def resolve(self, value):
        if isinstance(value, list):
            return [it for it in map(self.resolve, value) if it is not None]
        if not isinstance(value, dict):
            return value
        if value == {"Ref": "AWS::NoValue"}:
            return None
        if set(value) == {"Fn::If"}:
            name, yes, no = value["Fn::If"]
            return self.resolve(yes if self.holds(name) else no)
        pairs = ((name, self.resolve(it)) for name, it in value.items())
        return {name: it for name, it in pairs if it is not None}

    def section(self, name):
        kept = {
            key: it
            for key, it in self.template[name].items()
            if "Condition" not in it or self.holds(it["Condition"])
        }
        return {
            key: self.resolve({part: value for part, value in it.items() if part != "Condition"})
            for key, it in kept.items()
        }

    def document(self):
        chosen = {
            name: {**parameter, **({"Default": self.values[name]} if name in self.values else {})}
            for name, parameter in self.template["Parameters"].items()
        }
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Parameters": chosen,
            "Mappings": self.template["Mappings"],
            "Resources": self.section("Resources"),
            "Outputs": self.section("Outputs"),
        }


def references(value):
    """The names in Ref, Fn::GetAtt and Fn::Sub anywhere in a value."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    if not isinstance(value, dict):
        return
    for name, operand in value.items():
        if name == "Ref":
            yield operand
        elif name == "Fn::GetAtt":
            yield operand.split(".")[0] if isinstance(operand, str) else operand[0]
        elif name == "Fn::Sub":
            text, own = (operand, {}) if isinstance(operand, str) else operand
            names = (it.split(".")[0] for it in re.findall(r"\$\{([^!}][^}]*)\}", text))
            yield from (it for it in names if it not in own)
            yield from references(own)
        else:
            yield from references(operand)


def broken_references(document):
    """References to a resource that this profile leaves out, and cycles."""
    resources = document["Resources"]
    known = {*resources, *document["Parameters"]}
    needs = {}
    for id, resource in {**resources, **document["Outputs"]}.items():
        depends_on = resource.get("DependsOn", [])
        names = {*references(resource), *([depends_on] if isinstance(depends_on, str) else depends_on)}
        for name in sorted(names - known):
            if not name.startswith("AWS::"):
                yield f"{id}: refers to {name}, which does not exist"
        needs[id] = names & set(resources)
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as cycle:
        yield f"cycle: {', '.join(cycle.args[1])}"


@functools.cache
def template():
    """The template, pickled: the transform changes it, and parsing it takes twice as long as the transform."""
    return pickle.dumps(yaml_parse(pathlib.Path("template.yaml").read_text()))


def evaluate(profile):
    """The transformed template of a profile, and the same with its conditions evaluated."""
    region = profile["AWS::Region"]
    parameters = {name: value for name, value in profile.items() if name != "AWS::Region"}
    for choice, more in SET_WITH.items():
        if choice in profile.items():
            parameters.update(more)
    transformed = transform(pickle.loads(template()), parameters, region)
    return transformed, Evaluated(transformed, parameters, region).document()


def findings_of(document):
    """What is wrong with the resources of one profile, besides what cfn-lint finds."""
    yield from broken_references(document)
    # SAM attaches this permission to roles that it generates. With it, Lambda recreates log groups after the stack is
    # deleted, and a new stack of the same name fails.
    for id, resource in document["Resources"].items():
        text = json.dumps(resource)
        if resource["Type"] in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy") and (
            "logs:CreateLogGroup" in text or "service-role/AWSLambda" in text
        ):
            yield f"{id}: may create log groups"


def all_forms(documents):
    """A document with every form that a resource or an output has in some profile.

    A form that several profiles share is in the document once, so cfn-lint checks it once.
    """
    whole = {**documents[0], "Resources": {}, "Outputs": {}}
    for section in ("Resources", "Outputs"):
        forms = {}
        for document in documents:
            for id, form in document[section].items():
                known = forms.setdefault(id, [])
                if form not in known:
                    known.append(form)
        for id, known in forms.items():
            # References find the first form.
            names = [id, *(f"{id}Form{number}" for number in range(1, len(known)))]
            whole[section].update(zip(names, known))
    return whole


def main():
    found = profiles()
    with concurrent.futures.ProcessPoolExecutor() as pool:
        evaluated = list(pool.map(evaluate, found))
    # Each finding is printed once, with the first profile that has it.
    first_profile = {}
    for profile, (_, document) in zip(found, evaluated):
        name = ", ".join(f"{key}={value or '(empty)'}" for key, value in profile.items())
        for finding in findings_of(document):
            first_profile.setdefault(finding, name)
    for finding, name in first_profile.items():
        print(f"{finding}\n  with {name}")

    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "profiles.json"
        path.write_text(json.dumps(all_forms([document for _, document in evaluated])))
        config = ManualArgs(ignore_checks=EXPECTED_FINDINGS, regions=CHOICES["AWS::Region"])
        wrong_forms = {
            f"{'/'.join(map(str, it.path or []))}: {it.rule.id} {it.message[:160]}"
            for it in lint_file(path, config)
        }
    print(*sorted(wrong_forms), sep="\n", end="\n" * bool(wrong_forms))

    sizes = [len(document["Resources"]) for _, document in evaluated]
    print(f"{len(found)} profiles of {min(sizes)} to {max(sizes)} resources transformed and linted")
    declared = max((transformed["Resources"] for transformed, _ in evaluated), key=len)
    print(f"the transformed template declares {len(declared)} of {ALLOWED_RESOURCES} resources")
    too_many = len(declared) > ALLOWED_RESOURCES - HEADROOM
    if too_many:
        kinds = collections.Counter(resource["Type"] for resource in declared.values())
        print(
            f"template.yaml declares {len(declared)} resources; fewer than {HEADROOM} of the"
            f" {ALLOWED_RESOURCES} that CloudFormation allows are left. Move resources into a nested"
            f" stack, or replace several routes by one with {{proxy+}}."
        )
        for kind, count in kinds.most_common(5):
            print(f"  {count:4} {kind}")
    return 1 if first_profile or wrong_forms or too_many else 0


if __name__ == "__main__":
    sys.exit(main())
