"""Models for all signatures, MLflow's own answer to any payload, and this server's answer over real gRPC."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations

from mlflow_grpc.hosting.pyfunc import fetching, internals
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.hosting.pyfunc.model import PyfuncModel
from mlflow_grpc.payload.mlflow_json.codec import ScoringCodec
from tests.support import zoo
from tests.support.servers import Caller, serving
from tests.support.shared import made_once

Oracle = Callable[[str | bytes, str], tuple[int, str]]


@pytest.fixture(scope="session")
def zoo_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the directory of a saved model of the zoo."""
    return lambda name: made_once(tmp_path_factory, f"zoo_{name}", lambda path: zoo.save(name, path))


@pytest.fixture(scope="session")
def urls() -> dict[str, str]:
    """URLs of the calls over HTTP, by the names of the models that `pair` has made."""
    return {}


@pytest.fixture(scope="session")
def pair(
    zoo_path: Callable[[str], Path], urls: dict[str, str]
) -> Iterator[Callable[[str], tuple[Oracle, Caller, PyfuncModel]]]:
    """MLflow's answer and our server for a model, loaded once and separately."""
    pairs: dict[str, tuple[Oracle, Caller, PyfuncModel]] = {}
    stacks: list[ExitStack] = []

    def make(name: str) -> tuple[Oracle, Caller, PyfuncModel]:
        if name not in pairs:
            path = zoo_path(name)
            model = load_pyfunc(fetching.fetch(str(path)), name=name)
            codec = ScoringCodec(model.metadata, model.loader_module, model.item_hint)
            stacks.append(ExitStack())
            server = stacks[-1].enter_context(serving(model, codec, http_port=0))
            urls[name] = f"{server.url}/invocations"
            pairs[name] = (oracle_of(path), stacks[-1].enter_context(Caller(server.address)), model)
        return pairs[name]

    yield make
    with ThreadPoolExecutor() as threads:  # Each server takes 0.15 s to end.
        list(threads.map(ExitStack.close, stacks))


def oracle_of(path: Path) -> Oracle:
    """Returns the core of MLflow's server, in process: the result of `invocations`, and the status of what it raises."""
    model = mlflow.pyfunc.load_model(str(path), suppress_warnings=True)
    internals.enter_serving_environment()
    schema = model.metadata.get_input_schema()

    def ask(payload: str | bytes, content_type: str) -> tuple[int, str]:
        body = payload.encode() if isinstance(payload, str) else payload
        try:
            answer = invocations(body, content_type, model, schema)
        except MlflowException as error:
            return error.get_http_status_code(), error.serialize_as_json()
        except Exception:
            return 500, "Internal Server Error"
        return answer.status, answer.response

    return ask
