"""Transforms template.yaml as CloudFormation would, and lints what comes out, for many parameters.

Linters do not transform, and `sam validate` knows one set of parameters: neither sees a resource
that refers to one which another choice has left out. So each profile below is transformed with
SAM's own translator, its conditions are decided, and cfn-lint looks at the result: cycles,
undefined references, unknown properties. In the profiles every two values of two parameters meet;
that is 15 runs or so instead of 1,920, and a mistake that needs three parameters would have to name three
in one condition.

Run by scripts/check-template with the Python of .tools/sam. An argument is a folder to keep the
results in.
"""

import collections
import concurrent.futures
import itertools
import json
import logging
import pathlib
import sys
import tempfile

# The translator tells of switches that only AWS has.
logging.disable(logging.CRITICAL)

from boto3.session import Session  # noqa: E402
from cfnlint.api import lint_file, ManualArgs  # noqa: E402
from samcli.yamlhelper import yaml_parse  # noqa: E402
from samtranslator.parser.parser import Parser  # noqa: E402
from samtranslator.translator.translator import Translator  # noqa: E402

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
# What some choices need, and values that the defaults leave out.
TOGETHER = {
    ("DatabaseMode", "external"): {
        "ExternalDatabaseSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:db-AbCdEf",
        "ExternalDatabaseCidr": "10.30.4.0/24",
    },
    ("JwtIssuer", "https://issuer.example"): {
        "JwtAudience": "client-1,client-2",
        "AlarmEmail": "operator@example.com",
        "ReservedConcurrency": "20",
        "AdminConcurrency": "3",
    },
}
# Of a transformed template these are no news: a parameter that the transform has used up (W2001),
# a mapping likewise (W7001), a DependsOn that a reference says again (W3005), and defaults that
# the Rules of the template keep from being used (W1030).
KNOWN = ["W2001", "W7001", "W3005", "W1030"]
# CloudFormation refuses a template that declares more than 500 resources, whether their conditions
# hold or not. A route is one resource (a permission), a function with a canary about ten: the
# headroom is for those who add some and must not find the limit in a deployment.
ALLOWED_RESOURCES = 500
HEADROOM = 50


def profiles():
    """Few choices in which every two values of two parameters meet."""
    names = list(CHOICES)
    missing = {
        ((one, a), (two, b))
        for one, two in itertools.combinations(names, 2)
        for a in CHOICES[one]
        for b in CHOICES[two]
    }
    found = []
    while missing:
        # Of all choices, the one in which most of the missing pairs meet.
        best = max(
            (dict(zip(names, values)) for values in itertools.product(*CHOICES.values())),
            key=lambda it: len(missing & set(itertools.combinations(it.items(), 2))),
        )
        missing -= set(itertools.combinations(best.items(), 2))
        found.append(best)
    return found


def transform(template, parameters, region):
    """What CloudFormation's Serverless transform makes of it."""
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # `sam build` and `sam package` put an address here.
            resource["Properties"]["CodeUri"] = "s3://bucket/key"
    template["Globals"]["Function"].pop("CodeUri", None)
    defaults = {
        name: str(of["Default"]) for name, of in template["Parameters"].items() if "Default" in of
    }
    session = Session(region_name=region, aws_access_key_id="x", aws_secret_access_key="x")
    translator = Translator({}, Parser(), boto_session=session)
    return json.loads(json.dumps(translator.translate(template, {**defaults, **parameters})))


class Decided:
    """A transformed template with its conditions decided."""

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

    def whole(self):
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
    """One profile: its name, what it creates and declares, and the linter's complaints."""
    number, profile, folder = job
    region = profile["AWS::Region"]
    parameters = {name: value for name, value in profile.items() if name != "AWS::Region"}
    for choice, more in TOGETHER.items():
        if choice in profile.items():
            parameters.update(more)
    text = pathlib.Path("template.yaml").read_text()
    transformed = transform(yaml_parse(text), parameters, region)
    whole = Decided(transformed, parameters, region).whole()
    path = pathlib.Path(folder) / f"{number:02}.json"
    path.write_text(json.dumps(whole, indent=1))
    config = ManualArgs(ignore_checks=KNOWN, regions=[region])
    complaints = [
        f"{'/'.join(map(str, it.path or []))}: {it.rule.id} {it.message[:160]}"
        for it in lint_file(path, config)
    ]
    # What SAM attaches to a role that it makes. With it, Lambda brings back log groups that were deleted.
    complaints += [
        f"Resources/{id}: may create log groups"
        for id, it in whole["Resources"].items()
        if it["Type"] in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy")
        and any(text in json.dumps(it) for text in ("logs:CreateLogGroup", "service-role/AWSLambda"))
    ]
    name = ", ".join(f"{key}={value or '(none)'}" for key, value in profile.items())
    return name, len(whole["Resources"]), transformed["Resources"], complaints


def main():
    with tempfile.TemporaryDirectory() as temporary:
        folder = sys.argv[1] if len(sys.argv) > 1 else temporary
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        jobs = [(number, profile, folder) for number, profile in enumerate(profiles())]
        with concurrent.futures.ProcessPoolExecutor() as pool:
            results = list(pool.map(check, jobs))
    # One line for a complaint, with the first profile that it was met in.
    first_met = {}
    for name, _, _, complaints in results:
        for complaint in complaints:
            first_met.setdefault(complaint, name)
    for complaint, name in first_met.items():
        print(f"{complaint}\n  with {name}")
    sizes = [size for _, size, _, _ in results]
    print(f"{len(results)} profiles of {min(sizes)} to {max(sizes)} resources transformed and linted")
    name, _, declared, _ = max(results, key=lambda it: len(it[2]))
    print(f"the transformed template declares {len(declared)} of {ALLOWED_RESOURCES} resources")
    too_many = len(declared) > ALLOWED_RESOURCES - HEADROOM
    if too_many:
        kinds = collections.Counter(of["Type"] for of in declared.values())
        print(
            f"template.yaml: {len(declared)} resources leave fewer than {HEADROOM} of the"
            f" {ALLOWED_RESOURCES} that CloudFormation allows in a template; move some into a nested"
            f" stack or serve several routes by one.\n  with {name}"
        )
        for kind, count in kinds.most_common(5):
            print(f"  {count:4} {kind}")
    return 1 if first_met or too_many else 0


if __name__ == "__main__":
    sys.exit(main())
