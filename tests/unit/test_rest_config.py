"""The `rest_config.yaml` of rest-model-service has the same meaning here as in that package, which is the reference."""

import itertools
import re

import pytest
import yaml
from rest_model_service.configuration import ServiceConfiguration

from mlflow_grpc import config
from mlflow_grpc.errors import StartError

CURRENT = """
service_title: REST Model Service
description: "Service description"
version: "1.1.0"
metrics:
  enabled: true
  excluded_handlers: [/docs]
models:
  - class_path: tests.mocks.IrisModel
    create_endpoint: true
  - class_path: tests.mocks.Other
    create_endpoint: no
    configuration: {depth: 3, nested: {a: [1]}}
    decorators:
      - class_path: tests.mocks.Inner
      - class_path: tests.mocks.Outer
        configuration: {level: 2}
logging:
  version: 1
  disable_existing_loggers: true
  root: {level: INFO}
"""

OF_0_1 = """
service_title: Insurance Charges Model Service
models:
  - qualified_name: insurance_charges_model
    class_path: insurance.prediction.model.InsuranceChargesModel
    create_endpoint: true
"""

OF_0_4 = """
service_title: Credit Risk Model Service
description: "Service hosting the Credit Risk Model."
version: "0.1.0"
models:
  - qualified_name: credit_risk_model
    class_path: credit.model.CreditRiskModel
    create_endpoint: true
    decorators:
      - class_path: data.PredictionIDDecorator
      - class_path: data.EnrichmentDecorator
        configuration:
          password: "${PASSWORD}"
          fields: ["sex"]
logging: {version: 1}
"""

NOTHING_BESIDE = "models: [{class_path: a.B, create_endpoint: true}]"
ONLY_A_NAME = "models: [{qualified_name: b, class_path: a.B, create_endpoint: false}]"
ONLY_A_TITLE = "service_title: t\nmodels: [{class_path: a.B, create_endpoint: true}]"
KEYS_OF_NOBODY = """
service_title: t
colour: blue
serv1ce_title: u
models:
  - class_path: a.B
    create_endpoint: true
    xyz: [1]
    decorator: []
    decorators: [{class_path: a.C, config: {}, qualified_name: c}]
"""
KEYS_TWICE = """
service_title: t
models: [{class_path: a.A, create_endpoint: true}]
models:
  - class_path: a.B
    create_endpoint: false
    create_endpoint: true
"""
EMPTY_VALUES = "service_title: t\nmodels: [{class_path: a.B, create_endpoint: 'yes', configuration: , decorators: }]"

FILES = [
    CURRENT, OF_0_1, OF_0_4, NOTHING_BESIDE, ONLY_A_NAME, ONLY_A_TITLE, KEYS_OF_NOBODY, KEYS_TWICE, EMPTY_VALUES,
]  # fmt: skip


def read(tmp_path, text):
    path = tmp_path / "rest_config.yaml"
    path.write_text(text)
    return config.read(path)


def warnings(tmp_path, text):
    return [line.removeprefix(f"{tmp_path / 'rest_config.yaml'}: ") for line in read(tmp_path, text).warnings]


@pytest.mark.parametrize("text", FILES)
def test_models_equal_those_of_the_package(tmp_path, text):
    """Classes, endpoints, configurations, decorators and logging equal those of rest-model-service."""
    theirs = ServiceConfiguration(**yaml.full_load(text))
    ours = read(tmp_path, text)
    assert [
        (model.class_path, model.endpoint, model.configuration, [(decorator.class_path, decorator.configuration) for decorator in model.decorators])
        for model in ours.models
    ] == [
        (
            model.class_path,
            model.create_endpoint,
            model.configuration,
            [(decorator.class_path, decorator.configuration) for decorator in model.decorators or []],
        )
        for model in theirs.models
    ]  # fmt: skip
    assert ours.logging == theirs.logging
    assert all(model.name is None for model in ours.models)


@pytest.mark.parametrize(
    ("left_out", "own_key"),
    [*itertools.product(ServiceConfiguration.model_fields, ["name: m", "on_error: skip", None])],
)
def test_every_optional_key_is_known(tmp_path, left_out, own_key):
    """Every key of the package is known, also in a file to which keys of our format were added."""
    content = {key: value for key, value in yaml.safe_load(CURRENT).items() if key != left_out}
    if own_key and "models" in content:
        content["models"][0].update(yaml.safe_load(own_key))
    if "models" in content:
        assert warnings(tmp_path, yaml.safe_dump(content)) == []
    else:
        with pytest.raises(StartError, match="models: is missing"):
            read(tmp_path, yaml.safe_dump(content))


def test_warnings_have_the_file_and_the_path(tmp_path):
    """A key without effect is a log line with file and path, and with the nearest valid key."""
    assert read(tmp_path, OF_0_1).warnings == (
        f"{tmp_path / 'rest_config.yaml'}: models[0].qualified_name is obsolete since rest-model-service 0.5.0 and has no "
        "effect; callers use the name in the class",
    )
    assert warnings(tmp_path, KEYS_OF_NOBODY) == [
        "colour is not a key of rest-model-service and has no effect",
        "serv1ce_title is not a key of rest-model-service and has no effect; did you mean service_title?",
        "models[0].xyz is not a key of rest-model-service and has no effect",
        "models[0].decorator is not a key of rest-model-service and has no effect; did you mean decorators?",
        "models[0].decorators[0].config is not a key of rest-model-service and has no effect; did you mean configuration?",
        "models[0].decorators[0].qualified_name is not a key of rest-model-service and has no effect",
    ]
    assert warnings(tmp_path, KEYS_TWICE) == [
        "the key create_endpoint occurs twice in one mapping, in lines 6 and 7; the last one counts",
        "the key models occurs twice in one mapping, in lines 3 and 4; the last one counts",
    ]
    assert warnings(tmp_path, CURRENT) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [{uri: a, create_endpoint: true, nmae: b}]", r"models\[0\].nmae: there is no such key; did you mean name"),
        ("service_title: t\nmodels: [{uri: a, nmae: b}]", r"models\[0\].nmae: there is no such key; did you mean name"),
        ("service_title: t\nmodels: [{class_path: a.B, on_error: skip}]\ncolour: blue", "colour: there is no such key"),
        ("models: [{class_path: a.B, qualified_name: b, default: true}]", r"qualified_name: there is no such key"),
        ("models: [{class_path: a.B, nmae: b}]", r"models\[0\].nmae: there is no such key; did you mean name"),
        ("models: [{uri: a, uri: b, create_endpoint: true}]", "the key uri occurs twice"),
    ],
)  # fmt: skip
def test_a_file_of_ours_stays_strict(tmp_path, text, message):
    """A model with a key that only our format has makes the file one of our format, where unknown keys are refused."""
    with pytest.raises(StartError, match=message):
        read(tmp_path, text)


def test_each_key_of_ours_marks_a_file_of_ours(tmp_path):
    """`unknown_columns`, `try_example` and every other key that only our format has take effect beside `description`."""
    of_package = {"class_path", "configuration", "decorators"}
    for key in config.ModelConfig.model_fields.keys() - of_package:
        content = {"description": "d", "models": [{"class_path": "a.B", key: None, "nmae": "b"}]}
        with pytest.raises(StartError, match=r"nmae: there is no such key"):
            read(tmp_path, yaml.safe_dump(content))
    content = {"description": "d", "models": [{"class_path": "a.B", "unknown_columns": "refuse", "try_example": False}]}
    (model,) = read(tmp_path, yaml.safe_dump(content)).models
    assert (model.unknown_columns, model.try_example) == ("refuse", False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("service_title: t\nmodels: [{create_endpoint: true}]", r"models\[0\]: give either uri .* or class_path"),
        ("service_title: t\nmodels: [{class_path: B, create_endpoint: true}]", r"models\[0\].class_path: must have the form"),
        ("service_title: t\nmodels: [a.B]", r"models\[0\]: has to be a mapping"),
        ("service_title: t\nmodels: a.B", "models: has to be a list"),
        ("service_title: t\nmodels: [{class_path: a.B, create_endpoint: true, decorators: [c.D]}]", r"decorators\[0\]: has to"),
        ("service_title: t\nmodels: [{class_path: a.B, create_endpoint: maybe}]", "should be a valid boolean"),
        ("service_title: t\nmodels: []", "at least one entry"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(tmp_path, text, message):
    """Invalid values are refused with their paths."""
    with pytest.raises(StartError, match=message) as caught:
        read(tmp_path, text)
    assert re.match(r"[^\n]*rest_config\.yaml: ", str(caught.value))
