"""Trials of protocols: payloads, streams, and the services that gRPC clients and proxies expect."""

from typing import Any

import numpy as np

from benchmarks.peers.features.calls import ANSWERED, status
from benchmarks.peers.features.models import FACTOR, payload
from benchmarks.peers.features.stand import Observation, Stand, Started
from benchmarks.peers.features.tried import Options
from benchmarks.peers.protocols import Flight, Protocol, Tensors, TensorsRest
from mlflow_grpc.calls.inference_models import REQUEST

VALUES = (1.0, 2.5, -3.0)
TEXT = payload(*VALUES)
EXPECTED = [FACTOR * value for value in VALUES]
NO_GRPC = "no gRPC port"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
LIST_SERVICES = b"\x3a\x00"
"""A ServerReflectionRequest with an empty `list_services`, field 7."""


class TensorFields(Tensors):
    """The Open Inference Protocol with elements in the fields of messages, where tritonclient sends raw bytes."""

    def request(self, text: str) -> list[bytes]:
        """Returns one message with the columns."""
        message: Any = REQUEST.FromString(super().request(text)[0])
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True):
            tensor.contents.fp64_contents.extend(np.frombuffer(raw).tolist())
        del message.raw_input_contents[:]
        data: bytes = message.SerializeToString()
        return [data]


def serving(stand: Stand) -> Observation:
    """An MLflow model is served: what that takes, and whether the server answers by its main protocol."""
    word = _try(stand.plain, stand.plain.server.json_over_http)
    how = stand.plain.server.how
    return Observation(how, f"served by {how}; a call over HTTP: {word}")


def mlflow_json(stand: Stand) -> Observation:
    """MLflow's `dataframe_split` goes over HTTP and over gRPC."""
    server = stand.plain.server
    http = _try(stand.plain, server.json_over_http)
    if server.json_over_grpc:
        grpc = f"{server.json_over_grpc.path}: {_try(stand.plain, server.json_over_grpc)}"
    else:
        grpc = "its gRPC service takes tensors only" if server.has_grpc else NO_GRPC
    works = [name for name, word in (("HTTP", http), ("gRPC", grpc.rpartition(": ")[2])) if word == ANSWERED]
    return Observation(_listed(works), f"{server.json_over_http.path}: {http}; over gRPC: {grpc}")


def open_inference(stand: Stand) -> Observation:
    """The Open Inference Protocol, at the paths and with the messages that tritonclient uses."""
    server = stand.plain.server
    http = _try(stand.plain, TensorsRest())
    grpc, more = NO_GRPC, ""
    if server.has_grpc:
        grpc = _try(stand.plain, Tensors())
        if server.inference_service not in Tensors.path:
            raw, fields = Tensors(), TensorFields()
            raw.path = fields.path = f"/{server.inference_service}/ModelInfer"
            more = f"; {raw.path}: raw tensors {_try(stand.plain, raw)}, in fields {_try(stand.plain, fields)}"
    works = [name for name, word in (("HTTP", http), ("gRPC", grpc)) if word == ANSWERED]
    return Observation(_listed(works), f"{TensorsRest.path}: {http}; {Tensors.path}: {grpc}{more}")


def streams(stand: Stand) -> Observation:
    """A gRPC stream: two messages of ModelStreamInfer are answered by two, or a call of the server's own by several."""
    if not stand.server.has_grpc:
        return Observation("no", NO_GRPC)
    if "streams" in stand.server.settings:
        with stand.start(Options(streams=True)) as started:
            word, count = _model_stream(started)
        how = f" (with {stand.server.settings['streams']})"
    else:
        (word, count), how = _model_stream(stand.plain), ""
    seen = f"two messages of ModelStreamInfer{how}: {word}, {count} answers"
    native = stand.server.stream
    if native is not None:
        rows = _try(stand.plain, native)
        return Observation(
            "of its own form" if rows == ANSWERED else "no", f"{seen}; {native.path}, three rows: {rows}"
        )
    short = {0: "no", 1: "first message only"}.get(count, "yes")
    return Observation(short, seen)


def flight(stand: Stand) -> Observation:
    """An exchange of one record batch by Arrow Flight."""
    if not stand.server.has_grpc:
        return Observation("no", NO_GRPC)
    word = _try(stand.plain, Flight())
    return Observation("yes" if word == ANSWERED else "no", f"{Flight.path}: {word}")


def health_and_reflection(stand: Stand) -> Observation:
    """The health check of gRPC, and the list of services by reflection."""
    if not stand.server.has_grpc:
        return Observation("no", NO_GRPC)
    with stand.plain.channel() as connected:
        health, _ = status(connected, HEALTH, [b""])
        reflection = [status(connected, path, [LIST_SERVICES])[0] for path in REFLECTION]
    works = [name for name, word in (("health", health), ("reflection", reflection[0])) if word == "OK"]
    seen = f"{HEALTH}: {health}; reflection v1: {reflection[0]}, v1alpha: {reflection[1]}"
    return Observation("yes" if len(works) == 2 else _listed(works), seen)  # noqa: PLR2004 - both


def _model_stream(started: Started) -> tuple[str, int]:
    requests = [message for value in VALUES[:2] for message in Tensors().request(payload(value))]
    with started.channel() as connected:
        return status(connected, "/inference.GRPCInferenceService/ModelStreamInfer", requests)


def _try(started: Started, protocol: Protocol) -> str:
    """Returns what comes of three rows: "answered" if the predictions are the model's."""
    result = started.call(protocol, TEXT)
    if result.word == ANSWERED and result.values != EXPECTED:
        return f"answered {result.values} in place of {EXPECTED}"
    return result.word


def _listed(names: list[str]) -> str:
    return " and ".join(names) or "no"
