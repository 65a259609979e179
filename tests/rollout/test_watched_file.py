"""A configuration file that is watched: models are added, removed and changed while the server answers."""

import os
import signal
from pathlib import Path

import grpc
import pytest

from tests.rollout.conftest import Registry, predicted
from tests.support.rollout_registry import OTHER_SIGNATURE
from tests.support.typed import TypedCaller

pytestmark = pytest.mark.slow

INTERVAL = "0.3"


class ConfigMap:
    """A directory as Kubernetes mounts a ConfigMap: the file is a link by way of `..data`, which is replaced at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "mounted"
        self.folder.mkdir()
        self.path = self.folder / "models.yaml"
        self._count = 0

    def write(self, *models: str, text: str | None = None) -> None:
        """Replaces the content by these models of a YAML list, or by a text."""
        self._count += 1
        version = self.folder / f"..{self._count}"
        version.mkdir()
        (version / "models.yaml").write_text(text or f"models: [{', '.join(models)}]")
        os.utime(version / "models.yaml", (0, 0))  # The time says nothing.
        link = self.folder / "..tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        if self._count == 1:
            self.path.symlink_to("..data/models.yaml")


@pytest.fixture
def config_map(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path)


CHAMPION = "{uri: 'models:/churn@champion', track: off}"
SECOND = "{uri: 'models:/churn/2', name: second}"
THIRD = "{uri: 'models:/churn/3', name: second}"


@pytest.fixture
def watch(track, config_map):
    """Returns a function that starts a server which watches the file."""

    def start(*flags: str):
        return track("--config", str(config_map.path), "--watch-config", INTERVAL, *flags, interval=None)

    return start


def reloads(server, result: str) -> float:
    count: float = server.metrics().total("mlflow_grpc_config_reloads_total", result=result)
    return count


def test_models_are_added_changed_and_removed(watch, config_map):
    """A call without a name goes on, names and typed RPCs come and go, and the counters of a model never fall."""
    config_map.write(CHAMPION)
    server = watch()
    assert server.answer() == (predicted(1), "1")
    config_map.write(SECOND, CHAMPION.replace("}", ", default: true}"))
    server.process.wait_for(r"models.yaml is served from now on: second is new; models:/churn@champion has changed")
    server.wait_until_replaced()
    assert server.answer() == (predicted(1), "1")
    assert server.answer(mlflow_model="second") == (predicted(2), "2")
    assert TypedCaller(server.call.channel)("second_predict", {"a": 1.0}).prediction == 2
    assert server.metrics().total("mlflow_grpc_requests_total", model="churn", grpc_code="OK") == 2
    config_map.write(THIRD, CHAMPION)
    server.wait_until_replaced(times=2)
    assert server.answer(mlflow_model="second") == (predicted(3), "3")
    config_map.write(THIRD)
    server.process.wait_for("models:/churn@champion is gone")
    server.wait_until_replaced(times=3)
    assert server.answer() == (predicted(3), "3")
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        server.answer(mlflow_model="churn")
    assert server.metrics().total("mlflow_grpc_requests_total", model="second", grpc_code="OK") == 4
    assert reloads(server, "ok") == 3
    server.process.signal(signal.SIGTERM)
    assert server.process.wait() == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("models: [", "models.yaml is not YAML"),
        pytest.param(
            "models: [{url: 'models:/churn/1'}]", "there is no such key; did you mean uri", marks=pytest.mark.deep
        ),
        pytest.param(
            "models: [{uri: 'models:/churn/1', track: 30s}]", "always means the same version", marks=pytest.mark.deep
        ),
    ],
)
def test_a_file_that_is_wrong_is_ignored(watch, config_map, text, reason):
    """The log says what is wrong once, and a metric that the file is not served; the next file is served."""
    config_map.write(CHAMPION)
    server = watch()
    config_map.write(text=text)
    server.process.wait_for(f"{reason}.*; the file is ignored until it changes")
    assert server.metrics().total("mlflow_grpc_config_behind") == 1
    assert reloads(server, "failed") == 1
    assert server.answer() == (predicted(1), "1")
    config_map.write(SECOND)
    server.wait_until_replaced()
    assert server.answer() == (predicted(2), "2")
    assert server.metrics().total("mlflow_grpc_config_behind") == 0
    assert server.process.output.count("the file is ignored until it changes") == 1


@pytest.mark.deep
def test_a_file_whose_models_cannot_be_served_is_tried_again(watch, config_map, registry: Registry):
    """The models before it go on, and the file is served once the registry has what it names."""
    config_map.write(CHAMPION)
    server = watch()
    config_map.write(CHAMPION, "{uri: 'models:/churn@late', name: late}")
    server.process.wait_for(r"models.yaml cannot be served: models:/churn@late: .*Meanwhile the models before it go on")
    assert server.answer() == (predicted(1), "1")
    assert server.metrics().total("mlflow_grpc_config_behind") == 1
    registry.move("2", alias="late")
    server.wait_until_replaced()
    assert server.answer(mlflow_model="late") == (predicted(2), "2")


def test_a_file_that_breaks_callers_is_not_served(watch, config_map):
    """A model that changes is compared with what its callers use, as a version behind an alias is."""
    config_map.write(SECOND)
    server = watch()
    config_map.write(f"{{uri: 'models:/churn/{OTHER_SIGNATURE}', name: second}}")
    server.process.wait_for(r"cannot be served: it breaks callers of the served version: input\.b: added and required")
    assert server.answer() == (predicted(2), "2")


@pytest.mark.deep
def test_all_workers_get_the_file(watch, config_map):
    """Two workers are replaced one after the other, and their replacements serve the new file too."""
    config_map.write(CHAMPION)
    server = watch("-w", "2")
    config_map.write(SECOND)
    server.wait_until_replaced(times=2)
    assert server.answer() == (predicted(2), "2")
    os.kill(server.worker_pids[-1], signal.SIGKILL)
    server.process.wait_for(r"worker \d started", times=5)
    while server.metrics().total("mlflow_grpc_model_ready", model="second") < 2:
        assert server.process.popen.poll() is None
