"""engine/catalog.py: which model a call is for."""

import pytest

from mlflow_grpc.config import ModelConfig
from mlflow_grpc.engine.admission import Admission
from mlflow_grpc.engine.catalog import Catalog
from mlflow_grpc.engine.engine import Engine
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.engine.thread_pool import ModelThreadPool
from mlflow_grpc.errors import ModelNotLoaded, ModelNotNamed, NotReady, StartError, UnknownModel
from tests.support.models import FunctionModel, PlainCodec


def model(name, version=""):
    function = FunctionModel(str)
    function.name, function.version = name, version
    return ServableModel(function, PlainCodec())


def engine():
    return Engine(ModelThreadPool(1), Admission(max_requests=1, max_bytes=1, concurrency=1, timeout_s=1), timeout_s=1)


def catalog(*configs, load=True):
    filled = Catalog(
        tuple(ModelConfig(**{"uri": "m", **config}) for config in configs), engine, reserved=("", "MLflow")
    )
    if load:
        for entry, config in zip(filled.entries, configs, strict=True):
            filled.register(entry, model(config.get("name", "own"), config.get("version", "")))
    return filled


def test_the_only_model_need_not_be_named():
    """A call may name the only model or not, with or without its version."""
    models = catalog({"name": "iris", "version": "3"})
    assert {models.resolve(requested).label for requested in (None, "", "iris", "iris/3")} == {"iris/3"}
    for requested in ("iris/2", "Iris", "iris/", "../iris", "iris/3/4"):
        known = r"It has: 3\.$" if requested.startswith("iris/") else r"There are: iris/3\.$"
        with pytest.raises(UnknownModel, match=known):
            models.resolve(requested)


def test_names_and_versions_default_to_the_models_own():
    """Name and version come from the model if the configuration has none."""
    models = catalog({}, load=False)
    models.register(models.entries[0], model("own", "7"))
    assert models.resolve("own/7") is models.entries[0]


def test_calls_must_name_one_of_several_models():
    """With several models a call must name one, unless there is a default. The error lists the names."""
    with pytest.raises(ModelNotNamed, match="There are: a, b/1"):
        catalog({"name": "a"}, {"name": "b", "version": "1"}).resolve(None)
    models = catalog({"name": "a"}, {"name": "b", "version": "1", "default": True})
    assert models.resolve(None).name == "b"
    assert models.resolve("a").name == "a"


@pytest.mark.parametrize(
    ("versions", "expected"),
    [(["9", "10", "2"], "10"), (["1.9", "1.10"], "1.10"), (["blue", "1"], "1"), (["a", "b"], "b")],
)
def test_calls_without_a_version_get_the_highest(versions, expected):
    """Versions are compared as numbers where they are numbers, also for a call without a name if there is one model."""
    models = catalog(*({"name": "m", "version": version} for version in versions))
    assert models.resolve("m").version == expected
    assert models.resolve(None).version == expected
    assert models.resolve(f"m/{versions[0]}").version == versions[0]


def test_the_default_beats_the_highest_version():
    """The version that the owner marks as default wins over the highest."""
    models = catalog({"name": "m", "version": "1", "default": True}, {"name": "m", "version": "2"})
    assert models.resolve("m").version == "1"


def test_unknown_names_are_not_ready_while_loading():
    """While models are loading, an unknown name may belong to one of them. A name from the configuration is known at
    once."""
    models = catalog({"name": "a"}, {"uri": None, "class_path": "package.Class"}, load=False)
    assert models.resolve("a").name == "a"
    for requested in ("b", "a/3", None):
        with pytest.raises(NotReady):
            models.resolve(requested)
    models.register(models.entries[1], model("b"))
    models.register(models.entries[0], model("a"))
    assert models.resolve("b").name == "b"
    with pytest.raises(UnknownModel):
        models.resolve("c")


def test_names_from_uris_are_known_while_loading():
    """Names from URIs are known while loading; only the version behind an alias is not."""
    models = catalog({"uri": "models:/churn@champion"}, {"uri": "/srv/iris"}, load=False)
    assert models.resolve("iris").name == "iris"
    with pytest.raises(NotReady):
        models.resolve("churn/3")
    with pytest.raises(UnknownModel, match="There are: churn, iris"):
        models.resolve("nope")


def test_a_name_is_settled_once_all_versions_are_loaded():
    """Until all versions of a name are loaded, it is not certain which version a call without a version is for."""
    models = catalog({"name": "m", "version": "1"}, {"name": "m", "version": "2"}, {"name": "n"}, load=False)
    first, second, third = models.entries
    models.register(first, model("m", "1"))
    models.register(third, model("n"))
    assert [models.is_settled(entry) for entry in models.entries] == [False, False, True]
    models.mark_failed(second, "why")
    assert [models.is_settled(entry) for entry in models.entries] == [True, False, True]


def test_a_failed_model_does_not_affect_others():
    """A model that could not be loaded has its own error, and does not affect the others."""
    models = catalog({"name": "a"}, {"name": "b"}, load=False)
    models.register(models.entries[0], model("a"))
    models.mark_failed(models.entries[1], "why")
    with pytest.raises(ModelNotLoaded, match="The model b could not be loaded"):
        models.resolve("b")
    assert models.resolve("a").name == "a"
    assert models.entries[1].error == "why"
    assert models.labels == ["a"]


def test_errors_do_not_contain_the_source_of_a_model():
    """A failed model without a name is listed by its URI, which callers must not see."""
    models = catalog({"uri": "/srv/a", "default": True}, {"name": "b"}, load=False)
    models.mark_failed(models.entries[0], "why")
    models.register(models.entries[1], model("b"))
    for requested, expected in ((None, ModelNotLoaded), ("c", UnknownModel)):
        with pytest.raises(expected) as caught:
            models.resolve(requested)
        assert "srv" not in str(caught.value)


def test_models_without_an_endpoint_cannot_be_called():
    """A model without an endpoint is not among the names, and does not make a call without a name ambiguous."""
    models = catalog({"name": "a", "endpoint": False}, {"name": "b"})
    assert models.labels == ["b"]
    assert models.resolve(None).name == "b"
    with pytest.raises(UnknownModel):
        models.resolve("a")


def test_names_are_unique_and_not_reserved():
    """A name must be unique and must not be that of a service, whether it comes from the configuration or from the
    model."""
    models = catalog({}, {}, load=False)
    models.register(models.entries[0], model("same"))
    with pytest.raises(StartError, match="several models are called same"):
        models.register(models.entries[1], model("same"))
    models.register(models.entries[1], model("same", "2"))
    with pytest.raises(StartError, match="MLflow is the name of a service"):
        catalog({"name": "MLflow"})
