"""An application that evaluates flags with openfeature-provider-ofrep and prints the results.

The first argument is the job as JSON: {base, headers, evaluations: [{type, key, fallback, context}]}.
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

job = json.loads(sys.argv[1])
api.set_provider(OFREPProvider(job["base"], headers_factory=lambda: job["headers"]))
client = api.get_client()
resolvers = {
    "boolean": client.get_boolean_details,
    "string": client.get_string_details,
    "integer": client.get_integer_details,
    "float": client.get_float_details,
    "object": client.get_object_details,
}

results = []
for wanted in job["evaluations"]:
    attributes = dict(wanted["context"])
    targeting_key = attributes.pop("targetingKey", None)
    context = EvaluationContext(targeting_key, attributes)
    details = resolvers[wanted["type"]](wanted["key"], wanted["fallback"], context)
    results.append(
        {
            "value": details.value,
            "variant": details.variant,
            "reason": details.reason,
            "errorCode": details.error_code,
            "errorMessage": details.error_message,
            "flagMetadata": dict(details.flag_metadata),
        }
    )
print(json.dumps(results, default=str))
