"""docs/errors.md: gRPC's own clients have the texts of the page, for errors that no server of ours sends."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from mlflow_grpc import protos
from tests.support.servers import ROOT

TABLE = re.findall(r"^\| (`[A-Z_`, ]+`) \| (.*?) \|", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)


def row(words: str) -> tuple[list[str], str]:
    """Returns the statuses of the only row with these words, and the first text of gRPC that it quotes."""
    ((statuses, when),) = [(statuses, when) for statuses, when in TABLE if words in when]
    return re.findall(r"`(\w+)`", statuses), re.findall(r"`(.*?)`", when)[0]


def failure(address: str, payload: str, **options: int) -> tuple[str, str]:
    """Returns status and text of a call that fails."""
    channel_options = [(f"grpc.{name}", value) for name, value in options.items()]
    with grpc.insecure_channel(address, channel_options) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/MLflow/predict")(protos.Input(value=payload).SerializeToString(), timeout=60)
    return raised.value.code().name, raised.value.details() or ""


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that answers a call with an HTTP status, as a proxy without a route does."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        answered = pool.submit(answer, listener, str(request.param))
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        answered.result(60)


def answer(listener: socket.socket, status: str) -> None:
    """Answers the first request, and reads until the client leaves."""
    peer, _ = listener.accept()
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    with peer:
        connection.initiate_connection()
        peer.sendall(connection.data_to_send())
        while data := peer.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    connection.send_headers(event.stream_id, [(":status", status)], end_stream=True)
            peer.sendall(connection.data_to_send())


@pytest.mark.parametrize(("proxy", "status"), [(404, "UNIMPLEMENTED"), (502, "UNAVAILABLE")], indirect=["proxy"])
def test_another_server_answers(proxy: str, status: str) -> None:
    """The status and the text follow from the HTTP status."""
    statuses, text = row("such as a proxy")
    assert status in statuses
    code, details = failure(proxy, "{}")
    assert code == status
    assert text.removesuffix("404") in details


def test_a_large_answer(iris) -> None:
    """An answer above the client's limit is RESOURCE_EXHAUSTED, with the text of the page."""
    statuses, text = row("larger than the client's own limit")
    assert statuses == ["RESOURCE_EXHAUSTED"]
    flower = dict.fromkeys(("sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"), 1.5)
    payload = json.dumps({"dataframe_records": [flower]})
    code, details = failure(iris.address, payload, max_receive_message_length=8)
    assert code == statuses[0]
    assert text in details
