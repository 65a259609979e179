"""docs/clients.md: its service config is the client's and works in Node, and its Python runs."""

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from mlflow_grpc_client import Client
from mlflow_grpc_client._cli import command
from mlflow_grpc_client._options import MAX_SEND_OPTION, service_config

from tests.client.test_node import example  # noqa: F401 - a fixture
from tests.support.node import tool
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()
(CONFIG,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

NODE = """
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
const options = { "grpc.service_config": readFileSync(process.argv[3], "utf8") };
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure(), options);
const same = (bytes) => bytes;
const call = (payload) => new Promise((done) => {
  const deadline = { deadline: Date.now() + 20000 };
  client.makeUnaryRequest("/MLflow/predict", same, same, Buffer.from(payload), new grpc.Metadata(), deadline,
    (error, answer) => done(error ? error.code : answer.toString()));
});
for (const payload of ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"]) console.log(await call(payload));
"""


def test_the_config_equals_the_clients():
    """The config on the page equals that of the Python client."""
    assert json.loads(CONFIG) == json.loads(service_config(balances=True))


class Fails(grpc.GenericRpcHandler):
    """Fails the first call of each payload with the status that the payload names."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen.append(data)
        if self.seen.count(data) == 1:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "20"),))
            context.abort(grpc.StatusCode[data.decode()], "no")
        return b"answered"


def test_the_config_works_in_node(example: Path, tmp_path):  # noqa: F811 - a fixture
    """Retryable statuses are retried after the server's delay, and no others are."""
    (tmp_path / "config.json").write_text(CONFIG)
    (example / "retries.mjs").write_text(NODE)
    handler = Fails()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [tool("node"), str(example / "retries.mjs"), f"127.0.0.1:{port}", str(tmp_path / "config.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    server.stop(None).wait()
    assert done.stdout.split() == ["answered", "answered", str(grpc.StatusCode.INTERNAL.value[0])], done.stderr
    assert [line.decode() for line in handler.seen] == [*["UNAVAILABLE"] * 2, *["RESOURCE_EXHAUSTED"] * 2, "INTERNAL"]


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
    assert "`max_message_bytes`, 100 MB" in PAGE
