"""Versions behind aliases, agreed between processes."""

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest

from mlflow_grpc.registry_versions import RegistryVersions, Version, answer_worker

ALIAS = "models:/churn@champion"


@pytest.fixture
def connect() -> Iterator[Any]:
    """Returns a function that makes the versions of a worker, which a thread answers like the supervisor."""
    first: dict[str, Version] = {}
    ends: list[Connection] = []
    threads = []

    def answer(supervisor_end: Connection) -> None:
        try:
            while wait([supervisor_end]):
                answer_worker(supervisor_end, first)
        except EOFError:
            supervisor_end.close()

    def worker() -> RegistryVersions:
        supervisor_end, worker_end = multiprocessing.Pipe()
        ends.append(worker_end)
        threads.append(threading.Thread(target=answer, args=(supervisor_end,)))
        threads[-1].start()
        return RegistryVersions({}, worker_end)

    yield worker
    for end in ends:
        end.close()
    for thread in threads:
        thread.join(10)


def test_the_first_answer_counts_for_all_workers(connect):
    """Two workers that ask the registry before and after an alias is moved get the same version."""
    before, after = connect(), connect()
    assert before.resolve(ALIAS, lambda _: ("churn", "1")) == ("churn", "1")
    assert after.resolve(ALIAS, lambda _: ("churn", "2")) == ("churn", "1")
    assert after.resolve("models:/churn/latest", lambda _: ("churn", "2")) == ("churn", "2")


def test_a_replacement_does_not_ask_the_registry():
    """A version that was agreed on before a worker started is used without a query."""
    replacement = RegistryVersions({ALIAS: ("churn", "1")})
    assert replacement.resolve(ALIAS, pytest.fail) == ("churn", "1")


def test_a_version_that_replaces_another_counts_for_all_that_start_later(connect):
    """A worker that tracks its registry publishes a version: workers that start afterwards do not query."""
    tracking = connect()
    assert tracking.resolve(ALIAS, lambda _: ("churn", "1")) == ("churn", "1")
    tracking.replace(ALIAS, ("churn", "2"))
    assert tracking.resolve(ALIAS, pytest.fail) == ("churn", "2")
    # The supervisor reads the messages of a connection in order, so the second query shows that it has read the first.
    assert tracking.resolve("models:/other@x", lambda _: ("other", "1")) == ("other", "1")
    assert connect().resolve(ALIAS, lambda _: ("churn", "1")) == ("churn", "2")


def test_an_unanswered_query_delays_no_other(connect):
    """While the registry does not answer for one URI, the others are resolved."""
    versions, may_answer = connect(), threading.Event()

    def slow(_: str) -> Version:
        may_answer.wait(10)
        return "slow", "1"

    waiting = threading.Thread(target=versions.resolve, args=("models:/slow@x", slow))
    waiting.start()
    assert versions.resolve(ALIAS, lambda _: ("churn", "1")) == ("churn", "1")
    may_answer.set()
    waiting.join(10)


def test_a_failed_query_is_repeated():
    """An error of the registry is raised, and the next call asks again."""
    versions = RegistryVersions()

    def fail(_: str) -> Version:
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        versions.resolve(ALIAS, fail)
    assert versions.resolve(ALIAS, lambda _: ("churn", "1")) == ("churn", "1")


@pytest.mark.parametrize(("uri", "answer"), [("models:/churn/1", ("churn", "1")), ("runs:/0/model", None)])
def test_an_exact_uri_needs_no_agreement(uri, answer):
    """The supervisor is not asked about a URI with a version or without a registered model."""
    closed, _ = multiprocessing.Pipe()
    closed.close()
    assert RegistryVersions({}, closed).resolve(uri, lambda _: answer) == answer
