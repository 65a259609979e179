"""The Apache Beam pipeline, the WebSocket and the notebook, run with the commands of their pages."""

import json

import pytest

from tests.gallery.example import EXAMPLES
from tests.support.node import tool
from tests.support.servers import free_port

pytestmark = [pytest.mark.gallery, pytest.mark.timeout(600)]


def test_beam(example, labels):
    """The pipeline writes the model's predictions, those that its page shows."""
    beam = example("beam")
    printed = beam.run(beam.command("python pipeline.py"))
    assert printed == beam.outputs[0]
    assert {row["id"]: row["species"] for row in map(json.loads, printed.splitlines())} == labels


def test_websocket(example, labels):
    """The page's JavaScript gets the prediction; a connection stays open after messages that do not fit."""
    from websockets.sync.client import connect  # Late, because `make test` collects this file without it.

    port = str(free_port())
    websocket = example("websocket", PORT=port)
    flower = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}
    with websocket.start(websocket.command("python bridge.py")) as bridge:
        bridge.wait_for("ready on")
        (script,) = websocket.scripts
        (websocket.folder / "page.mjs").write_text(script.replace(":8765", f":{port}"))
        # Node.js 22 and browsers have WebSocket without a flag.
        assert websocket.run(f"{tool('node')} --experimental-websocket page.mjs") == websocket.outputs[0]
        with connect(f"ws://127.0.0.1:{port}") as browser:
            answers = []
            for message in ["no JSON", '{"sepal_length_cm": 5.1}', '{"sepal_length_cm": "long"}', json.dumps(flower)]:
                browser.send(message)
                answers.append(json.loads(browser.recv(timeout=60)))
    assert [list(answer) for answer in answers] == [["error"], ["error"], ["error"], ["species"]]
    assert "petal_width_cm" in answers[1]["error"]
    assert answers[3]["species"] == labels["1"]


def outputs_in(notebook):
    """Returns the outputs of all cells, without their numbers."""
    cells = json.loads(notebook.read_text())["cells"]
    assert all(cell["cell_type"] == "markdown" or cell["execution_count"] for cell in cells)
    return [
        {name: value for name, value in output.items() if name in ("data", "text", "name", "output_type")}
        for cell in cells
        for output in cell.get("outputs", [])
    ]


def test_notebook(example):
    """The cells of the notebook run, and their outputs are those that are stored in it."""
    notebook = example("notebook")
    notebook.run(notebook.command("jupyter execute"))
    outputs = outputs_in(notebook.folder / "executed.ipynb")
    assert outputs == outputs_in(EXAMPLES / "notebook" / "iris.ipynb")
    assert "".join(outputs[-1]["text"]).startswith("petal_length_cm")
