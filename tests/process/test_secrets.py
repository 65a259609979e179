"""That no token leaves a server process: debug logs, traces, metrics, errors, and the files that it reads."""

import hashlib
from typing import Any

import grpc
import pytest
import requests

from mlflow_grpc import protos
from tests.support.access import AUDIENCE, ISSUER, TOKENS, IdentityProvider, lines_of
from tests.support.servers import ready_address, start_server

STEPPER = "mlmodel:tests.support.quick_stepper.Stepper"


@pytest.fixture
def provider():
    with IdentityProvider() as running:
        running.add_key("first")
        running.add_key("unpublished", is_published=False)
        yield running


def over_grpc(channel: Any, values: tuple[str, ...]) -> str:
    """Returns the texts of the answers and errors of calls of each protocol with some authorizations."""
    metadata = tuple(("authorization", value) for value in values)
    told = []
    for path, request in (
        ("/MLflow/predict", protos.Input(value="x").SerializeToString()),
        ("/mlflow_grpc.v1.Models/ListModels", b""),
        ("/inference.GRPCInferenceService/ModelInfer", b""),
        ("/arrow.flight.protocol.FlightService/DoExchange", b""),
        ("/grpc.health.v1.Health/List", b""),
        ("/no.Service/method", b""),
    ):
        call = channel.stream_stream(path)(iter([request]), timeout=20, metadata=metadata)
        try:
            told += list(map(str, call))
        except grpc.RpcError as error:
            told.append(f"{error} {call.trailing_metadata()}")
    return "".join(told)


def over_http(url: str, values: tuple[str, ...]) -> str:
    """Returns the bodies and headers of the responses to requests with an authorization, also in the address."""
    headers = {"authorization": values[-1]}
    told = []
    for method, path in (
        ("POST", "/invocations"),
        ("GET", "/models"),
        ("POST", "/v2/models/model/infer"),
        ("GET", "/openapi.json"),
        ("DELETE", "/invocations"),
        ("GET", "/no/route"),
    ):
        response = requests.request(method, url + path, data="x", headers=headers, timeout=30)
        told.append(f"{response.headers} {response.text}")
    return "".join(told)


def test_no_token_leaves_the_server(tmp_path, provider, collector):
    """With debug logs of the server and its libraries, traces and metrics, nothing that the server says has a token or
    its SHA-256, whichever way the token is wrong or right.
    """
    path = tmp_path / "tokens"
    path.write_text(lines_of(TOKENS))
    good = provider.sign()
    secrets = {
        *TOKENS.values(),
        "an-unknown-token-0123456789",
        good,
        provider.sign(exp=1),
        provider.sign(aud="another"),
        provider.sign("unpublished"),
        provider.sign("unpublished", headers={"kid": "first"}),
        "head.body.signature-that-is-no-jwt",
    }
    flags = ["--auth-tokens", str(path), "--auth-jwt-issuer", ISSUER, "--auth-jwt-audience", AUDIENCE]
    flags += ["--auth-jwt-jwks", provider.url, "--http-port", "0", "--otlp-endpoint", collector.url]
    flags += ["--log-level", "debug", "--log-level-libraries", "debug", "--show-exceptions"]
    with start_server("-m", STEPPER, *flags) as server:
        url = server.wait_for(r"HTTP on (http://[\d.]+:\d+)")[1]
        address = ready_address(server)
        server.wait_for("keys for JWTs from")
        told = []
        with grpc.insecure_channel(address) as channel:
            for secret in sorted(secrets):
                for values in ((f"Bearer {secret}",), (f"Basic {secret}",), (secret,), (f"Bearer {secret}",) * 2):
                    told += [over_grpc(channel, values), over_http(url, values)]
        path.write_text(f"web {sorted(secrets)[0]}\n")
        server.wait_for("the previous tokens stay valid")
        metrics = requests.get(f"{url}/metrics", headers={"authorization": f"Bearer {good}"}, timeout=30)
        assert metrics.status_code == 200
        told.append(metrics.text)
        collector.wait_for("MLflow/predict")
    told.append(server.output)
    told += [str(vars(span)) for span in collector.spans]
    everything = "\n".join(told)
    for counted in ("UNKNOWN_TOKEN", "INVALID_JWT", "EXPIRED", "UNKNOWN_KEY", "NOT_BEARER", "SEVERAL_AUTHORIZATIONS"):
        assert f'mlflow_grpc_refused_callers_total{{reason="{counted}"}} 0' not in everything
    assert "enduser.id" in everything
    for secret in secrets:
        assert secret not in everything
        assert hashlib.sha256(secret.encode()).hexdigest() not in everything
        assert secret.rpartition(".")[2] not in everything
