"""The fast path for JSON: decodes plain rows without MLflow, with results that are equal to the bit.

Rule of this module: it picks the decoder by the model's signature. A plain payload is JSON with rows of scalar columns
that the signature names, or of a numeric tensor, and each cell has its column's own type. In a column of floats it
may also be missing. A payload with params is not plain. A decoder returns None at the first sign of anything else.
`mlflow_grpc.payload.mlflow_json.codec` then decodes the payload, and MLflow decides.

It is fast because it parses with orjson, makes one array instead of a DataFrame for each call, and skips casts and
checks for cells that are known to have their column's type. It is equal because MLflow's casts are exact for cells of
these types (`mlflow.utils.proto_json_utils`, `mlflow.models.utils._enforce_schema`).
"""

from mlflow.models import Model
from mlflow.types import ColSpec, DataType, TensorSpec

from mlflow_grpc.hosting.pyfunc import internals
from mlflow_grpc.payload.fast_json import cells
from mlflow_grpc.payload.fast_json.column_decoders import ColumnDecoder, MatrixDecoder
from mlflow_grpc.payload.fast_json.fast_decoder import FastDecoder
from mlflow_grpc.payload.fast_json.tensor_decoder import TensorDecoder


class NotPlain(Exception):
    """A signature needs MLflow's parser. The message says why, as a part of a sentence for people."""


def decoder_for(metadata: Model) -> FastDecoder:
    """Returns the decoder for a model.

    Raises:
        NotPlain: The signature needs MLflow's parser.

    """
    schema = metadata.get_input_schema()
    if schema is None:
        raise NotPlain("the model has no signature")
    if internals.is_signature_from_type_hint(metadata):
        raise NotPlain("the signature comes from type hints")
    if schema.is_tensor_spec():
        return _tensor_decoder(schema.inputs)
    names, types = map(list, zip(*map(_plain_column, schema.inputs), strict=True))
    if len(set(names)) < len(names):
        raise NotPlain("the signature has two columns of one name")
    if internals.is_unified_llm_input(dict.fromkeys(names)):
        raise NotPlain("the signature has the columns of an LLM payload")
    if len(set(types)) == 1 and types[0] is not DataType.string:
        return MatrixDecoder(names, types)
    return ColumnDecoder(names, types)


def _tensor_decoder(specs: list[TensorSpec]) -> TensorDecoder:
    if len(specs) > 1 or specs[0].name is not None:
        raise NotPlain("the signature has named tensors")
    decoder = TensorDecoder.of_spec(specs[0])
    if decoder is None:
        raise NotPlain(f"the signature has a tensor of type {specs[0].type} and shape {specs[0].shape}")
    return decoder


def _plain_column(spec: ColSpec) -> tuple[str, DataType]:
    """The name and type of a column; raises NotPlain if it has none, or a type that the fast path does not read."""
    # Column names of a DataFrame may be integers, and MLflow treats an empty name as no name.
    if not isinstance(spec.name, str) or not spec.name:
        raise NotPlain("the signature has columns without names")
    if not isinstance(spec.type, DataType) or spec.type not in cells.OF_COLUMN:
        name = spec.type.name if isinstance(spec.type, DataType) else type(spec.type).__name__
        raise NotPlain(f"the signature has columns of type {name}, such as {spec.name!r}")
    return spec.name, spec.type
