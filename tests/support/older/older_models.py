"""Models of the older interface, in the style of its time."""

from datetime import date
from typing import Any, ClassVar

from ml_model_abc import MLModel, MLModelSchemaValidationException
from schema import And, Optional, Or, Schema


class Iris(MLModel):
    display_name = "Iris Model"
    qualified_name = "older_iris"
    description = "A rule of thumb."
    major_version = 0
    minor_version = 1
    input_schema = Schema(
        {
            "sepal_length": float,
            "petal": {"length": And(float, lambda length: length > 0), Optional("width"): float},
            Optional("colors"): [Or("blue", "white")],
        }
    )
    output_schema = Schema({"species": Or("setosa", "virginica"), "seen": str})
    calls: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, seen: Any = "today") -> None:
        self._seen = date(2020, 2, 29) if seen == "today" else seen

    def predict(self, data: Any) -> Any:
        try:
            self.input_schema.validate(data)
        except Exception as error:
            raise MLModelSchemaValidationException(f"Failed to validate input data: {error}") from error
        self.calls.append(data)
        if data["sepal_length"] == 0.0:
            raise ZeroDivisionError("no flower")
        if data["sepal_length"] < 0:
            raise MLModelSchemaValidationException("A sepal has a length.")
        return {"species": "setosa" if data["petal"]["length"] < 2.5 else "virginica", "seen": self._seen}
