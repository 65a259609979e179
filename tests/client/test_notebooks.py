"""Representation of the client's objects in notebooks."""

from dataclasses import replace

import pytest
from mlflow_grpc_client import AsyncClient, Client
from mlflow_grpc_client._html import MAX_ROWS, table

from tests.client.conftest import Iris

pytestmark = pytest.mark.slow


def test_a_client_shows_its_address(iris: Iris) -> None:
    """A client shows its address without a call, and its types once it has made one."""
    with Client("models.example:1", tls=True) as client:
        assert repr(client) == "<Client models.example:1>"
        assert "<td>models.example:1</td>" in client._repr_html_()
        assert "<td>yes</td>" in client._repr_html_()
    assert repr(client) == "<Client models.example:1, closed>"
    assert repr(AsyncClient("a:1,b:2")) == "<AsyncClient a:1,b:2>"
    with Client(iris.address) as client:
        model = client.model("iris")
        assert repr(model) == "<TypedModel iris>"
        assert "fetched at the first call" in model._repr_html_()
        flower = {"sepal_length_cm": 5.1, "sepal_width_cm": 3.5, "petal_length_cm": 1.4, "petal_width_cm": 0.2}
        model.predict(flower)
        assert "<tr><td>sepal_length_cm</td><td>double</td></tr>" in model._repr_html_()
        assert "<td>iris</td>" in client._repr_html_()
        model = client.model("iris")
        assert len(list(model.predict_many([flower]))) == 1
        assert "<tr><td>sepal_length_cm</td><td>double</td></tr>" in model._repr_html_()


def test_models_are_a_table(iris: Iris) -> None:
    """A list of models is a table and a model shows its fields; text from a server is escaped and shortened."""
    with Client(iris.address) as client:
        models = client.models()
    assert "<tr><td>iris</td><td>READY</td>" in models._repr_html_()
    assert models == list(models)
    shown = models[0]._repr_html_()
    assert "<tr><td>sepal_length_cm</td><td>number</td></tr>" in shown
    odd = replace(
        models[0],
        description="<script>" + "x" * 10_000,
        input_schema={"properties": {f"<{index}>": {"type": "string"} for index in range(1000)}},
    )
    shown = odd._repr_html_()
    assert "&lt;script&gt;xx" in shown
    assert "<script>" not in shown
    assert "&lt;0&gt;" in shown
    assert len(shown) < 5_000


@pytest.mark.parametrize("count", [0, 1, MAX_ROWS, MAX_ROWS + 1])
def test_tables_are_small(count: int) -> None:
    """A table has the first rows, and the number of others."""
    markup = table(("a",), [(index,) for index in range(count)])
    assert markup.count("<tr>") == 1 + min(count, MAX_ROWS) + (count > MAX_ROWS)
    assert ("and 1 more" in markup) is (count > MAX_ROWS)
