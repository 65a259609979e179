"""Models that bring Python code along, or consist of code, loaded into one process."""

import colorsys
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc import fetching, model_code
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc

FRAME = pd.DataFrame({"x": [1.0]})
SIGNATURE = infer_signature(FRAME, ["text"])

CODE = """
import mlflow, told_by_the_test
from mlflow.models import ModelConfig

configured_for = ModelConfig(development_config={{"who": "nobody"}}).get("who")


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [f"I am {name}, configured for {{configured_for}}"]


mlflow.models.set_model(Model())
told_by_the_test.model_is_set("{name}")
"""

ASKS_ITS_HELPER = """
import mlflow
from {helper} import answer


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [answer()]


mlflow.models.set_model(Model())
"""


@pytest.fixture
def test_module(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module that the code of models imports; the test defines what they call."""
    module = SimpleNamespace(model_is_set=lambda name: None)
    monkeypatch.setitem(sys.modules, "told_by_the_test", module)
    return module


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Returns a function that logs a model from code; effects of loading on the process are undone."""
    path, modules, brought = list(sys.path), set(sys.modules), dict(model_code._owners_by_module)

    def make(name: str, code: str, **more: Any) -> Path:
        # The state of a process that has just started.
        mlflow.models.model.__mlflow_model__ = None
        file = tmp_path / f"{name}_code.py"
        file.write_text(code)
        sys.path += [str(Path(code_path).parent) for code_path in more.get("code_paths", ())]
        mlflow.pyfunc.save_model(
            tmp_path / name, python_model=str(file), signature=SIGNATURE, pip_requirements=["mlflow"], **more
        )
        restore()
        return tmp_path / name

    def restore() -> None:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]

    yield make
    restore()
    model_code._owners_by_module.clear()
    model_code._owners_by_module.update(brought)


def helper(folder: Path, name: str, says: str) -> str:
    """Writes a module for a model to bring along."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(f"def answer():\n    return {says!r}\n")
    return str(folder / f"{name}.py")


def answer(model: Any) -> Any:
    return model.predict(FRAME, None)


class Turn:
    """A lock that reports when another thread waits for it."""

    def __init__(self, on_asking: Callable[[], None]) -> None:
        self._lock = threading.RLock()
        self._on_asking = on_asking

    def __enter__(self) -> None:
        self._on_asking()
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def with_pyfunc(path: Path, who: str) -> Any:
    return load_pyfunc(fetching.fetch(str(path)), config={"who": who})


def as_mlmodel(path: Path, who: str) -> Any:
    from mlflow_grpc.hosting.mlmodel.from_pyfunc import MlflowModel

    loaded = MlflowModel(str(path), model_config={"who": who})._model
    return SimpleNamespace(predict=lambda data, params: loaded.predict(data, params))


@pytest.mark.parametrize("load", [with_pyfunc, as_mlmodel])
def test_models_from_code_are_loaded_one_after_the_other(test_module, log, monkeypatch, load):
    """Each model is the one that its own file sets, with its own configuration, even if a second load begins after the
    first file has set its model and before MLflow has taken it."""
    first, second = (log(name, CODE.format(name=name), model_config={"who": "?"}) for name in ("first", "second"))
    set_by_first, other_came = threading.Event(), threading.Event()

    def model_is_set(name: str) -> None:
        if name == "second":
            other_came.set()
            return
        set_by_first.set()
        assert other_came.wait(30)

    def on_asking() -> None:
        if set_by_first.is_set():
            other_came.set()

    test_module.model_is_set = model_is_set
    monkeypatch.setattr(model_code, "_one_at_a_time", Turn(on_asking))
    with ThreadPoolExecutor() as threads:
        first_load = threads.submit(load, first, "the first")
        assert set_by_first.wait(30)
        second_load = threads.submit(load, second, "the second")
        assert answer(first_load.result(30)) == ["I am first, configured for the first"]
        assert answer(second_load.result(30)) == ["I am second, configured for the second"]


def test_a_file_that_sets_no_model_is_refused(test_module, log):
    """A file that sets no model is refused. MLflow itself would use the model that was loaded before."""
    first, second = (log(name, CODE.format(name=name), model_config={"who": "?"}) for name in ("first", "second"))
    (second / "second_code.py").write_text("import mlflow\n")
    with_pyfunc(first, "the first")
    with pytest.raises(StartError, match=r"set_model\(\)"):
        with_pyfunc(second, "the second")


def test_different_code_of_the_same_name_is_refused(log, tmp_path):
    """Two models with different code under the same module name cannot share a process, because Python would give the
    second the code of the first. The error has the name and the other model."""
    code = ASKS_ITS_HELPER.format(helper="brought_along")
    first = log("first", code, code_paths=[helper(tmp_path / "a", "brought_along", "one")])
    second = log("second", code, code_paths=[helper(tmp_path / "b", "brought_along", "two")])
    assert answer(load_pyfunc(fetching.fetch(str(first)))) == ["one"]
    with pytest.raises(StartError, match=f"'brought_along', and so does the model at {first}") as refused:
        load_pyfunc(fetching.fetch(str(second)))
    assert "StartError" not in str(refused.value)


def test_a_failed_load_releases_its_module_names(log, tmp_path):
    """After a failed load, an older version with other code of the same name is loaded and runs its own code. A library
    of that name, imported before, stays."""
    code = ASKS_ITS_HELPER.format(helper="brought_in_vain")
    older = log("older", code, code_paths=[helper(tmp_path / "a", "brought_in_vain", "one")])
    library = helper(tmp_path / "b", "colorsys", "two")
    broken = log("broken", code, code_paths=[helper(tmp_path / "c", "brought_in_vain", "two"), library])
    (broken / "broken_code.py").write_text(f"{code}\nraise RuntimeError('broken on purpose')\n")
    with pytest.raises(StartError, match="broken on purpose"):
        load_pyfunc(fetching.fetch(str(broken)))
    assert sys.modules["colorsys"] is colorsys
    assert answer(load_pyfunc(fetching.fetch(str(older)))) == ["one"]


def test_the_same_code_of_the_same_name_is_shared(log, tmp_path):
    """Versions of a model with the same code are both loaded; compiled files do not count."""
    code = ASKS_ITS_HELPER.format(helper="brought_twice")
    shared = tmp_path / "brought_twice"
    helper(shared, "__init__", "both")
    first, second = (log(name, code, code_paths=[str(shared)]) for name in ("first", "second"))
    compiled = second / "code" / "brought_twice" / "__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "other.cpython-311.pyc").write_bytes(b"other")
    assert (
        answer(load_pyfunc(fetching.fetch(str(first)))) == answer(load_pyfunc(fetching.fetch(str(second)))) == ["both"]
    )


def test_a_model_that_loads_another_one(test_module, log):
    """A model from code may load another one while it is loaded itself."""
    inner = log("inner", CODE.format(name="inner"), model_config={"who": "?"})
    test_module.loaded = []
    test_module.model_is_set = lambda name: (
        name == "outer" and test_module.loaded.append(with_pyfunc(inner, "the inner"))
    )
    outer = log("outer", CODE.format(name="outer"), model_config={"who": "?"})
    test_module.loaded.clear()
    with ThreadPoolExecutor() as threads:
        threads.submit(with_pyfunc, outer, "the outer").result(30)
    assert answer(test_module.loaded[0]) == ["I am inner, configured for the inner"]
