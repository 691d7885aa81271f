"""What a change of each parameter of template.yaml replaces, creates or deletes, as JSON.

Properties that CloudFormation can only set at creation are those of the resource schemas that cfn-lint brings. A
parameter reaches one by a reference, or by a condition that decides about it; and a condition of a resource, or of all
its properties, decides whether the resource exists. `DeployRevision` is left out: it makes versions and nothing else.
Run with the Python of .tools/sam in the folder of the project; reads the template from standard input.
"""

import json
import re
import sys

sys.path.insert(0, "scripts")

import profiles  # noqa: E402
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # noqa: E402
from samcli.yamlhelper import yaml_parse  # noqa: E402

REGION = "us-east-1"
# An identity that is the same whatever its properties say, or one that nobody misses: a permission or an alias of
# Lambda, and what SAM names after what it contains.
PASSING = re.compile(r"(Permission|(Version|Layer)[0-9a-f]{10}|ApiGatewayDefaultStage)")
template = profiles.transform(yaml_parse(sys.stdin.read()), {}, REGION)
parameters = set(template["Parameters"]) - {"DeployRevision"}
conditions = template["Conditions"]


def references(value):
    """Parameters that decide what a value is, by reference or by condition."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, of in value.items():
        if key == "Ref":
            found |= {of} & parameters
        elif key == "Fn::Sub":
            text = of if isinstance(of, str) else of[0]
            own = set() if isinstance(of, str) else set(of[1])
            found |= (set(re.findall(r"\$\{([A-Za-z0-9]+)\}", text)) - own) & parameters
            found |= set() if isinstance(of, str) else references(of[1])
        elif key == "Condition" and isinstance(of, str):
            found |= references(conditions[of])
        elif key == "Fn::If":
            found |= references(conditions[of[0]]) | references(of[1:])
        else:
            found |= references(of)
    return found


def properties_at(value, path):
    """What stands at a path of a schema, in a list at each of its elements."""
    if not path:
        return [value]
    if isinstance(value, list):
        return [it for one in value for it in properties_at(one, path[1:] if path[0] == "*" else path)]
    if not isinstance(value, dict):
        return []
    if "Fn::If" in value:
        return [it for one in value["Fn::If"][1:] for it in properties_at(one, path)] + [
            {"Condition": value["Fn::If"][0]}
        ]
    return properties_at(value[path[0]], path[1:]) if path[0] in value else []


changes = {}
for name, resource in template["Resources"].items():
    if PASSING.search(name):
        continue
    for parameter in references({"Condition": resource["Condition"]} if "Condition" in resource else {}):
        changes.setdefault(parameter, {}).setdefault("exists", []).append(name)
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource["Type"]).schema
    for pointer in schema.get("createOnlyProperties", []):
        path = pointer.removeprefix("/properties/").split("/")
        for value in properties_at(resource.get("Properties", {}), path):
            for parameter in references(value):
                replaced = changes.setdefault(parameter, {}).setdefault("replaced", [])
                if name not in replaced:
                    replaced.append(name)
print(json.dumps(changes, indent=1, sort_keys=True))
