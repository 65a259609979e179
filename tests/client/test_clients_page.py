"""docs/clients.md: its service config is the client's, and its Python runs."""

import json
import re

import pytest
from mlflow_grpc_client import Client
from mlflow_grpc_client._cli import command
from mlflow_grpc_client._options import MAX_SEND_OPTION, service_config

from tests.support.retries import CONFIG, PAGE


def test_the_config_equals_the_clients():
    """The config on the page equals that of the Python client."""
    assert json.loads(CONFIG) == json.loads(service_config(balances=True))


@pytest.mark.parametrize(
    "code",
    [code for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "serving" not in code],
)
def test_python_blocks(code):
    """The Python blocks make their clients."""
    exec(compile(code, "clients.md", "exec"), {})  # noqa: S102


def test_commands(iris, capsys, monkeypatch):
    """The typed command prints the model's prediction, and its flags exist."""
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")
    (payload,) = re.findall(r"--typed '(.*)'", PAGE)
    with pytest.raises(SystemExit) as ended:
        command.main(["-a", iris.address, "-m", "iris", "--typed", payload])
    assert (ended.value.code, capsys.readouterr().out) == (0, '"setosa"\n')
    with Client(iris.address) as client:
        assert client.model("iris").predict(json.loads(payload)) == "setosa"


def test_the_limits_of_the_client():
    """The table has the client's own limits."""
    with Client("localhost:1") as client:
        assert dict(client._channel_options)[MAX_SEND_OPTION] == 100 * 1024 * 1024
        assert client._timeout_s == 60
    assert "`max_message_bytes`, 100 MiB" in PAGE
