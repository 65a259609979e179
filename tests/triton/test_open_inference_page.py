"""docs/open-inference.md: its examples run."""

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.servers import ROOT, Forked, ready_address

pytestmark = pytest.mark.triton

PAGE = (ROOT / "docs" / "open-inference.md").read_text()


def blocks(language: str) -> list[str]:
    """Returns the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


TRITON, KSERVE = blocks("python")
*_, CURL, PERF_ANALYZER = blocks("sh")


@pytest.fixture(scope="module")
def served(iris_path) -> Iterator[Forked]:
    """A server with the name and the ports of the model that `make serve` serves, at free ports."""
    with Forked(["serve", "-m", str(iris_path), "--model-name", "iris", "-p", "0", "--http-port", "0"]) as process:
        yield process


def output_of(code: str, process: Forked) -> str:
    """Returns what an example prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code.replace("localhost:50051", ready_address(process)), {})  # noqa: S102
    return output.getvalue()


def test_tritonclient(served):
    """The code prints the output on the page."""
    assert output_of(TRITON, served) == blocks("text")[0]


def test_curl(served):
    """The request for HTTP gets the answer on the page."""
    ready_address(served)
    url = served.wait_for(r"HTTP on http://(\S+?)[;,\s]").group(1)
    command = CURL.replace("curl ", "curl -s --max-time 30 ").replace("localhost:8080", url)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    (answer,) = blocks("json")
    assert json.loads(done.stdout) == json.loads(answer)
