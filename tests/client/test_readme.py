"""client/README.md: its Python runs and prints what the page shows, and its tables and commands are correct."""

import builtins
import contextlib
import io
import re
import shutil
import subprocess
import sys

import mlflow_grpc_client
import numpy as np
import pytest
from mlflow_grpc_client import TLS, Client, errors
from mlflow_grpc_client._cli import command

from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support.servers import ROOT, serving

README = (ROOT / "client" / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_python_blocks(iris, certificates, code, tmp_path, monkeypatch):
    """Each block runs with the example model and prints what the comments beside its prints say."""
    for name, file in zip(
        ("ca.pem", "client.pem", "client-key.pem"), (certificates.ca, *certificates.client), strict=True
    ):
        shutil.copy(file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    expected = [line.rpartition("  # ")[2] for line in code.splitlines() if "print(" in line]
    cert, key = certificates.server
    model = iris.model
    with contextlib.ExitStack() as stack:
        code = code.replace("localhost:50051", iris.address)
        if "models.example:443" in code:
            tls = {"tls_cert": cert, "tls_key": key, "tls_client_ca": certificates.ca}
            server = stack.enter_context(serving(model, ScoringCodec(model.metadata, model.loader_module), **tls))
            code = code.replace("models.example:443", server.address)
        printed = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert printed.getvalue().splitlines() == expected


def test_the_payload_for_the_shell(iris):
    """Each payload for the shell is valid for the example server."""
    payloads = re.findall(r"'(\{\".*\})'", README)
    assert len(payloads) == 3
    with Client(iris.address) as client:
        for payload in payloads:
            assert client.predict_text(payload) == '{"predictions": ["setosa"]}'


def test_files_for_tls(tmp_path):
    """A file that does not exist, and one with other contents, raise what the page says."""
    missing, invalid = re.findall(
        r"a file that does not exist raises a `(\w+)`, and a file with other contents a `(\w+)`", README
    )[0]
    (tmp_path / "text.pem").write_text("no certificate")
    for name, error in (("no.pem", missing), ("text.pem", invalid)):
        with pytest.raises(getattr(builtins, error)):
            Client("localhost:1", tls=TLS(ca=tmp_path / name))


def test_what_a_dict_is_sent_as(iris):
    """A dict of numpy arrays needs no key, and a dict of lists that of a format, as in the table."""
    columns = {"sepal_length_cm": [5.1], "sepal_width_cm": [3.5], "petal_length_cm": [1.4], "petal_width_cm": [0.2]}
    with Client(iris.address) as client:
        assert client.predict({name: np.array(column) for name, column in columns.items()}) == ["setosa"]
        assert client.predict({"inputs": columns}) == ["setosa"]
        with pytest.raises(errors.InvalidInput):
            client.predict(columns)


def test_there_are_blocks():
    """The regular expression finds the blocks, and most of them print something."""
    assert len(BLOCKS) >= 6
    assert sum("print(" in block for block in BLOCKS) >= 6


def test_the_table_of_errors():
    """The table has each class with its code."""
    for code, error_class in errors._BY_CODE.items():
        assert f"| `{error_class.__name__}` | `{code.name}` |" in README
        assert error_class.__name__ in mlflow_grpc_client.__all__


def test_the_table_of_exit_codes():
    """The table has each exit code of the command."""
    codes = {value for name, value in vars(command).items() if name.startswith("EXIT_")} | {0}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)} == codes


def test_flags_of_the_command():
    """Each flag on the page exists."""
    done = subprocess.run(
        [sys.executable, "-m", "mlflow_grpc_client", "-h"], capture_output=True, text=True, check=True
    )
    commands = [line for line in README.splitlines() if "mlflow-grpc-predict" in line]
    flags = {flag for line in commands for flag in re.findall(r"--[a-z-]+", line)}
    assert len(flags) >= 5
    assert all(flag in done.stdout for flag in flags)


def test_links():
    """Linked files exist."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / "client" / target).exists(), target
