"""Checks recorded calls of `aws` with the AWS CLI's own parser and models, and sends nothing.

Arguments: the names of documents. Each has a folder of its name with a file `calls`, in which each
call is the number of its arguments and the arguments, each ended by a NUL byte. Prints a line for
each problem, which begins with the name of the document.

PyPI has version 1 of the CLI. The documents need version 2, which has a few more commands.
"""

import contextlib
import io
import os
import sys
import zipfile

for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    os.environ[name] = "x"
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/dev/null"

from awscli import clidriver  # noqa: E402
from botocore import validate  # noqa: E402
from botocore.waiter import Waiter  # noqa: E402

# Commands that only version 2 has.
ONLY_IN_VERSION_2 = [("logs", "tail"), ("ec2-instance-connect", "ssh")]


def checked(self, service, operation, parameters, parsed_globals):
    """Validates the parameters of an operation instead of calling it."""
    client = self._session.create_client(service, region_name="us-east-1")
    shape = client.meta.service_model.operation_model(operation).input_shape
    if shape is not None:
        report = validate.ParamValidator().validate(parameters, shape)
        if report.has_errors():
            print(report.generate_report(), file=sys.stderr)
            return 252
    return 0


clidriver.CLIOperationCaller.invoke = checked
Waiter.wait = lambda self, **parameters: None


def calls(path):
    with open(path, "rb") as file:
        parts = file.read().decode().split("\0")[:-1]
    while parts:
        count = int(parts[0])
        yield parts[1 : 1 + count]
        parts = parts[1 + count :]


def main():
    driver = clidriver.create_clidriver()
    archive = os.path.abspath("archive.zip")
    zipfile.ZipFile(archive, "w").close()
    for document in sys.argv[1:]:
        for call in calls(f"{document}/calls"):
            check(driver, archive, document, call)


def check(driver, archive, document, call):
    if tuple(call[:2]) in ONLY_IN_VERSION_2:
        return
    # Files that a command reads do not exist here.
    call = ["x" if it.startswith("file://") else it for it in call]
    call = [f"fileb://{archive}" if it.startswith("fileb://") else it for it in call]
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
            code = driver.main(call)
    except SystemExit as exit:
        code = exit.code
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001
        code = f"{type(error).__name__}: {error}"
    if code != 0:
        # The message is at the end, after several lines about usage.
        why = " ".join(output.getvalue().split())[-300:] or code
        print(f"{document}: aws {' '.join(call)}: {why}")


main()
