"""Models in object stores: fetched with the packages of an extra, or refused with its name."""

import subprocess
import sys
import tempfile
import tomllib

import boto3
import mlflow
import pytest
from mlflow.pyfunc.model import PythonModel
from moto.server import ThreadedMotoServer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlflow_grpc.distribution import install_source, installed_extras
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc import carried_environment, fetching
from mlflow_grpc.hosting.pyfunc.load import load_pyfunc
from mlflow_grpc.hosting.pyfunc.remote import missing_library
from scripts.requirements_of_extra import requirements
from tests.support.servers import ROOT

pytestmark = pytest.mark.slow

URIS = {
    "s3": ["s3://bucket/model"],
    "gs": ["gs://bucket/model"],
    "azure": [
        "abfss://files@account.dfs.core.windows.net/model",
        "wasbs://container@account.blob.core.windows.net/model",
    ],
}
PACKAGES = {"s3": ["boto3", "botocore"], "gs": ["google.cloud.storage"], "azure": ["azure"]}


@pytest.fixture
def without(monkeypatch):
    """Makes the packages of an extra look as if they were not installed."""

    def remove(extra: str) -> None:
        for package in PACKAGES[extra]:
            for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [Hidden(PACKAGES[extra]), *sys.meta_path])

    return remove


class Hidden:
    """An import hook that does not find some packages, as if they were not installed."""

    def __init__(self, packages: list[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if any(name == package or name.startswith(f"{package}.") for package in self._packages):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(("extra", "uri"), [(extra, uri) for extra, uris in URIS.items() for uri in uris])
@pytest.mark.parametrize("fetch", [fetching.fetch, carried_environment.read], ids=["load", "environment"])
def test_a_missing_library_is_named_with_its_extra(without, extra, uri, fetch):
    """Without its library, a URI is refused with the extra and the command that installs it."""
    without(extra)
    with pytest.raises(StartError, match=f"cannot fetch the model {uri}: .* comes with the extra {extra}: ") as caught:
        fetch(uri)
    assert str(caught.value).endswith(f"pip install {install_source(extra)}")


def test_a_wrapped_import_error_is_found():
    """A failed import is found behind MLflow's own exception, and in its text."""
    try:
        try:
            raise ModuleNotFoundError("No module named 'boto3'", name="boto3")
        except ModuleNotFoundError as error:
            raise mlflow.MlflowException("download failed") from error
    except mlflow.MlflowException as error:
        assert "extra s3" in (missing_library(error) or "")
    quoted = mlflow.MlflowException("failures: {'MLmodel': \"cannot import name 'storage' from 'google.cloud'\"}")
    assert "extra gs" in (missing_library(quoted) or "")


@pytest.mark.parametrize("error", [OSError("no bucket"), ModuleNotFoundError("No module named 'paramiko'")], ids=str)
def test_other_failures_are_left_alone(error):
    """A failure that no extra would fix names no extra."""
    assert missing_library(error) is None


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of an S3 server in this process, which MLflow uses for S3 URIs."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=settings["MLFLOW_S3_ENDPOINT_URL"])
    client.create_bucket(Bucket="models")
    yield client
    client.close()
    server.stop()


class Echo(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


def test_a_model_in_s3_is_served(bucket, tmp_path):
    """A model at an s3:// URI is loaded. Reading its environment does not fetch its weights."""
    saved = tmp_path / "echo"
    mlflow.pyfunc.save_model(saved, python_model=Echo(), pip_requirements=["mlflow"])
    (saved / "weights.bin").write_bytes(bytes(carried_environment.MAX_DESCRIPTION_BYTES + 1))
    for path in saved.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), "models", f"echo/{path.relative_to(saved)}")
    model = load_pyfunc(fetching.fetch("s3://models/echo"))
    assert model.name == "echo"
    assert model.predict([1, 2], None) == [1, 2]
    carried = carried_environment.read("s3://models/echo")
    assert carried.digest() == carried_environment.read(str(saved)).digest()
    assert not (carried.directory / "weights.bin").exists()
    carried.discard()
    carried_environment.fetch("s3://models/echo", tmp_path / "fetched")
    assert {path.name for path in (tmp_path / "fetched").iterdir()} == {path.name for path in saved.iterdir()}


def test_an_environment_that_cannot_be_read_leaves_no_files(bucket, tmp_path, monkeypatch):
    """The temporary directory for a remote model's environment is removed when the model is refused."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bucket.put_object(Bucket="models", Key="other/README.md", Body=b"not a model")
    with pytest.raises(StartError, match="is not an MLflow model"):
        carried_environment.read("s3://models/other")
    assert list(tmp_path.iterdir()) == []


def test_installed_extras_are_those_that_lack_nothing():
    """The packages for tests include those of the extras jwt, s3 and tracing, so these count as installed and no other does."""
    assert installed_extras() == ("jwt", "s3", "tracing")


@pytest.mark.parametrize("extra", URIS)
def test_the_lock_of_an_extra_agrees_with_the_others(extra):
    """The lock of each extra has its requirements, in the same versions as the other locks."""
    pinned = pins(f"requirements-{extra}.txt")
    for text in requirements(extra):
        requirement = Requirement(text)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier
    for file_name in ("requirements.txt", *(f"requirements-{name}.txt" for name in URIS)):
        shared = pins(file_name).keys() & pinned.keys()
        assert {name: pins(file_name)[name] for name in shared} == {name: pinned[name] for name in shared}


def pins(file: str) -> dict[str, str]:
    lines = (line.split(" ")[0] for line in (ROOT / file).read_text().splitlines() if line[:1].isalnum())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_makefile_locks_all_extras():
    """The Makefile locks every extra in pyproject.toml, except for Ray, which the nodes of a cluster bring along."""
    done = subprocess.run(
        ["make", "-n", "lock", "VENV=none"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    del extras["ray"]
    assert f"for extra in {' '.join(extras)};" in done.stdout, done.stderr
