"""Discovery of a model's contract.

Rule of this module: it makes no call; it yields calls and is sent their results.
"""

import copy
import threading
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

import grpc

from mlflow_grpc_client import _options, _reflection, _wire
from mlflow_grpc_client._calls import Call, Pause, Steps, Wait
from mlflow_grpc_client._reflection import MakeCall
from mlflow_grpc_client._typed import descriptors
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client.errors import PredictError, failure

_CALLER_SPECIFIC_CODES = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
"""Statuses caused by a caller's own deadline or metadata. Other callers of the same fetch try again."""


class Contracts:
    """The contracts that a client has fetched, for any number of threads or tasks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cache: dict[str, Contract] = {}
        self._fetches: dict[str, Future[Contract | PredictError]] = {}
        """Results of running fetches by the labels of their models."""

    @property
    def labels(self) -> list[str]:
        """The labels of their models."""
        return [contract.label for contract in self._cache.values()]

    def get(self, label: str, make_call: MakeCall, timeout_s: float, cached: Contract | None = None) -> Steps:
        """The contract of a model from the cache or from the server. One caller fetches it for all that wait.

        The label is empty for the default model. A `cached` contract is checked with the server, because it may be
        outdated.
        """
        while True:
            future: Future[Contract | PredictError] = Future()
            with self._lock:
                contract = self._cache.get(label)
                if contract is not None and contract is not cached:
                    return contract
                running = self._fetches.setdefault(label, future)
            if running is future:
                return (yield from self._fetch_for_all(label, make_call, cached, future))
            outcome = yield Wait(running, timeout_s)
            if isinstance(outcome, Contract):
                return outcome
            if outcome.code not in _CALLER_SPECIFIC_CODES:
                raise copy.copy(outcome)

    def _fetch_for_all(
        self, label: str, make_call: MakeCall, cached: Contract | None, future: Future[Contract | PredictError]
    ) -> Steps:
        message = "The caller that fetched the contract has stopped waiting."
        outcome: Contract | PredictError = failure(grpc.StatusCode.CANCELLED, message)
        try:
            outcome = self._cache[label] = yield from _fetch(label, make_call, cached)
        except PredictError as error:
            outcome = error
            raise
        finally:
            with self._lock:
                del self._fetches[label]
            future.set_result(outcome)
        return outcome


def _fetch(label: str, make_call: MakeCall, cached: Contract | None) -> Generator[Call | Pause, Any, Contract]:
    """Fetches the contract of a model; the result is `cached` itself if that is still valid.

    Raises a PredictError if there is no such model, it has no types, or the server does not describe them.
    """
    model, is_loading = yield from _ready_model(label, make_call)
    if is_loading and model.state == model.READY:
        message = (
            f"The model {descriptors.label_of(model)} has no typed RPC yet, because the server loads other models."
        )
        raise failure(grpc.StatusCode.UNAVAILABLE, message)
    descriptors.check_typed(model)
    if cached is not None and cached.types_key == descriptors.types_key(model):
        return cached
    pool = yield from _reflection.pool(make_call)
    try:
        return descriptors.contract_of(model, pool)
    except KeyError as error:
        message = f"The server's reflection lacks a message of the model {descriptors.label_of(model)}: {error.args[0]}"
        raise failure(grpc.StatusCode.INTERNAL, message) from None


def _ready_model(label: str, make_call: MakeCall) -> Generator[Call | Pause, Any, tuple[Any, bool]]:
    """The message mlflow_grpc.v1.Model, and True if the model or the server was still loading at the last retry.

    It is fetched again while it is loading, with gRPC's pauses.
    """
    for pause_s in _options.RETRY_PAUSES_S:
        model, is_loading = yield from _model_now(label, make_call)
        if not is_loading or not (yield Pause(pause_s)):
            return model, is_loading
    return (yield from _model_now(label, make_call))


def _model_now(label: str, make_call: MakeCall) -> Generator[Call, Any, tuple[Any, bool]]:
    name, _, version = label.partition("/")
    model = yield make_call(_wire.GET_MODEL, _wire.GetModelRequest(name=name, version=version), _wire.Model)
    if not descriptors.awaits_typed(model):
        return model, model.state == model.LOADING
    try:
        health = yield make_call(_wire.HEALTH_CHECK, _wire.HealthCheckRequest(), _wire.HealthCheckResponse)
    except PredictError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return model, False
    # A server says that it is healthy once all models are loaded.
    return model, health.status != health.SERVING
