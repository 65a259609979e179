"""The table of docs/open-inference.md, compared with the one of the code."""

import re

from mlflow_grpc.contract.types import AnyValue, Contract, DataType, Field, ListOf, MapOf, Record, Scalar, Tensor, Type
from mlflow_grpc.payload.tensors.table import inputs_of, outputs_of
from tests.support.servers import ROOT

PAGE = (ROOT / "docs" / "open-inference.md").read_text()

ROWS = {
    name: tuple(cells)
    for row in re.findall(r"^\| (.+?) \|$", PAGE.split("## Types")[1].split("## Requests")[0], re.M)
    for name, *cells in [re.split(r" ?\| ?", row)]
}


def test_scalars_and_structures():
    """Each row of the page has the datatype, shape and content type that the code has."""
    types: dict[str, Type] = {data_type.value: Scalar(data_type) for data_type in DataType}
    structures: list[Type] = [ListOf(Scalar(DataType.LONG)), MapOf(Scalar(DataType.LONG)), AnyValue(), Record("r")]
    columns = inputs_of(Contract(Record("input", [Field(name, type_) for name, type_ in types.items()])))
    assert len(columns) == 8
    for column in columns:
        datatype, shape, content_type = ROWS[column.name]
        described = re.findall(r"`(\w+)`", content_type)
        assert (datatype, shape, described) == (
            column.datatype, str(list(column.shape)), [column.content_type] if column.content_type else [],
        )  # fmt: skip
    datatype, shape, content_type = ROWS["Array, Object, Map, AnyType"]
    for column in outputs_of(Contract(outputs=Record("output", [Field("", type_) for type_ in structures]))):
        assert (column.datatype, str(list(column.shape))) == (datatype, shape)
        assert f"`{column.content_type}`" in content_type


def test_tensors_and_names():
    """Tensors have the datatype of their dtype; inputs and outputs without a name are numbered from 0."""
    (column,) = inputs_of(Contract(Tensor("float32", (-1, 2))))
    assert (column.name, column.datatype, column.shape, column.content_type) == ("input-0", "FP32", (-1, 2), "")
    described = [
        (column.datatype, column.content_type)
        for column in outputs_of(
            Contract(
                outputs=Record(
                    "o", [Field("", Tensor(dtype, (-1,))) for dtype in ("object", "bytes", "datetime64[ns]")]
                )
            )
        )
    ]
    assert described == [("BYTES", "str"), ("BYTES", ""), ("BYTES", "datetime")]
    unnamed = Contract(outputs=Record("o", [Field("", Scalar(DataType.LONG))] * 2))
    assert [column.name for column in outputs_of(unnamed)] == ["output-0", "output-1"]
