"""The OpenAPI document, judged by a validator of OpenAPI, by a validator of JSON Schema and by the server."""

import json
import re
from collections.abc import Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from jsonschema import Draft202012Validator
from jsonschema.validators import SPECIFICATIONS
from mlflow.models import infer_signature
from mlflow.pyfunc.model import PythonModel
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.schemas import schema_v31
from referencing.jsonschema import DRAFT202012

from mlflow_grpc.choices import Payload
from mlflow_grpc.config import Decorator, ModelConfig
from mlflow_grpc.http.openapi.components import Components
from mlflow_grpc.http.openapi.payload_examples import KEYS
from tests.support import chat_models, depth, zoo
from tests.support.depth import sample
from tests.support.servers import Forked, InProcess, serving_models, start_server

pytestmark = pytest.mark.slow

ARROW = "application/vnd.apache.arrow.stream"
ZOO = [*zoo.NAMES, *zoo._more_signatures(), *zoo._MORE_HINTED, "rows_numbers"]

CLASSES = [
    "tests.support.rest_models.Iris", "tests.support.newer_models.Mirror", "tests.support.newer_models.OldStyle",
    "tests.support.newer_models.Words", "older_models.Iris", "tests.support.particular_models.Unions",
    "tests.support.serialized_models.RootList", "tests.support.serialized_models.OldCells",
    "tests.support.serialized_models.Defaults",
]  # fmt: skip

WITHOUT_EXAMPLE = {"no_signature", "params_only", "numbered", "hint_event", "Defaults"}
"""Models of which nothing says what they take, which take no JSON, or whose answer has no form in JSON."""


class SpecValidator(OpenAPIV31SpecValidator):
    """The validator of OpenAPI, which searches its own schema for anchors once instead of at each reference."""

    _schema = DRAFT202012.create_resource(dict(schema_v31))
    schema_validator = Draft202012Validator(
        _schema.contents, registry=SPECIFICATIONS.with_resource(_schema.id() or "", _schema).crawl()
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The directories of all models of the zoo, by their names."""
    folder = tmp_path_factory.mktemp("zoo")
    for name in ZOO:
        zoo.save(name, folder / name)
    for name in chat_models.MODELS:
        chat_models.save(name, folder / f"api_{name}")
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def server(models):
    """A server with models of every kind."""
    decorators = (Decorator(class_path="ml_base.decorator.MLModelDecorator"),)
    hosted = [ModelConfig(uri=str(path), name=name, endpoint=True) for name, path in models.items()]
    hosted += [ModelConfig(class_path=path, endpoint=True) for path in CLASSES]
    numbers = str(models["numbers"])
    hosted += [
        ModelConfig(uri=str(models["no_signature"]), name="plain", payload=Payload.TEXT, endpoint=True),
        ModelConfig(uri=numbers, name="decorated", decorators=decorators, endpoint=True),
        ModelConfig(uri=numbers, name="versions", version="1", endpoint=True),
        ModelConfig(uri=numbers, name="versions", version="2", endpoint=True),
        ModelConfig(uri=numbers, name="silent", endpoint=False),
    ]
    with serving_models([(model, None) for model in hosted], http_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def document(server):
    return document_of(server)


def document_of(server: InProcess) -> Any:
    response = requests.get(f"{server.url}/openapi.json", timeout=60)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    return response.json()


def resolved(document: Any, value: Any) -> Any:
    while "$ref" in value:
        target = document
        for key in value["$ref"].split("/")[1:]:
            target = target[key]
        value = target
    return value


def faults(document: Any, schema: Any, value: Any) -> list[str]:
    """What JSON Schema says against a value."""
    validator = Draft202012Validator({**schema, "components": document["components"]})
    return [error.message for error in validator.iter_errors(value)]


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def bodies(document: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Path, operation, content type and content of each body."""
    for path, _, operation in operations(document):
        if "requestBody" in operation:
            for content_type, content in resolved(document, operation["requestBody"])["content"].items():
                yield path, operation, content_type, content


def test_the_document_is_valid(document):
    """The document is valid OpenAPI 3.1, and the ids of its operations are unique."""
    assert document["openapi"].startswith("3.1.")
    paths = dict(sample(document["paths"].items()))
    used: dict[tuple[str, str], Any] = {}
    text = json.dumps(paths)
    while references := set(re.findall(r'"#/components/(\w+)/([^"]+)"', text)) - used.keys():
        used |= {(kind, name): document["components"][kind][name] for kind, name in references}
        text = json.dumps([used[reference] for reference in references])
    components: dict[str, Any] = {}
    for (kind, name), component in used.items():
        components.setdefault(kind, {})[name] = component
    SpecValidator({**document, "paths": paths, "components": components}).validate()
    identifiers = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)


def test_the_schemas_are_valid(document):
    """Each schema is one of JSON Schema 2020-12, and is used."""
    text = json.dumps(document)
    for name, schema in sample(document["components"]["schemas"].items(), share=3):
        Draft202012Validator.check_schema(schema)
        assert f'"#/components/schemas/{name}"' in text or name == "Error"


def test_each_model_has_a_path(document, models):
    """Every model with an endpoint, in its default version without one; those of rest-model-service under /api."""
    paths = document["paths"]
    for name in (*models, "plain", "decorated", "versions", "iris_model"):
        assert f"/models/{name}/invocations" in paths
    assert {"/models/versions/versions/1/invocations", "/models/versions/versions/2/invocations"} <= paths.keys()
    assert "/models/silent/invocations" not in paths
    assert {
        "/invocations",
        "/ping",
        "/health",
        "/version",
        "/metrics",
        "/api/models",
        "/api/health/ready",
    } <= paths.keys()
    assert {"/api/models/iris_model/prediction", "/api/models/decorated/prediction"} <= paths.keys()
    assert "/api/models/numbers/prediction" not in paths


def assert_examples_work(server: InProcess, document: Any) -> int:
    """Sends the examples, compares them and the answers with their schemas, and returns the number of examples."""
    count = 0
    for path, operation, content_type, content in bodies(document):
        for name, example in content.get("examples", {}).items():
            value, where = example["value"], (path, content_type, name)
            assert faults(document, content["schema"], value) == [], where
            data = (value if content_type != "application/json" else json.dumps(value)).encode()
            headers = {"content-type": content_type}
            response = requests.post(server.url + path, data=data, headers=headers, timeout=60)
            if "/Defaults/" in path:  # Returns NaN.
                continue
            assert response.status_code == 200, (where, response.text)
            answers = resolved(document, operation["responses"]["200"])["content"]
            schema = answers[response.headers["content-type"].partition(";")[0]]["schema"]
            answer = response.text if content_type == "text/plain" else response.json()
            assert faults(document, schema, answer) == [], where
            count += 1
    return count


def test_examples_work(server, document):
    """Each example fits its schema, is answered with 200, and the answer fits the schema of answers."""
    tested = {**document, "paths": dict(sample(document["paths"].items(), share=3))}
    assert assert_examples_work(server, tested) > (150 if depth.is_deep else 40)


def test_each_model_takes_tensors(document, models):
    """Every model but one for texts has a path of the Open Inference Protocol, with an example that has been sent."""
    paths = document["paths"]
    assert "/v2/models/plain/infer" not in paths
    infer = {path.split("/")[3]: item for path, item in paths.items() if re.fullmatch("/v2/models/[^/]+/infer", path)}
    assert {*models, "decorated", "versions", "iris_model"} <= infer.keys()
    assert {f"/v2/models/versions/versions/{version}/infer" for version in "12"} <= paths.keys()
    assert "silent" not in infer
    without = {
        name
        for name, item in infer.items()
        if not resolved(document, item["post"]["requestBody"])["content"]["application/json"].get("examples")
    }
    assert without == WITHOUT_EXAMPLE


def test_descriptions_for_tensors(server, document):
    """Answers of the routes that call no model fit their schemas, for every model."""
    count = 0
    for path, method, operation in operations(document):
        if not path.startswith("/v2") or method != "get":
            continue
        values = {parameter["name"]: parameter["schema"]["enum"] for parameter in operation.get("parameters", [])}
        names = values.get("name", [""]) if "version" not in values else ["versions"]
        for name in names:
            for version in values.get("version", [""]) if "version" in values else [""]:
                url = server.url + path.replace("{name}", name).replace("{version}", version)
                response = requests.get(url, timeout=60)
                if version == "3" or response.status_code == 404:
                    continue
                assert response.status_code == 200, url
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                assert faults(document, schema, response.json()) == [], url
                count += 1
    assert count > 4 * 50


def test_schemas_of_tensors_refuse_what_models_refuse(server, document):
    """A request without a tensor of the model, or with an unknown datatype, is refused by both."""
    tensor = {"name": "a", "shape": [1, 1], "datatype": "FP64", "data": [1.5]}
    for inputs in ([tensor], [{**tensor, "datatype": "FP65"}, {**tensor, "name": "b"}], [{"name": "a"}]):
        assert faults(document, {"$ref": "#/components/schemas/numbers.infer"}, {"inputs": inputs})
        response = requests.post(f"{server.url}/v2/models/numbers/infer", json={"inputs": inputs}, timeout=60)
        assert response.status_code == 400
        assert faults(document, {"$ref": "#/components/schemas/InferenceError"}, response.json()) == []


ALL = [*KEYS, "csv"]
ROW = {"q": "x", "pages": [{"id": 1, "tags": ["a"]}]}
MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}

LOGGED = {
    "columns": (pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]}, index=[7, 9]), ALL),
    "missing": (pd.DataFrame({"a": [1.5, None], "b": ["x", None]}), ALL),
    "dates": (pd.DataFrame({"at": pd.to_datetime(["2024-01-02T03:04:05"]), "n": [1]}), KEYS),
    "numbered": (pd.DataFrame([[1, 2], [3, 4]]), ["dataframe_split", "inputs", "instances"]),
    "record": ({"a": 1, "b": "x"}, ALL),
    "records": ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], ALL),
    "record_of_lists": ({"a": [1, 2], "b": ["x", "y"]}, KEYS),
    "nested": (ROW, KEYS),
    "text": ("hello", ["inputs", "instances"]),
    "texts": (["a", "b"], ["inputs", "instances"]),
    "tensor": (np.arange(6.0).reshape(2, 3), ["inputs", "instances"]),
    "tensors": ({"a": np.ones((2, 2)), "b": np.zeros(2)}, ["inputs", "instances"]),
    "messages": (MESSAGES, ["unified_llm_input"]),
}
"""Examples in the forms that `input_example` accepts, and the formats of the examples that they lead to."""


class Tells(PythonModel):
    """Tells its input."""

    def predict(self, context, model_input, params=None):
        return [str(model_input), str(params)]


def test_logged_examples_of_any_form(tmp_path):
    """Examples that were logged with a model work and fit their schemas, with and without params beside them."""
    params = {"k": 9.5, "words": ["a"]}
    for name, (example, _) in LOGGED.items():
        for suffix, logged, defaults in (
            ("", example, None),
            ("_params", (example, params), {"k": 1.0, "words": ["b"]}),
        ):
            mlflow.pyfunc.save_model(
                tmp_path / f"{name}{suffix}",
                python_model=Tells(),
                signature=infer_signature(example, None, params=defaults),
                input_example=logged,
                pip_requirements=["mlflow"],
            )
    models = [ModelConfig(uri=str(path), name=path.name, endpoint=True) for path in sorted(tmp_path.iterdir())]
    with serving_models([(model, None) for model in models], http_port=0) as server:
        document = document_of(server)
        SpecValidator(document).validate()
        assert assert_examples_work(server, document) > 6 * len(LOGGED)
    formats: dict[str, set[str]] = {}
    for path, _, _, content in bodies(document):
        if path.startswith("/models/"):
            examples = content.get("examples", {})
            formats.setdefault(path.split("/")[2], set()).update(examples)
            if "with_params" in examples:
                assert examples["with_params"]["value"]["params"] == params, path
    for name, (_, expected) in LOGGED.items():
        assert formats[name] == {*expected}, name
        # MLflow logs params beside messages, so the first example has them.
        assert formats[f"{name}_params"] == {*expected, *([] if name == "messages" else ["with_params"])}, name


def test_every_model_has_an_example(document):
    """Only models of which nothing says what they take have none."""
    without = {
        path.split("/")[2]
        for path, _, content_type, content in bodies(document)
        if path.startswith("/models") and content_type != ARROW and not content.get("examples")
    }
    assert without <= WITHOUT_EXAMPLE


def test_formats(document):
    """A table has all of MLflow's formats, CSV too; a chat is sent as it is, with its params beside it."""

    def formats(name: str) -> dict[str, set[str]]:
        content = resolved(document, document["paths"][f"/models/{name}/invocations"]["post"]["requestBody"])["content"]
        return {content_type: set(value.get("examples", {})) for content_type, value in content.items()}

    tables = {"dataframe_split", "dataframe_records", "inputs", "instances"}
    assert formats("numbers") == {"application/json": tables, "text/csv": {"csv"}, ARROW: set()}
    assert formats("params")["application/json"] == tables | {"with_params"}
    assert formats("tensor") == {"application/json": {"inputs", "instances"}, ARROW: set()}
    assert formats("hint_person") == {"application/json": {"inputs"}, ARROW: set()}
    assert formats("api_chat") == {"application/json": {"unified_llm_input"}, ARROW: set()}
    assert formats("plain") == {"text/plain": {"text"}}
    assert "record" in formats("iris_model")["application/json"]


def test_tables(document):
    """A table may be answered by a table, and a model with params takes them in a header."""
    operations = {name: document["paths"][f"/models/{name}/invocations"]["post"] for name in ("params", "numbers")}
    for name, operation in operations.items():
        assert ARROW in resolved(document, operation["responses"]["200"])["content"]
        headers = [resolved(document, parameter)["name"] for parameter in operation["parameters"]]
        assert ("mlflow-params" in headers) == (name == "params")


def test_schemas_refuse_what_models_refuse(server, document):
    """A value of the wrong type and an absent column are refused by both, the schema and the server."""
    payloads: list[Any] = [{"dataframe_records": [{"a": 1}]}, {"dataframe_records": [{"a": "x", "b": 1}]}, {"data": []}]
    for payload in payloads:
        schema = {"$ref": "#/components/schemas/numbers.payload"}
        assert faults(document, schema, payload)
        response = requests.post(f"{server.url}/models/numbers/invocations", json=payload, timeout=60)
        assert response.status_code == 400
        assert faults(document, {"$ref": "#/components/schemas/Error"}, response.json()) == []


class Scaled(PythonModel):
    """Multiplies a column by a param."""

    def predict(self, context, model_input, params=None):
        return (model_input["x"] * params["factor"]).tolist()


def test_an_example_that_was_logged_with_params(tmp_path):
    """All formats have examples, without the params; one more has the params of the example."""
    table, params = pd.DataFrame({"x": [1.5, 2.5, 3.5]}), {"factor": 3.0, "label": "a"}
    signature = infer_signature(table, [1.5], params={"factor": 1.0, "label": "b"})
    path = tmp_path / "scaled"
    mlflow.pyfunc.save_model(
        path, python_model=Scaled(), signature=signature, input_example=(table, params), pip_requirements=["mlflow"]
    )
    with serving_models([(ModelConfig(uri=str(path), name="scaled", endpoint=True), None)], http_port=0) as server:
        document = document_of(server)
        contents = {
            content_type: content for path, _, content_type, content in bodies(document) if path == "/invocations"
        }
        examples = {name: example["value"] for name, example in contents["application/json"]["examples"].items()}
        assert examples.keys() == {"dataframe_split", "dataframe_records", "inputs", "instances", "with_params"}
        assert {name for name, example in examples.items() if "params" in example} == {"with_params"}
        assert examples["with_params"]["params"] == params
        assert contents["text/csv"]["examples"]["csv"]["value"] == "x\n1.5\n2.5\n"
        schema = resolved(document, document["paths"]["/invocations"]["post"]["responses"]["200"])["content"]
        for name, example in examples.items():
            assert faults(document, contents["application/json"]["schema"], example) == [], name
            answer = requests.post(f"{server.url}/invocations", json=example, timeout=60).json()
            assert answer == {"predictions": [4.5, 7.5] if name == "with_params" else [1.5, 2.5]}
            assert faults(document, schema["application/json"]["schema"], answer) == [], name


def test_one_model_is_at_invocations(models):
    """A single model is the default one: /invocations has its payloads and needs no header."""
    model = ModelConfig(uri=str(models["numbers"]), name="numbers", endpoint=True)
    with serving_models([(model, None)], http_port=0) as server:
        document = document_of(server)
        SpecValidator(document).validate()
        operation = document["paths"]["/invocations"]["post"]
        assert operation["requestBody"] == document["paths"]["/models/numbers/invocations"]["post"]["requestBody"]
        assert "mlflow-model" not in [resolved(document, parameter)["name"] for parameter in operation["parameters"]]
        assert not any(path.startswith("/api") for path in document["paths"])


def test_the_command(models, tmp_path):
    """`mlflow-grpc openapi` writes the document that the server has, with the title of the configuration."""
    config, output = tmp_path / "models.yaml", tmp_path / "openapi.json"
    config.write_text(
        f"service_title: Numbers\nversion: '3'\ndescription: All of them.\nmodels: [{{uri: {models['numbers']}}}]\n"
    )
    with Forked(["openapi", "--config", str(config), "-o", str(output)]) as process:
        assert process.wait() == 0, process.output
    document = json.loads(output.read_text())
    assert document["info"] == {"title": "Numbers", "version": "3", "description": "All of them."}
    with start_server("--config", str(config), "--http-port", "0") as process:
        url = process.wait_for(r"ready: .*HTTP on (http://\S+?);")[1]
        assert requests.get(f"{url}/openapi.json", timeout=60).json() == document


def test_definitions_become_components():
    """References within a schema, also to itself, lead to components; a tuple of pydantic 1 has prefixItems."""
    components = Components()
    node = {"type": "object", "properties": {"$ref": {"type": "string"}, "next": {"$ref": "#/$defs/Node of[T]"}}}
    schema = {"$defs": {"Node of[T]": node}, "properties": {"self": {"$ref": "#"}, "pair": {"items": [{}, {}]}}}
    assert components.add("a b", schema) == {"$ref": "#/components/schemas/a_b"}
    assert components.schemas == {
        "a_b.Node_of_T_": {
            "type": "object",
            "properties": {"$ref": {"type": "string"}, "next": {"$ref": "#/components/schemas/a_b.Node_of_T_"}},
        },
        "a_b": {"properties": {"self": {"$ref": "#/components/schemas/a_b"}, "pair": {"prefixItems": [{}, {}]}}},
    }
