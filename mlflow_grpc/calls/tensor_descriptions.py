"""Descriptions of models in messages of the Open Inference Protocol: metadata, configuration, statistics.

Rule of this module: it makes messages, and decides nothing. `mlflow_grpc.payload.tensors.table` has the tensors.
"""

from typing import Any

from google.protobuf.message import Message

from mlflow_grpc import protos
from mlflow_grpc.contract.types import Contract
from mlflow_grpc.engine.catalog import Entry
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.payload.tensors.table import (
    ANY_SIZE,
    TensorColumn,
    content_type_of,
    inputs_of,
    outputs_of,
)
from mlflow_grpc.telemetry.models import Totals

protos.load("open_inference.binpb")

_ModelMetadata = protos.message_named("inference.ModelMetadataResponse")
_ModelConfig = protos.message_named("inference.ModelConfigResponse")
_ModelStatistics = protos.message_named("inference.ModelStatistics")

PYFUNC, MLMODEL = "mlflow_pyfunc", "mlmodel_python"
"""Platforms of MLflow's models and of MLModel packages."""

NO_LIMIT = 2**31 - 1
"""Rows of a request: the size of the message is the limit."""

NO_VERSION = "1"
"""Version of a model without one in statistics, where perf_analyzer expects an integer."""

NANOS = 10**9


def metadata_of(entry: Entry, model: ServableModel, versions: list[str]) -> Message:
    """Returns the ModelMetadataResponse of a model.

    Args:
        entry: The model.
        model: The model as it is loaded.
        versions: Versions under the name of the model.

    """
    contract = model.model.info.contract
    metadata: Message = _ModelMetadata(
        name=entry.name,
        versions=versions,
        platform=_platform(entry),
        inputs=map(_tensor_metadata, inputs_of(contract)),
        outputs=map(_tensor_metadata, outputs_of(contract)),
        properties=_properties(model),
    )
    return metadata


def config_of(entry: Entry, model: ServableModel) -> Message:
    """Returns the ModelConfigResponse of a model."""
    contract = model.model.info.contract
    inputs, outputs = inputs_of(contract), outputs_of(contract)
    has_rows = _has_rows(contract, inputs, outputs)
    response = _ModelConfig()
    config = response.config
    config.name, config.platform, config.backend = entry.name, _platform(entry), "mlflow"
    config.max_batch_size = NO_LIMIT if has_rows else 0
    for column in inputs:
        config.input.add(
            name=column.name,
            data_type=_data_type(column),
            dims=_dims(column, has_rows=has_rows),
            optional=not column.required,
        )
    for column in outputs:
        config.output.add(name=column.name, data_type=_data_type(column), dims=_dims(column, has_rows=has_rows))
    if model.batched:
        config.dynamic_batching.SetInParent()
    config.model_transaction_policy.decoupled = False
    for name, text in _properties(model).items():
        config.parameters[name].string_value = text
    described: Message = response
    return described


def statistics_of(entry: Entry, totals: Totals) -> Message:
    """Returns the ModelStatistics of a model.

    The times of the stages include those of requests that failed. `success` has the time of all stages together.
    """
    stages = {
        "queue": totals.waiting,
        "compute_input": totals.decoding,
        "compute_infer": totals.predicting,
        "compute_output": totals.encoding,
    }
    statistics = _ModelStatistics(
        name=entry.name,
        version=entry.version or NO_VERSION,
        last_inference=int(totals.last_ended_s * 1000),
        inference_count=totals.rows,
        execution_count=totals.runs,
    )
    for stage, (count, seconds) in stages.items():
        duration = getattr(statistics.inference_stats, stage)
        duration.count, duration.ns = count, int(seconds * NANOS)
    success = statistics.inference_stats.success
    success.count = totals.answered
    success.ns = sum(getattr(statistics.inference_stats, stage).ns for stage in stages)
    statistics.inference_stats.fail.count = totals.failed
    described: Message = statistics
    return described


def _platform(entry: Entry) -> str:
    return MLMODEL if entry.config.class_path else PYFUNC


def _tensor_metadata(column: TensorColumn) -> dict[str, Any]:
    return {"name": _as_utf8(column.name), "datatype": column.datatype, "shape": column.shape}


def _properties(model: ServableModel) -> dict[str, str]:
    """Returns what tensors cannot express: content types, optional inputs, schemas and where the model comes from."""
    info = model.model.info
    properties = {
        "content_type": content_type_of(info.contract),
        "flavors": ",".join(info.flavors),
        "description": info.description,
        "run_id": info.run_id,
        "model_id": info.model_id,
        "inputs": info.input.mlflow_json,
        "outputs": info.output.mlflow_json,
        "params": info.params.mlflow_json,
    }
    for side, columns in (("inputs", inputs_of(info.contract)), ("outputs", outputs_of(info.contract))):
        for column in columns:
            properties[f"{side}.{column.name}.content_type"] = column.content_type
            if not column.required:
                properties[f"{side}.{column.name}.optional"] = "true"
    return {_as_utf8(name): _as_utf8(text) for name, text in properties.items() if text}


def _has_rows(contract: Contract, inputs: tuple[TensorColumn, ...], outputs: tuple[TensorColumn, ...]) -> bool:
    """Returns True if all inputs and outputs have a row for each row of a request as their first dimension."""
    shapes = [column.shape for column in (*inputs, *outputs)]
    return contract.takes_rows and bool(inputs) and all(shape[:1] == (ANY_SIZE,) for shape in shapes)


def _dims(column: TensorColumn, *, has_rows: bool) -> tuple[int, ...]:
    return column.shape[1:] if has_rows else column.shape


def _data_type(column: TensorColumn) -> str:
    return "TYPE_STRING" if column.datatype == "BYTES" else f"TYPE_{column.datatype}"


def _as_utf8(text: str) -> str:
    """Replaces lone surrogates, which YAML and JSON can hold and protobuf cannot."""
    return text.encode(errors="replace").decode()
