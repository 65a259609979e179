"""calls/: fields of a call's log line besides its status."""

import asyncio
import logging

import numpy as np
import pandas as pd
import pytest

from mlflow_grpc import logs
from mlflow_grpc.calls.refusals import Refusals
from mlflow_grpc.calls.traceparent import trace_id
from mlflow_grpc.engine import progress
from mlflow_grpc.errors import Overloaded

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("header", [GOOD, f"01-{GOOD[3:]}", f"cc-{GOOD[3:]}-what-the-future-brings"])
def test_valid_traceparents_are_read(header):
    """The example of the W3C recommendation is read, and so are later versions with more fields."""
    assert trace_id(header) == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        GOOD[:-1],
        f"{GOOD}-more",
        f"{GOOD} ",
        f"{GOOD}\n",
        f"01-{GOOD[3:]}x",
        f"ff-{GOOD[3:]}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        GOOD.upper(),
        GOOD.replace("-", "_"),
        f"00-{TRACE[:-1]}g-00f067aa0ba902b7-01",
    ],
)
def test_invalid_traceparents_are_ignored(header):
    """An invalid header counts as absent."""
    assert trace_id(header) is None


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (pd.DataFrame({"a": [1, 2, 3]}), 3),
        (np.zeros((4, 2)), 4),
        ({"a": np.zeros((5, 2)), "b": np.zeros(5)}, 5),
        ([{"a": 1}, {"a": 2}], 2),
        ({"a": 1}, None),
        ({}, None),
        (np.float64(1), None),
        ("text", None),
    ],
)
def test_row_count(data, count):
    """`row_count` returns the number of rows of tables, arrays and lists."""
    assert progress.row_count(data) == count


def test_waiting_and_model_time_are_counted_separately(monkeypatch):
    """Waiting ends when the turn comes. The time in the model is counted separately, also while the model still runs."""
    now = 100.0
    monkeypatch.setattr("mlflow_grpc.engine.progress.time.monotonic", lambda: now)
    usage, done, running, waiting = (
        progress.CallUsage(),
        progress.RequestProgress(),
        progress.RequestProgress(),
        progress.RequestProgress(),
    )
    assert (usage.rows, usage.waited_s, usage.model_s) == (None, None, None)
    now = 101.0
    done.start()
    now = 102.0
    done.start()
    with progress.PredictTimer([done]):
        now = 105.0
    done.rows = 7
    now = 106.0
    usage.add(done)
    assert (usage.rows, usage.waited_s, usage.model_s) == (7, 1.0, 3.0)
    running.start()
    progress.PredictTimer([running]).__enter__()
    now = 108.0
    usage.add(running)
    assert (usage.waited_s, usage.model_s) == (1.0 + 6.0, 3.0 + 2.0)
    usage.add(waiting)
    assert (usage.rows, usage.waited_s, usage.model_s) == (7, 7.0 + 8.0, 5.0)


@pytest.mark.parametrize(("level", "lines"), [(logging.WARNING, 1), (logging.ERROR, 0)])
def test_refusals_have_the_level_warning(caplog, level, lines):
    """With `--log-level error` there is no line about calls that were refused."""
    logger = logs.calls._logger
    before = logger.level

    async def refuse() -> None:
        refusals = Refusals()
        refusals.count("m", Overloaded("There is no room.", retry_after_s=1.0), "ipv4:127.0.0.1:1")
        refusals.write()

    logger.setLevel(level)
    try:
        asyncio.run(refuse())
        logs.calls.flush()
    finally:
        logger.setLevel(before)
    assert [record.msg for record in caplog.records] == ["refused"] * lines
