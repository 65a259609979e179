"""Support for `predict_many(data: list) -> list`, with which an MLModel or its decorators take several records.

Rule of this module: the method counts only if a class defines it. `ml_base.decorator.MLModelDecorator` forwards every
unknown attribute to the inner model, so a plain attribute lookup would bypass the decorator.
"""

from collections.abc import Callable
from typing import Any

from mlflow_grpc.hosting import import_path

NEWER, DECORATOR = "ml_base", "MLModelDecorator"

METHOD = "predict_many"

PredictMany = Callable[[list[Any]], Any]


def predict_many_of(model: Any) -> PredictMany | None:
    """Returns the method that takes several records; None if the model or a decorator takes one record at a time.

    A decorator that does not override `predict` leaves records unchanged, so the inner model decides.
    """
    while not callable(getattr(type(model), METHOD, None)):
        base = _decorator_base(type(model))
        if base is None or type(model).predict is not base.predict:
            return None
        model = vars(model)["_model"]
    predict_many: PredictMany = getattr(model, METHOD)
    return predict_many


def for_decorator(decorator: Any, model: Any) -> Any:
    """Returns a model with a `predict_many`, if the decorator has one and may call that of its inner model.

    Args:
        decorator: The decorator.
        model: The inner model. If it takes one record at a time, it is wrapped in a loop over the records.

    """
    base = _decorator_base(type(decorator))
    if base is None or not callable(getattr(type(decorator), METHOD, None)) or predict_many_of(model) is not None:
        return model
    return type("RowByRow", (base,), {METHOD: _predict_in_a_loop})(model)


def _predict_in_a_loop(self: Any, data: list[Any]) -> list[Any]:
    return [self.predict(data=record) for record in data]


def _decorator_base(cls: type) -> Any:
    """Returns MLModelDecorator if a class derives from it, else None."""
    if not import_path.derives_from(cls, NEWER, DECORATOR):
        return None
    return next(base for base in cls.__mro__ if base.__name__ == DECORATOR and base.__module__.split(".")[0] == NEWER)
