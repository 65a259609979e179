"""The fast path for JSON: decodes plain rows without MLflow, with results that are equal to the bit.

Rule of this module: it picks the decoder by the model's signature. A plain payload is JSON with rows of scalar columns
that the signature names, or of a numeric tensor, and each cell has its column's own type. A decoder returns None at the
first sign of anything else. `mlflow_grpc.payload.mlflow_json.codec` then decodes the payload, and MLflow decides.

It is fast because it parses with orjson, makes one array instead of a DataFrame for each call, and skips casts and
checks for cells that are known to have their column's type. It is equal because MLflow's casts are exact for cells of
these types (`mlflow.utils.proto_json_utils`, `mlflow.models.utils._enforce_schema`).
"""

from mlflow.models import Model
from mlflow.types import ColSpec, DataType

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.fast_json import cells
from mlflow_grpc.payload.fast_json.column_decoders import ColumnDecoder, MatrixDecoder
from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder
from mlflow_grpc.payload.fast_json.tensor_decoder import TensorDecoder


def decoder_for(metadata: Model) -> FastDecoder | None:
    """Returns the decoder for a model; None if its signature needs MLflow's parser."""
    schema = metadata.get_input_schema()
    if schema is None or metadata.get_params_schema() is not None or internals.is_signature_from_type_hint(metadata):
        return None
    if schema.is_tensor_spec():
        return TensorDecoder.of_spec(schema.inputs[0]) if not schema.has_input_names() else None
    specs: list[ColSpec] = schema.inputs
    data_types = [spec.type for spec in specs if isinstance(spec.type, DataType) and spec.type in cells.OF_COLUMN]
    if not schema.has_input_names() or len(data_types) < len(specs) or not all(spec.required for spec in specs):
        return None
    # Column names of a DataFrame may be integers, and MLflow treats an empty name as no name.
    names = [spec.name for spec in specs if isinstance(spec.name, str) and spec.name]
    if (
        len(names) < len(specs)
        or not names
        or len(set(names)) < len(names)
        or internals.is_unified_llm_input(dict.fromkeys(names))
    ):
        return None
    if len(set(data_types)) == 1 and data_types[0] is not DataType.string:
        return MatrixDecoder(names, data_types[0])
    return ColumnDecoder(names, data_types)
