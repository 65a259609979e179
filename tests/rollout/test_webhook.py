"""MLflow's webhooks as hints: a real MLflow server sends one, and what is refused."""

import json
import time
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
import requests

from mlflow_grpc.http import webhook
from tests.rollout.conftest import Tracking
from tests.rollout.test_registry_server import MlflowServer
from tests.support.servers import free_port

delivery: Any = pytest.importorskip("mlflow.webhooks.delivery", reason="webhooks came with MLflow 3.3")
entities: Any = pytest.importorskip("mlflow.entities.webhook")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECRET = "a secret of 32 characters or more"
MOVED = {
    "entity": "model_version_alias",
    "action": "created",
    "data": {"name": "churn", "alias": "champion", "version": "2"},
}
NEVER = "1h"
"""An interval that does not end within a test."""


@pytest.fixture
def hinted(track, tmp_path) -> Callable[..., Tracking]:
    """Returns a function that starts a server which queries the registry only after a hint."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")

    def start(**more: Any) -> Tracking:
        server: Tracking = track("--webhook-secret", str(secret), "--track", NEVER, **more)
        return server

    return start


def send(server: Tracking, event: Any, *, key: str = SECRET, age_s: float = 0.0, **headers: str) -> requests.Response:
    """Sends an event as MLflow does, signed by MLflow's own function."""
    body, timestamp = json.dumps(event), str(int(time.time() - age_s))
    signature = delivery._generate_hmac_signature(key, "id-1", timestamp, body)
    names = {
        delivery.WEBHOOK_DELIVERY_ID_HEADER: "id-1",
        delivery.WEBHOOK_TIMESTAMP_HEADER: timestamp,
        delivery.WEBHOOK_SIGNATURE_HEADER: signature,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return requests.post(f"{server.http_url}{webhook.PATH}", body.encode(), headers=names, timeout=30)


@pytest.mark.deep
def test_an_mlflow_server_sends_the_hint(hinted, registry):
    """The alias moves in an MLflow server, whose webhook makes this server serve the new version at once."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    allowed = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
    with MlflowServer(registry, port, allowed):
        server = hinted(env={"MLFLOW_TRACKING_URI": url})
        client: Any = mlflow.MlflowClient(tracking_uri=url, registry_uri=url)
        hook = client.create_webhook(
            "hint", f"{server.http_url}{webhook.PATH}", ["model_version_alias.created"], secret=SECRET
        )
        tested = client.test_webhook(hook.webhook_id)
        assert (tested.success, tested.response_status, json.loads(tested.response_body)) == (True, 202, {"models": 0})
        client.set_registered_model_alias("churn", "champion", "2")
        server.wait_for_version("2")
        assert server.answer() == ('{"predictions": [2]}', "2")


def test_hints_and_what_is_refused(hinted, registry):
    """Only an event that MLflow's secret signed in the last 300 s is a hint; one about another model or alias changes nothing."""
    server = hinted()
    registry.move("2")
    refused = [
        send(server, MOVED, key="another secret"),
        send(server, MOVED, X_MLflow_Signature=""),
        send(server, MOVED, X_MLflow_Signature="v2,abc"),
        send(server, MOVED, X_MLflow_Signature="v1,\u00e9"),
        send(server, MOVED, X_MLflow_Timestamp=str(int(time.time()) + 1)),
        send(server, MOVED, X_MLflow_Delivery_Id="another"),
        send(server, MOVED, age_s=301),
        send(server, MOVED, age_s=-302),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert refused[0].json() == {
        "error_code": "PERMISSION_DENIED",
        "message": "The signature of the event is wrong. Create the webhook with the secret of this server.",
    }
    assert "is not of the last 300 seconds" in refused[-1].json()["message"]
    assert send(server, "no event").status_code == 400
    assert send(server, {"data": {"name": "churn", "text": "x" * 70_000}}).status_code == 413
    assert requests.get(f"{server.http_url}{webhook.PATH}", timeout=30).status_code == 405
    for data in ({"name": "iris", "alias": "champion"}, {"name": "churn", "alias": "challenger"}, {}):
        answer = send(server, {**MOVED, "data": data})
        assert (answer.status_code, answer.json()) == (202, {"models": 0})
    assert server.metrics().total("mlflow_grpc_registry_polls_total") == 0
    answer = send(server, MOVED, age_s=290)
    assert (answer.status_code, answer.json()) == (202, {"models": 1})
    server.wait_for_version("2")
    assert server.process.output.count("a webhook event is refused") == 1


def test_the_secret_may_change(hinted, registry, tmp_path):
    """The file is read for each event, so that a new secret needs no restart; a lost one refuses all events."""
    server = hinted()
    (tmp_path / "secret").write_text("new")
    assert send(server, MOVED).status_code == 403
    assert send(server, MOVED, key="new").status_code == 202
    (tmp_path / "secret").unlink()
    answer = send(server, MOVED, key="new")
    assert (answer.status_code, answer.json()["message"]) == (
        403,
        "The server cannot read its secret for webhooks (--webhook-secret).",
    )


def test_there_is_no_route_without_a_secret(track):
    """Without --webhook-secret there is no such path."""
    assert send(track("--track", NEVER), MOVED).status_code == 404


def test_tokens_are_not_for_webhooks(hinted, registry, tmp_path):
    """On a server that asks callers for tokens, an event needs its signature only."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"somebody {'0' * 64}\n")
    server = hinted(env={"MLFLOW_GRPC_AUTH_TOKENS": str(tokens)})
    assert requests.get(f"{server.http_url}/models", timeout=30).status_code == 401
    assert send(server, MOVED, key="wrong").status_code == 403
    assert send(server, MOVED).status_code == 202
