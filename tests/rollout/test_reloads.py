"""RepositoryModelLoad reloads models of the configuration, with real folders and a real registry."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.rollout.conftest import Registry, Tracking
from tests.support import tensors
from tests.support.rollout_registry import BROKEN_PICKLE, FAILS_ON_EXAMPLE, LARGE, NAME, OTHER_SIGNATURE, OWN

pytestmark = pytest.mark.slow

HOUR = "1h"
"""Interval of queries that no test waits for."""


def predicted(number: int) -> str:
    return f'{{"predictions": [{number}]}}'


class Folder:
    """A folder whose model tests replace."""

    def __init__(self, path: Path, registry: Registry) -> None:
        self.path = path
        self._registry = registry

    def put(self, version: str, *, name: str = NAME) -> None:
        """Replaces the model by a version of the registry, as a deployment does: by renaming a symbolic link."""
        source = str(self._registry.store.get_model_version(name, version).source)
        link = self.path.with_suffix(".new")
        link.symlink_to(source)
        link.replace(self.path)


@pytest.fixture
def folder(registry, tmp_path) -> Folder:
    made = Folder(tmp_path / "churn", registry)
    made.put("1")
    return made


def reload(server: Tracking, name: str = NAME, **metadata: str) -> tuple[str, str]:
    """Reloads a model; returns the status and its message."""
    caller = tensors.TensorCaller(server.call.channel)
    pairs = tuple(metadata.items())
    try:
        caller.call(
            "RepositoryModelLoad", tensors.message("RepositoryModelLoadRequest", model_name=name), metadata=pairs
        )
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def reason(server: Tracking) -> str:
    """Returns why the only model was not reloaded, from the index."""
    caller = tensors.TensorCaller(server.call.channel)
    (model,) = caller.call("RepositoryIndex", tensors.message("RepositoryIndexRequest")).models
    assert model.state == "READY"
    return str(model.reason)


def test_a_folder_is_read_again(track, folder):
    """The files that a folder has now are served, and the replaced model is unloaded."""
    server = track(uri=str(folder.path), interval=None)
    assert server.answer()[0] == predicted(1)
    for version in ("2", "3", "1"):
        folder.put(version)
        assert reload(server) == ("OK", "")
        assert server.answer()[0] == predicted(int(version))
    server.process.wait_for(r"churn is unloaded", times=3)
    assert len(server.directories) == 1


@pytest.mark.parametrize(
    ("version", "text"),
    [
        (OTHER_SIGNATURE, r"it breaks callers of the served version: input\.b: added and required"),
        pytest.param(
            FAILS_ON_EXAMPLE,
            "it fails on its own input example: ValueError: version 6 fails",
            marks=pytest.mark.deep,
        ),
        (BROKEN_PICKLE, "cannot be loaded: "),
    ],
)
def test_a_model_that_must_not_be_served_changes_nothing(track, folder, version, text):
    """What was served goes on, as often as the reload is tried; the index has the reason until a reload succeeds."""
    server = track(uri=str(folder.path), interval=None)
    folder.put(version)
    for _ in range(2):
        code, message = reload(server)
        assert (code, "RepositoryIndex and the log say why" in message) == ("FAILED_PRECONDITION", True)
        assert re.search(text, reason(server))
        assert server.answer()[0] == predicted(1)
    assert server.directories == []
    folder.put("2")
    assert reload(server) == ("OK", "")
    assert (server.answer()[0], reason(server)) == (predicted(2), "")


def test_a_folder_that_is_gone_changes_nothing(track, folder):
    """The model in memory goes on."""
    server = track(uri=str(folder.path), interval=None)
    folder.path.unlink()
    assert reload(server)[0] == "FAILED_PRECONDITION"
    assert "there is no such directory" in reason(server)
    assert server.answer()[0] == predicted(1)


def test_other_code_needs_a_restart(track, folder):
    """A model whose own code differs from the code that the process has imported is refused with that reason."""
    folder.put("1", name=OWN)
    server = track("--model-name", "own", uri=str(folder.path), interval=None)
    folder.put("2", name=OWN)
    assert reload(server, "own") == ("OK", "")
    assert server.answer()[0] == predicted(2)
    folder.put("3", name=OWN)
    assert reload(server, "own")[0] == "FAILED_PRECONDITION"
    assert "its own Python code (helper_of_own) differs" in reason(server)
    assert server.answer()[0] == predicted(2)


def test_an_alias_is_resolved_again(track, registry):
    """An alias that is not tracked means another version after a reload, and nothing is loaded if it has not moved."""
    server = track(interval=None)
    assert reload(server) == ("OK", "")
    assert "reloading" not in server.process.output
    registry.move("2")
    assert server.answer() == (predicted(1), "1")
    assert reload(server) == ("OK", "")
    assert server.answer() == (predicted(2), "2")
    registry.store.delete_registered_model_alias(NAME, "champion")
    code, message = reload(server)
    assert (code, "does not name a version" in message) == ("UNAVAILABLE", True)
    registry.set_status("3", "PENDING_REGISTRATION")
    registry.move("3")
    assert reload(server)[0] == "FAILED_PRECONDITION"
    assert "its status in the registry is PENDING_REGISTRATION" in reason(server)
    assert server.answer() == (predicted(2), "2")


def test_a_fixed_version_is_loaded_already(track):
    """A version of the registry never changes, so that a reload has nothing to do."""
    server = track(uri="models:/churn/1", interval=None)
    assert reload(server) == ("OK", "")
    assert "reloading" not in server.process.output


def test_a_tracked_model_does_not_wait(track, registry):
    """A tracked model queries at once, and tries a version again that has failed just before."""
    server = track(interval=HOUR)
    registry.move("2")
    assert reload(server) == ("OK", "")
    assert server.answer() == (predicted(2), "2")
    registry.move(FAILS_ON_EXAMPLE)
    for attempt in (1, 2):
        assert reload(server)[0] == "FAILED_PRECONDITION"
        assert server.metrics().total("mlflow_grpc_model_swaps_total", result="failed") == attempt
    registry.move("1")
    assert reload(server) == ("OK", "")
    assert server.answer() == (predicted(1), "1")
    registry.store.delete_registered_model_alias(NAME, "champion")
    assert reload(server)[0] == "UNAVAILABLE"


def test_a_model_that_could_not_be_loaded_is_served_after_its_reload(track, folder, tmp_path):
    """A model with on_error: skip is not lost until the next start."""
    folder.put(BROKEN_PICKLE)
    file = tmp_path / "models.yaml"
    file.write_text(
        f"models: [{{uri: {folder.path}, name: churn, on_error: skip}}, {{uri: 'models:/{OWN}@champion', name: own}}]"
    )
    server = track("--config", str(file), interval=None)
    with pytest.raises(grpc.RpcError, match="FAILED_PRECONDITION"):
        server.answer(mlflow_model="churn")
    assert reload(server)[0] == "FAILED_PRECONDITION"
    folder.put("2")
    assert reload(server) == ("OK", "")
    assert server.answer(mlflow_model="churn")[0] == predicted(2)


def test_one_of_several_workers_is_not_reloaded_alone(track, folder):
    """A call reaches one worker, and the others would go on with the model before."""
    server = track("-w", "2", uri=str(folder.path), interval=None)
    code, message = reload(server)
    assert (code, "Several processes serve the model" in message) == ("FAILED_PRECONDITION", True)


def test_calls_go_on_during_reloads(track, folder):
    """Calls are answered by the model before or after, and callers share the reload that has not begun."""
    server = track(uri=str(folder.path), interval=None)
    folder.put("2")
    with ThreadPoolExecutor(9) as threads:
        reloads = [threads.submit(reload, server) for _ in range(8)]
        answers = [server.answer()[0]]
        while not all(done.done() for done in reloads):
            answers.append(server.answer()[0])
    assert {done.result() for done in reloads} == {("OK", "")}
    assert set(answers) <= {predicted(1), predicted(2)}
    assert server.answer()[0] == predicted(2)
    assert server.process.output.count("reloading ") <= 3


@pytest.mark.alone
@pytest.mark.deep
def test_reloads_leave_nothing(track, folder):
    """Models are freed, also the one from the start, and their directories are deleted."""
    server = track(uri=str(folder.path), interval=None)
    sizes = []
    for times, version in enumerate((*LARGE, *LARGE, *LARGE), 1):
        folder.put(version)
        assert reload(server) == ("OK", "")
        server.process.wait_for("churn is unloaded", times=times)
        sizes.append(server.rss_mb())
    assert sizes[-1] - sizes[2] < 16  # Each model has 8 MB, so that six of them had 48.
    assert len(server.directories) == 1
