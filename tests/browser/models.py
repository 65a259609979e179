"""Models for tests of the page: every type of column, a stream that stops at a gate, rows to score, texts with markup."""

import sys
import threading
import warnings
from pathlib import Path

import cloudpickle
import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, DataType, Schema

from tests.support import chat_models, zoo

GATE = threading.Event()
"""Opened, it lets the stream of `gated` go on."""

MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Gated(PythonModel):
    """Answers in two parts; the second waits for the gate."""

    def predict(self, context, model_input, params=None):
        return ["whole"]

    def predict_stream(self, context, model_input, params=None):
        # Imported, because a copy of this class in a pickle would have a gate of its own.
        from tests.browser.models import GATE as GATE_OF_TESTS

        yield {"part": 1}
        if not GATE_OF_TESTS.wait(30):
            raise TimeoutError("nobody has opened the gate")
        yield {"part": 2}


class Sums(PythonModel):
    """Adds two columns of each row, and gives the sum and the length of a text."""

    def predict(self, context, model_input, params=None):
        sums = model_input["x"] + model_input["y"]
        return pd.DataFrame({"sum": sums, "length": model_input["text"].str.len()})


class Markup(PythonModel):
    """Answers with text that is HTML elsewhere."""

    def predict(self, context, model_input, params=None):
        return [{MARKUP: MARKUP}]


class Misbehaving(PythonModel):
    """Answers each call with one prediction, whatever the number of its rows."""

    def predict(self, context, model_input, params=None):
        return [1]


def _columns(**types: DataType) -> ModelSignature:
    return ModelSignature(inputs=Schema([ColSpec(data_type, name) for name, data_type in types.items()]))


_OWN = {
    "gated": (Gated(), _columns(text=DataType.string)),
    "sums": (Sums(), _columns(x=DataType.double, y=DataType.double, text=DataType.string)),
    "markup": (Markup(), ModelSignature(inputs=Schema([ColSpec(DataType.string, MARKUP)]))),
    "one_answer": (Misbehaving(), _columns(x=DataType.double)),
}

ZOO = [
    "no_signature", "every_column", "optional", "one_string", "unnamed", "unnamed_one", "structures", "nested", "tensor",
    "tensors", "params", "params_only", "chat", "hint_str", "hint_bytes", "hint_datetime", "hint_person", "hint_order",
]  # fmt: skip


PARAM_DEFAULTS = {"top_k": 3, "stops": ["a", "b"], "is_short": True, "word": "yes"}
"""Defaults of the params of `with_params`; its example has other values."""


def save_all(folder: Path) -> list[Path]:
    """Saves the models as MLflow models, and returns their directories."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        for name, (own_model, signature) in _OWN.items():
            mlflow.pyfunc.save_model(
                folder / name, python_model=own_model, signature=signature, pip_requirements=["mlflow"]
            )
        table, params = pd.DataFrame({"a": [7.5, 8.5]}), {**PARAM_DEFAULTS, "top_k": 9, "stops": ["x"]}
        signature = mlflow.models.infer_signature(table, params=PARAM_DEFAULTS)
        mlflow.pyfunc.save_model(
            folder / "with_params",
            python_model=zoo.Echo(),
            signature=signature,
            input_example=(table, params),
            pip_requirements=["mlflow"],
        )
        for name in ZOO:
            zoo.save(name, folder / name)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # ChatModel is deprecated, and in use.
            model = chat_models.MODELS["chat"]()
            mlflow.pyfunc.save_model(folder / "chat_model", python_model=model, pip_requirements=["mlflow"])
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    return sorted(folder.iterdir())
