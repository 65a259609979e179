"""The OpenAPI document: its paths.

Source: https://spec.openapis.org/oas/v3.1.1. Rule of this module: a path exists if the server has the route.
"""

import re
from importlib.metadata import version as version_of
from typing import Any

from _mlflow_grpc_protocol.metadata import MODEL_KEY, REQUEST_ID_KEY

from mlflow_grpc import __version__
from mlflow_grpc.config import ServiceInfo
from mlflow_grpc.engine.catalog import Catalog, Entry
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.http import rest_model_service
from mlflow_grpc.http.http_call import TIMEOUT_HEADER
from mlflow_grpc.http.invocations import ARROW, PARAMS_KEY
from mlflow_grpc.http.open_inference import BINARY, PREFIX
from mlflow_grpc.http.openapi import inference_paths, shared
from mlflow_grpc.http.openapi.components import Components, component_name, reference
from mlflow_grpc.http.openapi.inference_examples import inference_examples
from mlflow_grpc.http.openapi.payload_examples import Example, examples_of
from mlflow_grpc.http.openapi.payload_schemas import PayloadSchemas
from mlflow_grpc.http.response import EVENT_STREAM, JSON, media_type_of
from mlflow_grpc.payload.codec import RecordCodec

OPENAPI_VERSION = "3.1.1"

TITLE = "mlflow-grpc"

Json = dict[str, Any]


def document_of(catalog: Catalog, service: ServiceInfo, entries: list[Entry] | None = None) -> Json:
    """Returns the document of the models that are loaded and have an endpoint.

    Args:
        catalog: The models of the server.
        service: Title, version and description.
        entries: The models to describe; None for all of them.

    """
    return _DocumentBuilder(catalog, catalog.entries if entries is None else entries).build(service)


class _DocumentBuilder:
    def __init__(self, catalog: Catalog, entries: list[Entry]) -> None:
        self._catalog, self._entries = catalog, entries
        self._components = Components()
        self._bodies: Json = {}
        self._answers: Json = {}
        self._paths: Json = {}
        self._schemas: dict[int, PayloadSchemas] = {}
        self._examples: dict[int, list[Example]] = {}

    def build(self, service: ServiceInfo) -> Json:
        """Returns the document."""
        entries = [(entry, entry.loaded) for entry in self._entries if entry.loaded is not None]
        callable_entries = [(entry, model) for entry, model in entries if entry.config.endpoint]
        names = _names([entry for entry, _ in callable_entries])
        for (entry, model), name in zip(callable_entries, names, strict=True):
            self._add_model(entry, model, name)
        self._add_default(dict(zip(names, callable_entries, strict=True)))
        if any(rest_model_service.hosted(self._entries)):
            self._add_model_service(dict(zip((id(entry) for entry, _ in callable_entries), names, strict=True)))
        models = [entry for entry, _ in callable_entries]
        versions = [entry.version for entry in models if entry.version]
        self._paths |= {**inference_paths.paths([entry.name for entry in models], versions), **shared.PATHS}
        self._components.prune([self._paths, self._bodies, self._answers])
        return {
            "openapi": OPENAPI_VERSION,
            "info": {
                "title": service.title or TITLE,
                "version": service.version or __version__,
                "description": service.description
                or f"Models of MLflow {version_of('mlflow')}, with the answers of `mlflow models serve`.",
            },
            "paths": self._paths,
            "components": {
                "schemas": {**shared.SCHEMAS, **inference_paths.SCHEMAS, **self._components.schemas},
                "requestBodies": self._bodies,
                "responses": {**shared.RESPONSES, **inference_paths.RESPONSES, **self._answers},
                "parameters": {**shared.PARAMETERS, **inference_paths.PARAMETERS},
            },
        }

    def _add_model(self, entry: Entry, model: ServableModel, name: str) -> None:
        examples = self._examples[id(entry)] = examples_of(model)
        schemas = self._schemas[id(entry)] = PayloadSchemas(model, name, examples, self._components)
        self._bodies[name] = {"required": True, "content": _content(schemas.payloads(), examples)}
        media_type, schema = schemas.answers()
        content: Json = {media_type_of(media_type): {"schema": schema}}
        if ARROW in self._bodies[name]["content"]:
            content[ARROW] = {
                "schema": {"description": "A stream of Arrow record batches, for callers that accept it."}
            }
        if model.model.streams:
            content[EVENT_STREAM] = {"schema": {"type": "string", "description": "One line `data: ` per chunk."}}
        self._answers[name] = {"description": "The predictions.", "content": content}
        names = [name] if name != component_name(entry.name) else []
        if self._catalog.get(entry.name, "") is entry:  # Without a version, the default is called.
            names.append(entry.name)
        if takes_tensors := isinstance(model.codec, RecordCodec):
            self._add_inference_body(f"{name}.infer", model, examples)
        for path_name in names:
            version = f"/versions/{entry.version}" if path_name != entry.name else ""
            path, identifier = f"/models/{entry.name}{version}", _identifier(path_name)
            self._paths[f"{path}/invocations"] = {"post": self._operation(name, f"invoke_{identifier}", entry, model)}
            if takes_tensors:
                summary = f"Predict with {model.model.info.display_name or entry.label}, from tensors"
                operation = inference_paths.infer_operation(f"infer_{identifier}", summary, entry.name, f"{name}.infer")
                self._paths[f"{PREFIX}{path}/infer"] = {"post": operation}

    def _add_inference_body(self, name: str, model: ServableModel, examples: list[Example]) -> None:
        """Adds the body of inference requests to a model as a component."""
        content: Json = {"schema": self._components.add(name, inference_paths.request_schema(model))}
        if named := inference_examples(model, examples):
            content["examples"] = named
        self._bodies[name] = {"required": True, "content": {JSON: content, BINARY: {}}}

    def _operation(self, name: str, operation_id: str, entry: Entry, model: ServableModel) -> Json:
        info = model.model.info
        params = [PARAMS_KEY] if info.contract.params and ARROW in self._bodies[name]["content"] else []
        summary = f"Predict with {info.display_name or entry.label}"
        flavors = f"Flavors: {', '.join(info.flavors)}." if info.flavors else ""
        description = "\n\n".join(filter(None, [info.description, flavors]))
        return {
            "operationId": operation_id,
            "summary": summary,
            **({"description": description} if description else {}),
            "tags": [entry.name],
            "parameters": [reference("parameters", header) for header in (TIMEOUT_HEADER, REQUEST_ID_KEY, *params)],
            "requestBody": reference("requestBodies", name),
            "responses": {"200": reference("responses", name), **shared.FAILURES},
        }

    def _add_default(self, models: dict[str, tuple[Entry, ServableModel]]) -> None:
        """Adds /invocations, which calls the default model or the one in a header."""
        if not models:
            return
        labels = [entry.label for entry, _ in models.values()]
        default = next((name for name, (entry, _) in models.items() if self._catalog.is_default(entry)), None)
        if default is not None:
            operation = self._operation(default, "invoke", *models[default])
        else:
            payloads = [reference("schemas", f"{name}.payload") for name in models]
            operation = {
                **self._operation(next(iter(models)), "invoke", *next(iter(models.values()))),
                "summary": f"Predict with the model in the header {MODEL_KEY}",
                "tags": [TITLE],
                "requestBody": {
                    "required": True,
                    "content": {JSON: {"schema": {"anyOf": [p for p in payloads if self._has(p)] or [{}]}}},
                },
                "responses": {"200": {"description": "The predictions."}, **shared.FAILURES},
            }
            operation.pop("description", None)
        if len(models) > 1:
            header = {"name": MODEL_KEY, "in": "header", "schema": {"type": "string", "enum": labels}}
            operation["parameters"] = [{**header, "required": default is None}, *operation["parameters"]]
        self._paths["/invocations"] = {"post": operation}

    def _has(self, schema: Json) -> bool:
        return schema["$ref"].rpartition("/")[2] in self._components.schemas

    def _add_model_service(self, names: dict[int, str]) -> None:
        hosted = list(rest_model_service.hosted(self._entries))
        labels = list(dict.fromkeys(rest_model_service.service_name(entry, model) for entry, model in hosted))
        self._paths |= shared.model_service_paths(labels)
        for entry, model in hosted:
            label = rest_model_service.service_name(entry, model)
            path = f"{rest_model_service.PREFIX}/models/{label}/prediction"
            if not entry.config.endpoint or path in self._paths or re.search(r"[{}?#]", label):
                continue
            schemas = self._schemas[id(entry)]
            records = [example for example in self._examples[id(entry)] if example.format == "record"]
            self._paths[path] = {
                "post": {
                    "operationId": f"predict_{_identifier(names[id(entry)])}",
                    "summary": f"Predict one record with {model.model.info.display_name}",
                    "description": model.model.info.description,
                    "tags": [entry.name],
                    "requestBody": {
                        "required": True,
                        "content": _content({JSON: schemas.record}, records),
                    },
                    "responses": {
                        "200": {"description": "The output.", "content": {JSON: {"schema": schemas.output}}},
                        **shared.SERVICE_FAILURES,
                    },
                }
            }


def _content(schemas: dict[str, Json], examples: list[Example]) -> Json:
    content: Json = {}
    for content_type, schema in schemas.items():
        named = {
            example.format: {"value": example.value} for example in examples if example.content_type == content_type
        }
        content[content_type] = {"schema": schema, **({"examples": named} if named else {})}
    return content


def _names(entries: list[Entry]) -> list[str]:
    """Returns unique names for the components of each model."""
    names: list[str] = []
    for entry in entries:
        versions = sum(other.name == entry.name for other in entries)
        name = component_name(f"{entry.name}.{entry.version}" if versions > 1 else entry.name)
        names.append(name if name not in names else f"{name}.{len(names)}")
    return names


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)
