"""Discovery of a model's contract.

Rule of this module: it makes no call; it yields calls and is sent their results.
"""

import copy
import threading
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc

from mlflow_grpc_client import _options, _reflection, _wire
from mlflow_grpc_client._calls import Call, Pause, Steps, Wait
from mlflow_grpc_client._reflection import MakeCall
from mlflow_grpc_client._typed import descriptors
from mlflow_grpc_client._typed.contract import Contract
from mlflow_grpc_client.errors import PredictError, failure


@dataclass(frozen=True, slots=True)
class FetchContract:
    """A request to fetch a model's contract, or to take it from the client's cache."""

    label: str
    """`name`, `name/version`, or empty for the default model."""
    make_call: MakeCall
    timeout_s: float
    """The caller's timeout in seconds."""
    cached: Contract | None = None
    """A contract to check with the server, because it may be outdated."""


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

    def get(self, fetch: FetchContract) -> Steps:
        """A contract from the cache or from the server. One caller fetches it for all that wait."""
        while True:
            future: Future[Contract | PredictError] = Future()
            with self._lock:
                contract = self._cache.get(fetch.label)
                if contract is not None and contract is not fetch.cached:
                    return contract
                running = self._fetches.setdefault(fetch.label, future)
            if running is future:
                return (yield from self._fetch_for_all(fetch, future))
            outcome = yield Wait(running, fetch.timeout_s)
            if isinstance(outcome, Contract):
                return outcome
            if outcome.code not in _CALLER_SPECIFIC_CODES:
                raise copy.copy(outcome)

    def _fetch_for_all(self, fetch: FetchContract, future: Future[Contract | PredictError]) -> Steps:
        message = "The caller that fetched the contract has stopped waiting."
        outcome: Contract | PredictError = failure(grpc.StatusCode.CANCELLED, message)
        try:
            outcome = self._cache[fetch.label] = yield from fetch_contract(fetch)
        except PredictError as error:
            outcome = error
            raise
        finally:
            with self._lock:
                del self._fetches[fetch.label]
            future.set_result(outcome)
        return outcome


def fetch_contract(fetch: FetchContract) -> Generator[Call | Pause, Any, Contract]:
    """Fetches the contract of a model. Retries while it is loading, with gRPC's pauses.

    Yields:
        Calls to make and pauses; send the result of each, or throw its PredictError.

    Returns:
        The contract; `cached` itself if it is still valid.

    Raises:
        PredictError: There is no such model, it has no types, or the server does not describe them.

    """
    model, is_loading = yield from _ready_model(fetch)
    if is_loading and model.state == model.READY:
        label = descriptors.label_of(model)
        message = f"The model {label} has no typed RPC yet, because the server loads other models."
        raise failure(grpc.StatusCode.UNAVAILABLE, message)
    descriptors.check_typed(model)
    if fetch.cached is not None and fetch.cached.types_key == descriptors.types_key(model):
        return fetch.cached
    pool = yield from _reflection.pool(fetch.make_call)
    try:
        return descriptors.contract_of(model, pool)
    except KeyError as error:
        message = f"The server's reflection lacks a message of the model {descriptors.label_of(model)}: {error.args[0]}"
        raise failure(grpc.StatusCode.INTERNAL, message) from None


def _ready_model(fetch: FetchContract) -> Generator[Call | Pause, Any, tuple[Any, bool]]:
    """The message mlflow_grpc.v1.Model, and True if the model or the server was still loading at the last retry."""
    for pause_s in _options.RETRY_PAUSES_S:
        model, is_loading = yield from _model_now(fetch)
        if not is_loading or not (yield Pause(pause_s)):
            return model, is_loading
    return (yield from _model_now(fetch))


def _model_now(fetch: FetchContract) -> Generator[Call, Any, tuple[Any, bool]]:
    model = yield from _model(fetch)
    if descriptors.awaits_typed(model):
        return model, (yield from _is_starting(fetch))
    return model, model.state == model.LOADING


def _is_starting(fetch: FetchContract) -> Generator[Call, Any, bool]:
    """True if the server does not say that it is healthy, which it does once all models are loaded."""
    try:
        answer = yield fetch.make_call(
            _wire.HEALTH_CHECK, _wire.HealthCheckRequest(), _wire.HealthCheckResponse, lambda response: response
        )
    except PredictError as error:
        if error.code is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return False
    return bool(answer.status != answer.SERVING)


def _model(fetch: FetchContract) -> Generator[Call, Any, Any]:
    name, _, version = fetch.label.partition("/")
    request = _wire.GetModelRequest(name=name, version=version)
    return (yield fetch.make_call(_wire.GET_MODEL, request, _wire.Model, lambda model: model))
