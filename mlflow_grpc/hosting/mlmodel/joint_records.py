"""Records that an MLModel or its decorators take together: `predict_many(data: list) -> list`.

Rule of this module: the method counts only where a class defines it. `ml_base.decorator.MLModelDecorator` hands any
other name on to the model within, so that a call by name alone would pass a decorator by.
"""

from collections.abc import Callable
from typing import Any

from mlflow_grpc.hosting import import_path

NEWER, DECORATOR = "ml_base", "MLModelDecorator"

METHOD = "predict_many"

PredictMany = Callable[[list[Any]], Any]


def predict_many_of(model: Any) -> PredictMany | None:
    """What takes several records at once; None if the model or one of its decorators takes one at a time.

    A decorator that leaves `predict` alone does nothing to a record: what is within it decides.
    """
    while not callable(getattr(type(model), METHOD, None)):
        base = _decorator_base(type(model))
        if base is None or type(model).predict is not base.predict:
            return None
        model = vars(model)["_model"]
    found: PredictMany = getattr(model, METHOD)
    return found


def for_decorator(around: Any, model: Any) -> Any:
    """The model for a decorator, which may call its `predict_many` where the decorator has one.

    Args:
        around: The decorator.
        model: What it is put around; one that takes one record at a time is given one after the other.

    """
    base = _decorator_base(type(around))
    if base is None or not callable(getattr(type(around), METHOD, None)) or predict_many_of(model) is not None:
        return model
    return type("RowByRow", (base,), {METHOD: _one_after_the_other})(model)


def _one_after_the_other(self: Any, data: list[Any]) -> list[Any]:
    return [self.predict(data=record) for record in data]


def _decorator_base(cls: type) -> Any:
    """The class MLModelDecorator itself, if a class derives from it."""
    if not import_path.derives_from(cls, NEWER, DECORATOR):
        return None
    return next(each for each in cls.__mro__ if each.__name__ == DECORATOR and each.__module__.split(".")[0] == NEWER)
