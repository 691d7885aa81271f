"""Reads a flag for the user in the first argument."""

import os
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

url = os.environ.get("PENNON_URL", "http://127.0.0.1:9000")
key = os.environ["PENNON_API_KEY"]
user = sys.argv[1] if len(sys.argv) > 1 else "alice"

api.set_provider(OFREPProvider(url, headers_factory=lambda: {"Authorization": f"Bearer {key}"}))
# Without a response, the application continues with its default: off.
is_on = api.get_client().get_boolean_value("new-checkout", False, EvaluationContext(user))
print("on" if is_on else "off")
