"""Transforms template.yaml as CloudFormation does and lints the result, for many sets of parameters.

Linters do not apply the transform, and `sam validate` checks one set of parameters: neither notices a reference to a
resource that another parameter leaves out. Therefore SAM's own translator transforms the template for each profile
below, the conditions are evaluated, and cfn-lint checks the result for cycles, undefined references and unknown
properties.

The profiles cover every pair of values of two parameters (pairwise testing): 25 runs instead of a hundred thousand. A
mistake that only three values together reveal needs a condition that names three parameters.

scripts/check-template runs this with the Python of .tools/sam. An optional argument is a folder that keeps the results.
"""

import collections
import concurrent.futures
import itertools
import json
import logging
import pathlib
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
# Parameters that a choice requires, and values that differ from the defaults.
REQUIRED_WITH = {
    ("DatabaseMode", "external"): {
        "ExternalDatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:db-AbCdEf",
        "ExternalDatabaseCidr": "10.30.4.0/24",
    },
    # Not with EgressMode endpoint, which a rule of the template rejects.
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
# DependsOn that repeats a reference (W3005), and defaults that the Rules of the template rule out (W1030).
EXPECTED_FINDINGS = ["W2001", "W7001", "W3005", "W1030"]
# CloudFormation rejects a template that declares more than 500 resources, whether their conditions hold or not. A route
# is one resource (a permission), a function with a canary about ten. The headroom makes this check fail before a
# deployment does.
ALLOWED_RESOURCES = 500
HEADROOM = 50


def profiles():
    """A small set of profiles that covers every pair of values of two parameters."""
    # Parameters with many values first: they determine how many profiles are needed.
    names = sorted(CHOICES, key=lambda name: -len(CHOICES[name]))
    missing = {
        ((one, a), (two, b))
        for one, two in itertools.combinations(names, 2)
        for a in CHOICES[one]
        for b in CHOICES[two]
    }
    found = []
    while missing:
        profile = {}
        for name in names:
            # The value that covers most missing pairs with those chosen before, then the one that most pairs lack.
            profile[name] = max(
                CHOICES[name],
                key=lambda value: (
                    sum((chosen, (name, value)) in missing for chosen in profile.items()),
                    sum((name, value) in pair for pair in missing),
                ),
            )
        missing -= set(itertools.combinations(profile.items(), 2))
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
        name: str(of["Default"]) for name, of in template["Parameters"].items() if "Default" in of
    }
    session = Session(region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
    translator = Translator({}, Parser(), boto_session=session)
    return json.loads(json.dumps(translator.translate(template, {**defaults, **parameters})))


class Evaluated:
    """A transformed template with its conditions evaluated."""

    def __init__(self, template, parameters, region):
        self.template = template
        self.values = {
            **{name: of.get("Default") for name, of in template["Parameters"].items()},
            **parameters,
            "AWS::Region": region,
        }

    def holds(self, name):
        return self.truth(self.template["Conditions"][name])

    def truth(self, condition):
        ((operator, of),) = condition.items()
        if operator == "Condition":
            return self.holds(of)
        if operator == "Fn::Not":
            return not self.truth(of[0])
        if operator == "Fn::And":
            return all(map(self.truth, of))
        if operator == "Fn::Or":
            return any(map(self.truth, of))
        assert operator == "Fn::Equals", operator
        left, right = (self.values[it["Ref"]] if isinstance(it, dict) else it for it in of)
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
            key: self.resolve({part: of for part, of in it.items() if part != "Condition"})
            for key, it in kept.items()
        }

    def document(self):
        chosen = {
            name: {**of, **({"Default": self.values[name]} if name in self.values else {})}
            for name, of in self.template["Parameters"].items()
        }
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Parameters": chosen,
            "Mappings": self.template["Mappings"],
            "Resources": self.section("Resources"),
            "Outputs": self.section("Outputs"),
        }


def check(job):
    """Checks one profile: its name, the number of resources, the declared resources, and the findings."""
    number, profile, folder = job
    region = profile["AWS::Region"]
    parameters = {name: value for name, value in profile.items() if name != "AWS::Region"}
    for choice, more in REQUIRED_WITH.items():
        if choice in profile.items():
            parameters.update(more)
    text = pathlib.Path("template.yaml").read_text()
    transformed = transform(yaml_parse(text), parameters, region)
    document = Evaluated(transformed, parameters, region).document()
    path = pathlib.Path(folder) / f"{number:02}.json"
    path.write_text(json.dumps(document, indent=1))
    config = ManualArgs(ignore_checks=EXPECTED_FINDINGS, regions=[region])
    findings = [
        f"{'/'.join(map(str, it.path or []))}: {it.rule.id} {it.message[:160]}"
        for it in lint_file(path, config)
    ]
    # SAM attaches this permission to roles that it generates. With it, Lambda recreates log groups after the stack is
    # deleted, and a new stack of the same name fails.
    findings += [
        f"Resources/{id}: may create log groups"
        for id, it in document["Resources"].items()
        if it["Type"] in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy")
        and any(text in json.dumps(it) for text in ("logs:CreateLogGroup", "service-role/AWSLambda"))
    ]
    name = ", ".join(f"{key}={value or '(none)'}" for key, value in profile.items())
    return name, len(document["Resources"]), transformed["Resources"], findings


def main():
    with tempfile.TemporaryDirectory() as temporary:
        folder = sys.argv[1] if len(sys.argv) > 1 else temporary
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        jobs = [(number, profile, folder) for number, profile in enumerate(profiles())]
        with concurrent.futures.ProcessPoolExecutor() as pool:
            results = list(pool.map(check, jobs))
    # Each finding is printed once, with the first profile that has it.
    first_profile = {}
    for name, _, _, findings in results:
        for finding in findings:
            first_profile.setdefault(finding, name)
    for finding, name in first_profile.items():
        print(f"{finding}\n  with {name}")
    sizes = [size for _, size, _, _ in results]
    print(f"{len(results)} profiles of {min(sizes)} to {max(sizes)} resources transformed and linted")
    name, _, declared, _ = max(results, key=lambda it: len(it[2]))
    print(f"the transformed template declares {len(declared)} of {ALLOWED_RESOURCES} resources")
    too_many = len(declared) > ALLOWED_RESOURCES - HEADROOM
    if too_many:
        kinds = collections.Counter(of["Type"] for of in declared.values())
        print(
            f"template.yaml declares {len(declared)} resources; fewer than {HEADROOM} of the"
            f" {ALLOWED_RESOURCES} that CloudFormation allows are left. Move resources into a nested"
            f" stack, or serve several routes by one.\n  with {name}"
        )
        for kind, count in kinds.most_common(5):
            print(f"  {count:4} {kind}")
    return 1 if first_profile or too_many else 0


if __name__ == "__main__":
    sys.exit(main())
