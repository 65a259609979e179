"""Models with a challenger, in real servers with a real registry: shares of calls, shadows, and swaps of either."""

import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import mlflow
import pandas as pd
import pytest
import requests
import yaml
from google.protobuf.message_factory import GetMessageClass

from mlflow_grpc import protos
from tests.rollout.conftest import ROW, VERSION_KEY, Tracking
from tests.rollout.test_swaps import exchange, infer
from tests.support import tensors
from tests.support.challenging import expected, save
from tests.support.rollout_registry import OTHER_SIGNATURE, WIDER
from tests.support.scrapes import Scrape
from tests.support.servers import Caller, Process, ready_address, start_server
from tests.support.typed import SERVICE, TypedCaller

pytestmark = pytest.mark.slow

CHALLENGER = "models:/churn@challenger"
CALLS = int(os.environ.get("SHADOW_CALLS", "300"))
"""Number of calls with and without a shadow whose times are compared."""


@pytest.fixture
def challenged(track, registry, tmp_path) -> Callable[..., Tracking]:
    """Returns a function that starts a server whose model has version 1, and its challenger version 2."""

    def start(*flags: str, version: str = "2", **options: Any) -> Tracking:
        registry.move(version, alias="challenger")
        challenger = {"uri": CHALLENGER, **options}
        file = tmp_path / "models.yaml"
        file.write_text(yaml.safe_dump({"models": [{"uri": "models:/churn@champion", "challenger": challenger}]}))
        tracking: Tracking = track("--config", str(file), *flags)
        return tracking

    return start


def predictions_of(models: Path, version: str) -> list[int]:
    """Returns what MLflow predicts with a version in the registry."""
    model = mlflow.pyfunc.load_model(str(models.parent / "rollout_models" / f"churn-{version}"))
    return [int(value) for value in model.predict(pd.DataFrame({"a": [1.0]}))]


def numbers_of(text: str) -> list[Any]:
    return list(json.loads(text)["predictions"])


class Ways:
    """All ways in to the model of a server, each of which returns predictions and the version in the trailers."""

    def __init__(self, server: Tracking) -> None:
        self.server, self.typed = server, TypedCaller(server.call.channel)

    def all(self) -> list[Callable[..., tuple[list[Any], str]]]:
        return [
            self.text,
            self.stream,
            self.record,
            self.rows,
            self.tensors,
            self.stream_of_tensors,
            self.table,
            self.invocations,
            self.inference,
        ]

    def text(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        data, call = self.server.call.raw.with_call(
            protos.Input(value=ROW).SerializeToString(), timeout=30, metadata=pairs
        )
        output: Any = protos.Output.FromString(data)
        return numbers_of(output.value), version_of(call)

    def stream(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        rpc: Any = self.server.call.channel.stream_stream("/MLflowStream/predict_many", None, protos.Output.FromString)
        call = rpc(iter([protos.Input(value=ROW).SerializeToString()]), timeout=30, metadata=pairs)
        (output,) = call
        return numbers_of(output.value), version_of(call)

    def record(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        answer, version = self._typed("churn_predict", {"a": 1.0}, pairs)
        return [answer.prediction], version

    def rows(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        answer, version = self._typed("churn_predict_batch", {"a": [1.0]}, pairs)
        return list(answer.prediction), version

    def _typed(self, name: str, fields: dict[str, Any], pairs: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
        output: Any = GetMessageClass(self.typed.method(name).output_type)
        rpc: Any = self.server.call.channel.unary_unary(f"/{SERVICE}/{name}", None, output.FromString)
        message = self.typed.input(name, fields).SerializeToString()
        answer, call = rpc.with_call(message, timeout=30, metadata=pairs)
        return answer, version_of(call)

    def tensors(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        number, version_in_response, version = infer(self.server, *pairs)
        assert version_in_response == version
        return [number], version

    def stream_of_tensors(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        answer_class = protos.message_named("inference.ModelStreamInferResponse")
        rpc: Any = self.server.call.channel.stream_stream(
            f"/{tensors.NAME}/ModelStreamInfer", None, answer_class.FromString
        )
        request = tensors.request("churn", ("a", "FP64", [1.0])).SerializeToString()
        call = rpc(iter([request]), timeout=30, metadata=pairs)
        (answer,) = call
        response = answer.infer_response
        assert response.model_name == "churn"
        assert response.model_version == version_of(call)
        return [int.from_bytes(response.raw_output_contents[0], "little")], version_of(call)

    def table(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        number, version = exchange(self.server, *pairs)
        return [number], version

    def invocations(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        headers = {"content-type": "application/json", **dict(pairs)}
        response = requests.post(f"{self.server.http_url}/invocations", ROW, headers=headers, timeout=30)
        return response.json()["predictions"], response.headers[VERSION_KEY]

    def inference(self, *pairs: tuple[str, str]) -> tuple[list[Any], str]:
        body = {"inputs": [{"name": "a", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}
        url = f"{self.server.http_url}/v2/models/churn/infer"
        response = requests.post(url, json=body, headers=dict(pairs), timeout=30)
        answer = response.json()
        assert (answer["model_name"], answer["model_version"]) == ("churn", response.headers[VERSION_KEY])
        return answer["outputs"][0]["data"], response.headers[VERSION_KEY]


def version_of(call: Any) -> str:
    return str(dict(call.trailing_metadata())[VERSION_KEY])


def test_a_share_of_callers_gets_the_challenger_in_all_ways(challenged, models):
    """A caller stays with one version, whatever way it calls; the answer is that version's, and about the share gets
    the challenger."""
    server = challenged(share="50%", sticky_by="user")
    ways = Ways(server)
    predicted = {version: predictions_of(models, version) for version in ("1", "2")}
    versions = {}
    for number in range(200):
        numbers, version = ways.text(("user", f"user-{number}"))
        assert numbers == predicted[version]
        versions[f"user-{number}"] = version
    assert 60 < Counter(versions.values())["2"] < 140
    for user, way in itertools.product([*versions][:6], ways.all()):
        numbers, version = way(("user", user))
        assert (numbers, version) == (predicted[versions[user]], versions[user]), way.__name__
    scrape = server.metrics()
    for name, version in (("churn", "1"), ("churn-challenger", "2")):
        answered = scrape.total("mlflow_grpc_requests_total", model=name, version=version, grpc_code="OK")
        assert answered == sum(
            1 + 9 * (index < 6) for index, theirs in enumerate(versions.values()) if theirs == version
        )


def test_calls_without_the_key_stay_with_their_request_id(challenged):
    """A retry with the same request id gets the same version, and ids are spread."""
    server = challenged(share=0.5, sticky_by="user")
    versions = [{server.answer(x_request_id=f"id-{number}")[1] for _ in range(3)} for number in range(40)]
    assert {len(of_id) for of_id in versions} == {1}
    assert set.union(*versions) == {"1", "2"}


def test_a_call_that_names_a_version_gets_it(challenged):
    """The challenger answers calls of the model, not of one of its versions, whatever way they come."""
    server = challenged(share=1.0)
    ways = Ways(server)
    assert ways.text()[1] == "2"
    assert server.answer(mlflow_model="churn/1")[1] == "1"
    url, headers = f"{server.http_url}/models/churn/versions/1/invocations", {"content-type": "application/json"}
    assert requests.post(url, ROW, headers=headers, timeout=30).headers[VERSION_KEY] == "1"
    body = {"inputs": [{"name": "a", "datatype": "FP64", "shape": [1, 1], "data": [1.0]}]}
    url = f"{server.http_url}/v2/models/churn/versions/1/infer"
    assert requests.post(url, json=body, timeout=30).json()["model_version"] == "1"
    request = tensors.request("churn", ("a", "FP64", [1.0]))
    request.model_version = "1"
    assert tensors.TensorCaller(server.call.channel).infer(request).model_version == "1"
    assert exchange(server, path=("churn", "1")) == (1, "1")


def test_the_challenger_cannot_be_called_by_its_name(challenged):
    """It is listed, and the champion is the model for calls that name none."""
    server = challenged(share=1.0)
    assert server.answer()[1] == "2"
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        server.answer(mlflow_model="churn-challenger")
    listed = {model["name"]: model for model in requests.get(f"{server.http_url}/models", timeout=30).json()["models"]}
    assert listed["churn-challenger"]["version"] == "2"
    assert listed["churn"]["rpcs"]
    assert not listed["churn-challenger"].get("rpcs")


def error_of_challenger(server):
    """Why the challenger gets no calls, as the list of models says."""
    models = requests.get(f"{server.http_url}/models", timeout=30).json()["models"]
    (error,) = [model["error"] for model in models if model["name"] == "churn-challenger"]
    return error


@pytest.mark.deep
def test_both_follow_the_registry(challenged, registry):
    """Each alias is followed; a challenger that does not fit is refused, and one whose champion has changed waits."""
    server = challenged("--keep-previous", "0", share=1.0)
    registry.move("3", alias="challenger")
    server.wait_for_version("3")
    assert server.answer()[1] == "3"
    registry.move(OTHER_SIGNATURE, alias="challenger")
    line = server.process.wait_for(
        rf"version {OTHER_SIGNATURE} is not served: it cannot answer calls of its champion.*"
    )
    assert "input.b: added and required" in line[0]
    assert server.answer()[1] == "3"
    registry.move("3", alias="challenger")
    registry.move(WIDER)
    server.process.wait_for(rf"churn/{WIDER} is served from now on")
    server.process.wait_for(rf"churn-challenger/3 gets no more calls of churn/{WIDER}: .*input\.aa: removed")
    assert server.answer()[1] == WIDER
    deadline = time.monotonic() + 30
    while "input.aa: removed" not in (error := error_of_challenger(server)):
        assert time.monotonic() < deadline, error  # Until the next query, it is why version 4 is not served.
    registry.move(WIDER, alias="challenger")
    server.process.wait_for(rf"churn-challenger/{WIDER} is served from now on")
    registry.move("9", alias="challenger")
    server.process.wait_for("version 9 is not served")
    assert server.answer()[1] == WIDER


def test_a_challenger_with_another_signature_stops_the_start(tmp_path):
    """The error says what differs; with on_error: skip, the server goes on without the challenger."""
    champion = save(tmp_path / "champion", 1.0)
    other = save(tmp_path / "other", 2.0, column="b")
    file = tmp_path / "models.yaml"
    for on_error in ("stop", "skip"):
        challenger = {"uri": other, "share": "50%", "on_error": on_error}
        file.write_text(yaml.safe_dump({"models": [{"uri": champion, "challenger": challenger}]}))
        with start_server("--config", str(file)) as process:
            if on_error == "stop":
                assert process.wait() == 2
                assert "it cannot answer calls of its champion, version unknown: input.a: removed" in process.output
            else:
                address = ready_address(process)
                with Caller(address) as call:
                    assert numbers_of(call(row(1.0))) == expected(champion, 1.0)


def row(value: float) -> str:
    return f'{{"dataframe_split": {{"columns": ["a"], "data": [[{value}]]}}}}'


def test_a_shadow_is_compared_in_all_ways(challenged, registry):
    """Callers get the champion's answer; each call is compared, whatever its protocol, and the numbers' difference is
    counted."""
    server = challenged(shadow=True, max_cpu="100%")
    ways = Ways(server)
    for count, way in enumerate(ways.all(), 1):
        assert way()[1] == "1", way.__name__
        scrape = compared(server, count)
        assert scrape.total("mlflow_grpc_shadow_calls_total", result="differed") == count, way.__name__
    assert scrape.total("mlflow_grpc_shadow_difference_sum") == count
    assert scrape.total("mlflow_grpc_requests_total", model="churn-challenger", grpc_code="OK") == count
    assert scrape.total("mlflow_grpc_predicting_seconds_count", model="churn-challenger") == count
    registry.move("1", alias="challenger")
    server.process.wait_for("churn-challenger/1 is served from now on")
    ways.text()
    assert compared(server, count + 1).total("mlflow_grpc_shadow_calls_total", result="agreed") == 1


def compared(server: Tracking, count: int) -> Scrape:
    """Waits until a number of calls has been through the shadow, and returns the metrics of then.

    They are a second scrape, because one scrape is no moment: the server pauses between its families, so that the
    first may have this count and yet an older count of another family.
    """
    deadline = time.monotonic() + 30
    while (scrape := server.metrics()).total("mlflow_grpc_shadow_calls_total") < count:
        assert time.monotonic() < deadline, scrape.text
    return server.metrics()


class Shadowed:
    """A server with a model and perhaps a shadow, and the durations of its calls."""

    def __init__(self, process: Process) -> None:
        self.address = ready_address(process)
        self.url = process.wait_for(r"HTTP on (http://[\d.:]+)")[1]

    def call(self, values: list[float]) -> tuple[list[float], list[list[float]]]:
        """Makes calls, one at a time, and returns their durations in seconds and the predictions."""
        durations_s, predictions = [], []
        with Caller(self.address) as call:
            for value in values:
                began = time.monotonic()
                predictions.append(numbers_of(call(row(value))))
                durations_s.append(time.monotonic() - began)
        return durations_s, predictions


def start_shadowed(champion: str, challenger: str | None, folder: Path, *flags: str, **options: Any) -> Process:
    model: dict[str, Any] = {"uri": champion, "name": "m"}
    if challenger is not None:
        model["challenger"] = {"uri": challenger, "shadow": True, **options}
    file = folder / f"{'with' if challenger else 'without'}.yaml"
    file.write_text(yaml.safe_dump({"models": [model]}))
    return start_server("--config", str(file), "--http-port", "0", "--timeout", "2", *flags)


@pytest.mark.alone
@pytest.mark.deep
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("behavior", "outcome"),
    [
        ({"fails": True}, "failed"),
        ({"hangs": True}, "failed"),
        ({"sleep_s": 0.02}, "differed"),
        ({"compute_s": 0.02}, "differed"),
    ],
    ids=["raises", "hangs", "sleeps", "computes"],
)
def test_a_shadow_neither_delays_nor_fails_a_call(tmp_path, capsys, behavior, outcome):
    """With a challenger that raises, hangs or takes ten times as long, all calls are answered by the champion, in the
    time that they take without it, and each is counted once."""
    champion = save(tmp_path / "champion", 1.0, compute_s=0.002)
    challenger = save(tmp_path / "challenger", 2.0, **behavior)
    values = [1000.0 + number for number in range(CALLS)]
    p99_ms: dict[str, list[float]] = {"with": [], "without": []}
    with (
        start_shadowed(champion, None, tmp_path) as alone,
        start_shadowed(champion, challenger, tmp_path) as shadowed,
    ):
        servers = {"without": Shadowed(alone), "with": Shadowed(shadowed)}
        for _ in range(3):
            for name, server in servers.items():
                durations_s, predictions = server.call(values)
                assert [number for (number,) in predictions] == expected(champion, *values)
                p99_ms[name].append(1000 * sorted(durations_s)[int(0.99 * len(durations_s))])
        deadline = time.monotonic() + 60
        while (scrape := Scrape(servers["with"].url)).total("mlflow_grpc_shadow_calls_total") < 3 * CALLS:
            if "compute_s" in behavior:  # The last ones wait for their share of the processor.
                break
            assert time.monotonic() < deadline
        shadowed.signal(signal.SIGTERM)
        assert shadowed.wait() == 0
    outcomes = {
        result: int(scrape.total("mlflow_grpc_shadow_calls_total", result=result))
        for result in ("agreed", "differed", "failed", "dropped")
    }
    with capsys.disabled():
        print(f"\n{behavior}: p99 {p99_ms['without']} ms without and {p99_ms['with']} ms with a shadow; {outcomes}")
    assert outcomes[outcome] >= 1
    if outcome == "failed":
        assert shadowed.output.count("m-challenger failed behind a call: ") == 1
    assert sum(outcomes.values()) <= 3 * CALLS
    assert scrape.total("mlflow_grpc_requests_total", model="m", grpc_code="OK") == 3 * CALLS
    assert min(p99_ms["with"]) < 2 * max(p99_ms["without"])
