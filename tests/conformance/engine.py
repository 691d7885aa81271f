"""Evaluates flags with flagd's Python engine (`fractional` hashes CBOR: "v3").

Reads one batch per line as JSON, and writes one line per batch in the same order:
  {"flags": <a flagd file>, "cases": [{"key", "context"}]}
    -> {"answers": [{"value"?, "variant"?, "reason", "errorCode"?, "unknownVariant"?, "metadata"?}]}
The result of a batch that fails is {"failure": "why"}.
"""

import json
import logging
import re
import sys
import traceback

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

UNKNOWN_VARIANT = re.compile(r"Resolved variant (.*) not in variants config\.", re.DOTALL)


def resolver(core, flag):
    """The method that resolves flags of this type."""
    one = next(iter(flag["variants"].values()))
    if isinstance(one, bool):
        return core.resolve_boolean_value
    if isinstance(one, str):
        return core.resolve_string_value
    if isinstance(one, (int, float)):
        return core.resolve_float_value
    return core.resolve_object_value


def resolve(core, flag, key, context):
    targeting_key = context.pop("targetingKey", None)
    try:
        details = resolver(core, flag)(key, None, EvaluationContext(targeting_key, context))
    except OpenFeatureError as error:
        unknown = UNKNOWN_VARIANT.fullmatch(error.error_message or "")
        return {
            "reason": "ERROR",
            "errorCode": error.error_code.value,
            **({"unknownVariant": unknown[1]} if unknown else {}),
        }
    except Exception:  # The SDK reports every other error as GENERAL.
        return {"reason": "ERROR", "errorCode": "GENERAL"}
    answer = {
        "value": details.value,
        "variant": details.variant,
        "reason": details.reason.value,
        "metadata": dict(details.flag_metadata),
    }
    return {name: value for name, value in answer.items() if value is not None}


def answer(batch):
    core = FlagdCore()
    # As text, because the engine modifies its input.
    core.set_flags(json.dumps(batch["flags"]))
    flags = batch["flags"]["flags"]
    return [resolve(core, flags[one["key"]], one["key"], one["context"]) for one in batch["cases"]]


def main():
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        try:
            answered = {"answers": answer(json.loads(line))}
        except Exception:
            answered = {"failure": traceback.format_exc()}
        print(json.dumps(answered), flush=True)


main()
