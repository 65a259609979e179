"""Messages for any number of rows, which follow from the message of a single row.

Rule of this module: each column has the name and number that its field has in a single row, so a batch needs no lock of
its own.
"""

from dataclasses import replace
from typing import Literal

from _mlflow_grpc_protocol.field_numbers import NULLS_NUMBER
from _mlflow_grpc_protocol.shapes import FieldShape, MessageShape, ScalarShape, TensorShape
from _mlflow_grpc_protocol.typed_terms import Cardinality
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

from mlflow_grpc.contract.fields import MAX_FIELDS, PACKAGE, add_field
from mlflow_grpc.contract.message_maker import MessageMaker
from mlflow_grpc.contract.shapes import BatchShape
from mlflow_grpc.contract.types import Contract, ListOf, MapOf, Record, Tensor, Type, row_of

MAX_BATCH_COLUMNS = MAX_FIELDS // 2
"""Maximum columns of rows, because each column may have a second field with its nulls."""


def make_batch(
    maker: MessageMaker,
    contract: Contract,
    inputs: MessageShape,
    outputs: MessageShape,
    params: FieldShape | None,
) -> BatchShape | None:
    """Makes the messages for rows of a model.

    Args:
        maker: The maker of the model's messages.
        contract: Inputs and outputs of the model.
        inputs: Message for the input of a single row, with its numbers.
        outputs: Message for the output of a single row, with its numbers.
        params: Field of the input for the params; None for a model without params.

    Returns:
        The messages, or None for a model that takes or returns anything other than rows.

    """
    if not contract.takes_rows:
        return None
    input_rows = _make_rows(maker, "inputs", contract.inputs, inputs)
    if input_rows is None:
        return None
    if params is not None:
        add_field(maker.descriptor(input_rows.name), params.name, params.number, params.shape)
        maker.comments[input_rows.name, params.name] = maker.comments[inputs.name, params.name]
    output_rows = _make_rows(maker, "outputs", contract.outputs, outputs)
    return BatchShape(input_rows, output_rows) if output_rows is not None else None


def _make_rows(
    maker: MessageMaker, role: Literal["inputs", "outputs"], root: Record | Tensor | None, row: MessageShape
) -> MessageShape | None:
    types: list[Type | None] = [field.type for field in root.fields] if isinstance(root, Record) else [root]
    has_fixed_tensor = any(isinstance(type_, Tensor) and type_ == row_of(type_) for type_ in types)
    if not 0 < len(row.fields) <= MAX_BATCH_COLUMNS or has_fixed_tensor:
        return None
    rows = MessageShape(maker.derived[role], is_closed=row.is_closed)
    descriptor = maker.file.message_type.add(name=rows.name)
    descriptor.reserved_name.extend(maker.descriptor(row.name).reserved_name)
    descriptor.reserved_range.extend(maker.descriptor(row.name).reserved_range)
    maker.comments[rows.name, ""] = "Rows in columns: each field has a value for each row."
    for field, type_ in zip(row.fields, types, strict=True):
        rows.fields.append(_add_column(maker, descriptor, row, field, type_, is_output=role == "outputs"))
    descriptor.field.sort(key=lambda field: field.number)
    return rows


def _add_column(
    maker: MessageMaker,
    descriptor: DescriptorProto,
    row: MessageShape,
    field: FieldShape,
    type_: Type | None,
    *,
    is_output: bool,
) -> FieldShape:
    is_tensor = isinstance(field.shape, TensorShape)
    column = replace(
        field,
        shape=maker.wrapper(type_, field.name) if isinstance(type_, ListOf | MapOf) else field.shape,
        cardinality=Cardinality.SINGULAR if is_tensor else Cardinality.REPEATED,
    )
    add_field(descriptor, field.name, field.number, column.shape, column.cardinality)
    maker.comments[descriptor.name, field.name] = maker.comments[row.name, field.name]
    name_in_model = maker.model_names.names.get(f"{PACKAGE}.{row.name}.{field.name}")
    if name_in_model is not None:
        maker.model_names.names[f"{PACKAGE}.{descriptor.name}.{field.name}"] = name_in_model
    # Models predict None for required outputs too. The answer for a single row leaves such an output out.
    if is_tensor or not (is_output or not field.needs_value):
        return column
    nulls = maker.numbering.fields_of(row.name).nulls_field(field.name)
    indices = ScalarShape(Proto.TYPE_UINT64)
    add_field(descriptor, nulls, NULLS_NUMBER + field.number, indices, Cardinality.REPEATED)
    maker.comments[descriptor.name, nulls] = (
        f"Indices of the rows without {field.name}, counted from 0. The value at such an index has no meaning."
    )
    return replace(column, null_rows=nulls)
