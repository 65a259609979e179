"""docs/flight.md: its examples run, one after the other, against a server of the example model."""

import contextlib
import io
import re

import pytest

from tests.support.servers import ROOT, Forked, ready_address

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "flight.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PRINTED = re.findall(r"^It prints `([^`]*)`", PAGE, re.MULTILINE)


def test_the_examples(iris_path):
    """pyarrow's client, the Python client and a POST print what the page says; the last two print the same."""
    with Forked(["serve", "-m", str(iris_path), "--model-name", "iris", "-p", "0", "--http-port", "0"]) as process:
        address, url = ready_address(process), process.wait_for(r"HTTP on (http://\S+?);")[1]
        names: dict[str, object] = {}
        output = io.StringIO()
        for code in BLOCKS:
            here = code.replace("localhost:50051", address).replace("http://localhost:8080", url)
            with contextlib.redirect_stdout(output):
                exec(here, names)  # noqa: S102
    assert output.getvalue().splitlines() == [*PRINTED, PRINTED[-1]]
