"""Effects of a model on the whole process while it is loaded and called, and what must not depend on them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import yaml

from tests.process.conftest import payload
from tests.support.servers import Caller, ready_address, start_mlflow_server, start_server

SETUPS = {
    "dictConfig": 'logging.config.dictConfig({"version": 1, "root": {"handlers": [], "level": "ERROR"}})',
    "disable": "logging.disable(logging.CRITICAL)",
    "basicConfig": "logging.basicConfig(force=True, level=logging.DEBUG)",
    "loguru": "[setattr(logging.getLogger(name), 'handlers', []) for name in logging.root.manager.loggerDict]",
    "streams": "sys.stdout = sys.stderr = open(os.devnull, 'w')",
}

CODE = """
import logging, logging.config, os, sys
import mlflow

def set_up():
    {setup}

{at_import}


class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        {at_load}

    def predict(self, context, model_input, params=None):
        {at_call}
        logging.getLogger("theirs").info("an INFO line")
        logging.getLogger("theirs").warning("a WARNING line")
        if model_input[0] == "raise":
            raise ValueError("why it failed")
        return [os.getcwd()]


mlflow.models.set_model(Model())
"""


def save(path: Path, setup: str, when: str) -> Path:
    """Saves a model from code that runs a statement at import, at load or at each call."""
    places = {moment: "set_up()" if moment == when else "pass" for moment in ("at_import", "at_load", "at_call")}
    file = path.with_suffix(".py")
    file.write_text(CODE.format(setup="pass", at_import="", at_load="pass", at_call="pass"))
    mlflow.pyfunc.save_model(path, python_model=str(file), pip_requirements=["mlflow"])
    (path / file.name).write_text(CODE.format(setup=setup, **places))
    return path


@pytest.mark.parametrize(
    ("setup", "when"),
    [
        ("dictConfig", "at_import"),
        ("dictConfig", "at_call"),
        ("disable", "at_load"),
        ("basicConfig", "at_load"),
        ("loguru", "at_call"),
        ("streams", "at_load"),
    ],
)
def test_a_models_logging_setup_does_not_affect_the_server(tmp_path, setup, when):
    """The ready line, each call's line and the model's exceptions are logged, whatever logging the model sets up and
    when. Lines of libraries have the server's format, from the level of --log-level-libraries on."""
    model = save(tmp_path / "model", SETUPS[setup], when)
    with start_server("-m", str(model)) as process, Caller(ready_address(process)) as call:
        call(payload("x"), x_request_id="good")
        assert call.outcome(payload("raise"), x_request_id="bad")[0] == "INTERNAL"
        process.wait_for('"request_id":"bad".*ValueError: why it failed')
        process.wait_for('"message":"call","request_id":"good"')
        assert "an INFO line" not in process.output
        if when != "at_call":
            process.wait_for('"message":"a WARNING line"')
        assert all(json.loads(line) for line in (*process.stdout, *process.stderr))


def test_a_working_directory(tmp_path):
    """A single model may change the working directory, as under MLflow. Several models are each loaded in the directory
    where the server was started, which may have their modules, in the order of the configuration."""
    (tmp_path / "elsewhere").mkdir()
    moving = save(tmp_path / "moving", f"os.chdir({str(tmp_path / 'elsewhere')!r})", "at_load")
    text = payload("x")
    process, url = start_mlflow_server(moving)
    with process:
        headers = {"Content-Type": "application/json"}
        expected: Any = requests.post(url, data=text, headers=headers, timeout=60).json()
    assert expected == {"predictions": [str(tmp_path / "elsewhere")]}
    with start_server("-m", str(moving)) as process, Caller(ready_address(process)) as call:
        assert json.loads(call(text)) == expected

    start = tmp_path / "start"
    start.mkdir()
    (start / "lies_here.py").write_text("A = 5\n")
    needy = save(tmp_path / "needy", "import lies_here", "at_import")
    file = tmp_path / "models.yaml"
    file.write_text(
        yaml.safe_dump({"models": [{"uri": str(moving)}, {"uri": str(needy)}, {"uri": str(moving), "name": "z"}]})
    )
    with start_server("--config", str(file), cwd=start) as process, Caller(ready_address(process)) as call:
        assert json.loads(call(text, mlflow_model="needy")) == {"predictions": [str(start)]}


def test_a_missing_module_and_the_location_of_an_error(tmp_path):
    """A missing module is named with advice, and an exception with its line in the model's code."""
    for setup, line in (
        ("import not_there", "the model needs the Python module 'not_there', which is not installed here"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", r"Odd.*\(.*model.py, line 6, in set_up\)"),
    ):
        model = save(tmp_path / "model", setup, "at_load" if "Odd" in setup else "at_import")
        with start_server("-m", str(model)) as process:
            assert process.wait() == 2
            assert re.search(line, process.errors[0])
            assert "Traceback" not in process.output
        shutil.rmtree(model)
