"""recording/recorder.py: a bounded queue, files that are complete, and a disk that fails."""

import asyncio
import contextlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlflow_grpc.calls.call import Call
from mlflow_grpc.engine.admission import Admission, Stage
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.requests import NoObserver, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.errors import CallerDeadlineExceeded, InvalidPayload, ModelFailed, StartError
from mlflow_grpc.recording import recorder as recorder_module
from mlflow_grpc.recording import rows
from mlflow_grpc.recording.recorder import DROPPED, FAILED, WRITTEN, Recorder
from mlflow_grpc.recording.sampling import SampledRequest, recording_engine
from tests.support.models import FunctionModel, GatedModel, PlainCodec, judge


class Observer(Call):
    """A call without a protocol."""

    def __init__(self, request_id: str = "") -> None:
        super().__init__("/MLflow/predict", request_id)
        self.model, self.version_trailers = "words", (("mlflow-model-version", "3"),)

    def metadata(self, key: str) -> str | None:
        return None

    def peer(self) -> str:
        return ""

    def time_remaining(self) -> float | None:
        return None

    def server_span(self, code: str, error: Any) -> Any:
        raise AssertionError("it is not traced")


MODEL = ServableModel(FunctionModel(str), PlainCodec())


def ended(text: str, request_id: str = "") -> SampledRequest[str]:
    """Returns a request that was answered with its own text."""
    call = Observer(request_id)
    sampled = SampledRequest(TextRequest(text, None, call), call)
    sampled.encode_rows(MODEL, text)
    return sampled


def counting(directory: Path, **options: Any) -> tuple[Recorder, Counter[str]]:
    """Returns a recorder, and the counts of its results."""
    counted: Counter[str] = Counter()
    made = Recorder(directory, **options)
    made.count = lambda result, number: counted.update({result: number})
    return made, counted


@contextlib.contextmanager
def held_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Holds the thread of a recorder at its first row; yields a function that waits until it is held."""
    entered, leave = threading.Event(), threading.Event()

    def wait(request: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return rows.row_of(request)

    monkeypatch.setattr(recorder_module, "row_of", wait)

    def wait_until_held() -> None:
        assert entered.wait(30)

    try:
        yield wait_until_held
    finally:
        leave.set()


def test_what_does_not_fit_into_the_queue_is_dropped(tmp_path, monkeypatch, caplog):
    """The queue has a maximum size. Calls beyond it are dropped, counted and logged, and none of them waits."""
    recorder, counted = counting(tmp_path, max_queued_bytes=100)
    with held_thread(monkeypatch) as wait_until_held:
        recorder.put(ended("x"), MODEL)
        wait_until_held()
        for _ in range(10):
            recorder.put(ended("y" * 20), MODEL)  # 20 characters of input and 20 of output.
        assert counted == {DROPPED: 8}
        caplog.set_level(logging.WARNING)
    asyncio.run(recorder.close())
    assert counted == {DROPPED: 8, WRITTEN: 3}
    assert len(pd.read_parquet(tmp_path)) == 3
    assert "8 calls are not recorded, because they came faster than they can be written" in caplog.text


@pytest.mark.parametrize("limits", [{"max_file_s": 0.01}, {"max_file_bytes": 1, "max_file_s": 3600.0}])
def test_files_are_complete_by_age_and_by_size(tmp_path, monkeypatch, limits):
    """A file is completed at its maximum age or size while the server runs. Until then, readers pass over it."""
    monkeypatch.setattr(recorder_module, "MAX_GROUP", 1)
    recorder, counted = counting(tmp_path, **limits)
    for number in range(2):
        recorder.put(ended(f"call {number}"), MODEL)
        while counted[WRITTEN] <= number:
            pass
    assert [pd.read_parquet(file)["input"].tolist() for file in sorted(tmp_path.iterdir())] == [["call 0"], ["call 1"]]
    asyncio.run(recorder.close())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_fails_costs_only_recorded_calls(tmp_path, caplog):
    """While the directory is away, calls are counted as failed with one log line; later, they are recorded again."""
    caplog.set_level(logging.INFO)
    directory = tmp_path / "recorded"
    recorder, counted = counting(directory, retry_s=0.0, max_file_s=0.0)
    shutil.rmtree(directory)
    for number in range(3):
        recorder.put(ended("lost"), MODEL)
        while counted[FAILED] <= number:
            pass
    directory.mkdir()
    recorder.put(ended("kept"), MODEL)
    while not counted[WRITTEN]:
        pass
    asyncio.run(recorder.close())
    assert counted == {FAILED: 3, WRITTEN: 1}
    assert pd.read_parquet(directory)["input"].tolist() == ["kept"]
    lines = [record.message for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == [
        f"cannot record calls in {directory}",
        f"calls are recorded again in {directory}; 3 were lost",
    ]


def test_an_unusable_directory_is_refused(tmp_path):
    """A directory that cannot be written is an error at the start, with what to do."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StartError, match=f"--record {file}/x: Not a directory; name a directory"):
        Recorder(file / "x")


def engine(model: Any, recorder: Recorder) -> Engine:
    admission = Admission(max_requests=9, max_bytes=1000, concurrency=1, timeout_s=60)
    admission.stage = Stage.OPEN
    running = recording_engine(recorder, 1.0)(ModelThreadPool(1), admission, timeout_s=60)
    running.host(ServableModel(model, PlainCodec()))
    return running


def test_requests_that_are_late_are_not_recorded(tmp_path):
    """A request whose time limit passed says nothing about the model. Nor does one that no caller sent."""
    recorder, counted = counting(tmp_path)
    model = GatedModel()

    async def run() -> None:
        running = engine(model, recorder)
        with pytest.raises(CallerDeadlineExceeded):
            await running.predict(TextRequest("hold", None, Observer()), time.monotonic() + 0.05)
        model.let_go()
        await running.predict(TextRequest("self-test", None, NoObserver()), None)
        running.threads.close()
        await recorder.close()

    asyncio.run(run())
    assert not counted
    assert not list(tmp_path.iterdir())


def test_requests_of_a_stream_are_recorded_one_by_one(tmp_path):
    """Each message of a stream leaves a row under the id of its call, with its own outcome."""
    recorder, _ = counting(tmp_path)

    async def run() -> None:
        running = engine(FunctionModel(judge), recorder)
        for text, error in (("a", None), ("bad", InvalidPayload), ("broken", ModelFailed), ("b", None)):
            answering = await running.submit(TextRequest(text, None, Observer("one")), None)
            if error is None:
                assert await answering == text
            else:
                with pytest.raises(error):
                    await answering
        running.threads.close()
        await recorder.close()

    asyncio.run(run())
    calls = pd.read_parquet(tmp_path)
    assert calls["request_id"].tolist() == ["one"] * 4
    assert calls["status"].tolist() == ["OK", "INVALID_ARGUMENT", "INTERNAL", "OK"]
    assert calls["output"].fillna("").tolist() == ["a", "", "", "b"]
