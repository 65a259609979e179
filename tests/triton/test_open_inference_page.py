"""docs/open-inference.md: its example runs."""

import contextlib
import io
import re

import pytest

from tests.support.servers import ROOT, Forked, ready_address

PAGE = (ROOT / "docs" / "open-inference.md").read_text()


@pytest.mark.triton
def test_the_example_prints_its_output(iris_path):
    """The command serves the model, and the code prints the output on the page."""
    ((command,),) = [code.splitlines() for code in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)]
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    (expected,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S)
    name, *arguments = command.replace("models/iris", str(iris_path)).split()
    assert name == "mlflow-grpc"
    output = io.StringIO()
    with Forked([*arguments, "-p", "0"]) as process, contextlib.redirect_stdout(output):
        exec(code.replace("localhost:50051", ready_address(process)), {})  # noqa: S102
    assert output.getvalue() == expected
