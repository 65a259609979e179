"""Schemas of the payloads and answers of one model.

Rule of this module: the formats are those of the model's examples, because MLflow has checked these.
"""

import json

from mlflow_grpc.contract import json_schema
from mlflow_grpc.contract.types import Field, JsonSchema, Record, Scalar, Tensor, has_tensors, row_of
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.hosting.model import SchemaTexts
from mlflow_grpc.http.invocations import ARROW
from mlflow_grpc.http.openapi.components import Components, without_required
from mlflow_grpc.http.openapi.payload_examples import CSV, KEYS, PLAIN_TEXT, RECORD, UNIFIED, Example
from mlflow_grpc.http.response import JSON
from mlflow_grpc.payload.codec import TextCodec

ANY_LIST: JsonSchema = {"type": "array"}


class PayloadSchemas:
    """The schemas of one model, which it adds to the components of a document."""

    def __init__(self, model: ServableModel, name: str, examples: list[Example], components: Components) -> None:
        """Adds the schemas of input, output and params.

        Args:
            model: The model.
            name: Prefix of the names of its schemas.
            examples: An example for each format that it accepts.
            components: Components to which the schemas are added.

        """
        self._model, self._name, self._components = model, name, components
        self._formats = {example.format for example in examples}
        self._values = {key: example.value[key] for example in examples if (key := example.format) in KEYS}
        info = model.model.info
        self._inputs, self._outputs = info.contract.inputs, info.contract.outputs
        self._is_record = model.rest_records is not None
        self._row = self._added("input", info.input)
        self._output = self._added("output", info.output)
        self._params = self._added("params", info.params) if info.contract.params else None

    def _added(self, suffix: str, texts: SchemaTexts) -> JsonSchema:
        schema = json.loads(texts.json_schema) if texts.json_schema else {}
        return self._components.add(f"{self._name}.{suffix}", schema) if schema else {}

    @property
    def record(self) -> JsonSchema:
        """Reference to the schema of one record; empty if the model has none."""
        return self._row

    @property
    def output(self) -> JsonSchema:
        """Reference to the schema of one output; empty if the model has none."""
        return self._output

    def payloads(self) -> dict[str, JsonSchema]:
        """Returns a schema for each content type."""
        if isinstance(self._model.codec, TextCodec):
            return {PLAIN_TEXT: {"type": "string"}}
        schemas: list[JsonSchema] = [self._row] if RECORD in self._formats else []
        if UNIFIED in self._formats:
            schemas.append(self._unified())
        # Without an example, the formats are unknown.
        keys = [key for key in KEYS if key in self._formats] or ([] if schemas else list(KEYS))
        schemas += [self._wrapped(key, self._value(key) if self._formats else {}) for key in keys]
        name = f"{self._name}.payload"
        payloads = {JSON: self._components.add(name, {"anyOf": schemas} if len(schemas) > 1 else schemas[0])}
        if "csv" in self._formats:
            payloads[CSV] = {"type": "string", "description": "A header with the column names, and the rows."}
        payloads[ARROW] = {"description": "A stream of Arrow record batches with the columns of the model."}
        return payloads

    def answers(self) -> tuple[str, JsonSchema]:
        """Returns the content type of answers and their schema."""
        media_type = self._model.codec.media_type
        if isinstance(self._model.codec, TextCodec):
            return media_type, {"type": "string"}
        if self._is_record:
            predictions: JsonSchema = {"type": "array", "items": self._output}
        else:
            predictions = self._predictions()
        wrapped: JsonSchema = {
            "type": "object",
            "required": ["predictions"],
            "properties": {"predictions": predictions},
        }
        has_bare = self._formats & {RECORD, UNIFIED}
        has_wrapped = self._formats & {*KEYS} or not has_bare
        schemas = [*([self._bare()] if has_bare else []), *([wrapped] if has_wrapped else [])]
        schema = {"anyOf": schemas} if len(schemas) > 1 and all(schemas) else schemas[0]
        return media_type, self._components.add(f"{self._name}.answer", schema)

    def _bare(self) -> JsonSchema:
        """Schema of an answer without the key `predictions`."""
        if self._is_record:
            return self._output
        outputs = self._outputs
        if not isinstance(outputs, Record) or not all(field.name for field in outputs.fields):
            return {}
        # MLflow's chat classes leave out None values, whatever their signature says.
        schema: JsonSchema = without_required(self._components.resolve(self._output))
        return schema

    def _wrapped(self, key: str, value: JsonSchema) -> JsonSchema:
        params = {"params": self._params} if self._params else {}
        return {"title": key, "type": "object", "required": [key], "properties": {key: value, **params}}

    def _unified(self) -> JsonSchema:
        """Schema of chats and prompts, which have columns and params at the same level."""
        schema: JsonSchema = {"title": UNIFIED, "type": "object"}
        parts = [part for part in (self._row, self._params) if part]
        return {**schema, "allOf": parts} if parts else schema

    def _value(self, key: str) -> JsonSchema:
        if key == "dataframe_split":
            return self._split()
        rows: JsonSchema = {"type": "array", "items": self._row}
        inputs = self._inputs
        if key == "dataframe_records" or inputs is None:
            return rows
        if isinstance(inputs, Tensor):
            return self._row
        if has_tensors(inputs):
            return self._row if key == "inputs" else _instances(inputs)
        return self._of_columns(inputs, key)

    def _of_columns(self, inputs: Record, key: str) -> JsonSchema:
        """Returns the schema of `inputs` or `instances` for columns that are not tensors."""
        value = self._values.get(key)
        if not all(field.name for field in inputs.fields):
            return self._nameless(value)
        if isinstance(value, list) and isinstance(value[0], list):
            return {"type": "array", "items": ANY_LIST}  # The names are numbers, which no JSON object has.
        columns = [self._columns_object(inputs)] if key == "inputs" else []
        rows: JsonSchema = {"type": "array", "items": self._row}
        return {"anyOf": [*columns, rows, self._row]}

    def _nameless(self, value: object) -> JsonSchema:
        """Returns the schema of columns without names; `value` is an example."""
        (column, *others) = self._columns(self._row)
        if others:
            return ANY_LIST
        if not isinstance(value, list):
            return {"anyOf": [ANY_LIST, column]}
        return {"type": "array", "items": column} if self._formats == {"inputs"} else ANY_LIST

    def _columns(self, reference: JsonSchema) -> list[JsonSchema]:
        """Returns the schemas of the columns of a row, in order."""
        return list(self._components.resolve(reference)["properties"].values())

    def _columns_object(self, inputs: Record) -> JsonSchema:
        columns = zip([field.name for field in inputs.fields], self._columns(self._row), strict=True)
        properties = {name: {"type": "array", "items": column} for name, column in columns}
        required = [field.name for field in inputs.fields if field.required]
        return {"type": "object", "properties": properties, **({"required": required} if required else {})}

    def _split(self) -> JsonSchema:
        names = [field.name for field in self._inputs.fields] if isinstance(self._inputs, Record) else []
        columns: JsonSchema = {"type": "array", "items": {"type": ["string", "integer"]}}
        if all(names):
            columns["examples"] = [names]
        has_columns = "columns" in self._values.get("dataframe_split", {"columns": names} if all(names) else {})
        return {
            "type": "object",
            "required": ["columns", "data"] if has_columns else ["data"],
            "properties": {
                "columns": columns,
                "data": {"type": "array", "items": ANY_LIST, "description": "The rows."},
                "index": ANY_LIST,
            },
        }

    def _predictions(self) -> JsonSchema:
        outputs = self._outputs
        if isinstance(outputs, Tensor):
            return self._output
        if not isinstance(outputs, Record) or not self._model.model.info.contract.takes_rows:
            return {}
        # Arrays have no column names, whatever the signature says.
        names = [field.name for field in outputs.fields]
        if len(names) > 1:
            return {"type": "array", "items": {"anyOf": [self._output, ANY_LIST]}}
        if isinstance(outputs.fields[0].type, Scalar):
            (scalar,) = self._columns(self._output)
            return {"type": "array", "items": {"anyOf": [self._output, scalar, ANY_LIST]} if names[0] else scalar}
        return {}


def _instances(inputs: Record) -> JsonSchema:
    fields = [Field(field.name, row_of(field.type), required=field.required) for field in inputs.fields]
    row = json_schema.schema_of(Record("row", fields))
    return {"type": "array", "items": {name: value for name, value in row.items() if name != "$schema"}}
