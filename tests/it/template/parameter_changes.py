"""Prints the resources that a change of each parameter of a template replaces, creates or deletes.

A resource is replaced if a property that CloudFormation can only set at creation depends on the parameter: the value
refers to it, or a condition selects the value. The resource schemas in cfn-lint list these properties. A resource is
created or deleted if its own condition depends on the parameter. `DeployRevision` is left out: it only publishes
versions. Run with the Python of .tools/sam in the folder of the project. Reads a JSON list of templates as text from
standard input, and prints a JSON list with an object for each of them.
"""

import json
import re
import sys

sys.path.insert(0, "scripts")

import profiles  # noqa: E402
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # noqa: E402
from samcli.yamlhelper import yaml_parse  # noqa: E402

REGION = "us-east-1"
# Resources without data, which may be replaced at any time: permissions of Lambda, and resources whose logical id SAM
# derives from their content.
REPLACEABLE = re.compile(r"(Permission|(Version|Layer)[0-9a-f]{10}|ApiGatewayDefaultStage)")


def changes_of(text):
    """The resources that are replaced, and those that exist or not, by parameter."""
    template = profiles.transform(yaml_parse(text), {}, REGION)
    parameters = set(template["Parameters"]) - {"DeployRevision"}
    conditions = template["Conditions"]

    def references(value):
        """The parameters on which a value depends, by reference or by condition."""
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
        """The values at a path of a schema. `*` in the path stands for every element of a list."""
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
        if REPLACEABLE.search(name):
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
    return changes


print(json.dumps([changes_of(text) for text in json.load(sys.stdin)]))
