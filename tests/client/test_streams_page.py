"""docs/streams.md: its examples run, from the model to the words that it streams."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.support.servers import ROOT, Forked, ready_address

pytestmark = pytest.mark.slow

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "streams.md").read_text(), re.MULTILINE | re.DOTALL)


def run(code: str, folder: Path) -> list[str]:
    """Runs code in a directory; returns the lines that it prints."""
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output):
        exec(code, {"__name__": "__main__"})  # noqa: S102
    return output.getvalue().splitlines()


def test_a_streamed_answer(tmp_path):
    """The model is saved into a directory, the command serves it, and the client prints its words."""
    make_client, call = [text for name, text in BLOCKS if name == "python" and "predict_stream" in text]
    ((command,),) = [text.splitlines() for name, text in BLOCKS if name == "sh"]
    run(make_client, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["words"]
    name, *arguments = command.split()
    assert name == "mlflow-grpc"
    with Forked([*arguments, "-p", "0"], cwd=tmp_path) as process:
        output = run(call.replace("localhost:50056", ready_address(process)), tmp_path)
    assert output == ["one", "after", "the", "other"]


@pytest.mark.deep
def test_many_requests(iris, tmp_path):
    """The example prints an answer for each payload."""
    (call,) = [text for name, text in BLOCKS if name == "python" and "client.stream(" in text]
    assert run(call.replace("localhost:50051", iris.address), tmp_path) == ["['setosa']"] * 500
