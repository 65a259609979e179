"""The environment that a model describes, read as MLflow reads it."""

import shutil
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.pyfunc.model import PythonModel
from mlflow.utils.virtualenv import _get_python_env

from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc import carried_environment


class Nothing(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    mlflow.pyfunc.save_model(path, python_model=Nothing(), pip_requirements=["mlflow==3.17.2", "toolz==1.0.0"])
    return path


@pytest.fixture
def model(saved, tmp_path):
    """A copy of a model, for tests that change it."""
    return shutil.copytree(saved, tmp_path / "model")


def test_environment_equals_mlflows(model):
    """Python, build dependencies and dependencies equal those of MLflow's own function."""
    carried = carried_environment.read(str(model))
    oracle = _get_python_env(model)
    assert carried.python == oracle.python
    assert list(carried.build_dependencies) == oracle.build_dependencies
    assert list(carried.dependencies) == oracle.dependencies
    assert carried.requirements == ["mlflow==3.17.2", "toolz==1.0.0"]


def test_a_model_with_conda_yaml_alone(model):
    """A model from before MLflow 1.26 has no python_env.yaml; its Python and packages come from conda.yaml."""
    for name in ("python_env.yaml", "requirements.txt"):
        (model / name).unlink()
    conda = {"dependencies": ["python=3.12.4", "pip<=23.1", {"pip": ["mlflow==3.17.2", "toolz"]}]}
    (model / "conda.yaml").write_text(yaml.safe_dump(conda))
    carried = carried_environment.read(str(model))
    assert carried.python == "3.12.4"
    assert carried.build_dependencies == ("pip<=23.1",)
    assert carried.requirements == ["mlflow==3.17.2", "toolz"]


def test_the_file_named_in_mlmodel_counts(model):
    """The environment comes from the file that MLmodel names."""
    (model / "python_env.yaml").rename(model / "other.yaml")
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(text.replace("python_env.yaml", "other.yaml"))
    (model / "other.yaml").write_text("python: 3.13.1\n")
    assert carried_environment.read(str(model)).python == "3.13.1"
    assert carried_environment.read(model.as_uri()).python == "3.13.1"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("requirements.txt", "toolz==1.1.0\n"),
        ("python_env.yaml", "python: 3.12.1\ndependencies: [-r requirements.txt]\n"),
        ("constraints.txt", "toolz<2\n"),
        ("more.txt", "orjson\n"),
        ("code/own.whl", "other bytes"),
    ],
)
def test_the_digest_covers_everything_installed(model, file, text):
    """A change to the requirements, to a file that they name, or to the Python version changes the digest."""
    (model / "code").mkdir()
    (model / "code" / "own.whl").write_text("bytes")
    (model / "constraints.txt").write_text("toolz<3\n")
    (model / "more.txt").write_text("click\n")
    (model / "requirements.txt").write_text("toolz\n-c constraints.txt\n-r more.txt\ncode/own.whl\n")
    before = carried_environment.read(str(model)).digest()
    (model / file).write_text(text)
    assert carried_environment.read(str(model)).digest() != before


def test_the_digest_ignores_everything_else(model, tmp_path):
    """A change to the model's weights, run or location does not change the digest."""
    before = carried_environment.read(str(model)).digest()
    copy = shutil.copytree(model, tmp_path / "elsewhere")
    (copy / "python_model.pkl").write_bytes(b"other weights")
    (copy / "MLmodel").write_text((copy / "MLmodel").read_text() + "model_id: m-1\n")
    assert carried_environment.read(str(copy)).digest() == before


@pytest.mark.parametrize(
    "line",
    ["code/own.whl", "./code", "-e ./code", "--editable=code/x", "own-1.0.whl", "code/own.whl ; python_version > '3'"],
)
def test_a_requirement_may_be_a_file_of_the_model(model, line):
    """A requirement that is a path among the model's files needs these files."""
    (model / "code").mkdir()
    (model / "code" / "own.whl").write_text("bytes")
    (model / "requirements.txt").write_text(f"toolz\n{line}\n")
    carried = carried_environment.read(model.as_uri())
    assert carried.needs_files
    assert (carried.directory / "code" / "own.whl").read_text() == "bytes"


@pytest.mark.parametrize("line", ["toolz", "./code"])
@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["directory", "URI"])
def test_discarding_leaves_the_model(model, form, line):
    """`discard` removes fetched files, but never a model whose URI names a local directory."""
    (model / "code").mkdir()
    (model / "requirements.txt").write_text(f"{line}\n")
    carried = carried_environment.read(form(model))
    carried.discard()
    assert (model / "MLmodel").is_file()
    assert carried.directory == model or not carried.directory.exists()


@pytest.mark.parametrize(
    "line",
    [
        "toolz==1.0.0",
        "toolz @ https://example.com/a/toolz.whl",
        "git+https://example.com/r.git#subdirectory=x/y",
        "--extra-index-url https://example.com/simple",
        "--find-links /srv/wheels",
        "-r more/requirements.txt",
        "# see docs/x",
        "toolz # as in a/b",
    ],
)
def test_other_requirements_need_no_files_of_the_model(model, line):
    """Names, URLs and options do not need the model's files."""
    (model / "more").mkdir()
    (model / "more" / "requirements.txt").write_text("toolz\n")
    (model / "requirements.txt").write_text(f"{line}\n")
    assert not carried_environment.read(str(model)).needs_files


def test_hashes_are_detected(model):
    """Hashes are detected in the requirements and in files that these name."""
    assert not carried_environment.read(str(model)).has_hashes
    (model / "requirements.txt").write_text("-r pinned.txt\n")
    (model / "pinned.txt").write_text("toolz==1.0.0 \\\n    --hash=sha256:00\n")
    assert carried_environment.read(str(model)).has_hashes


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["directory", "URI"])
def test_a_missing_environment_is_refused_with_advice(model, form):
    """A model without python_env.yaml and conda.yaml is refused with advice."""
    for name in ("python_env.yaml", "conda.yaml"):
        (model / name).unlink()
    with pytest.raises(StartError, match=r"carries no environment along .*--env-manager local"):
        carried_environment.read(form(model))


@pytest.mark.parametrize(
    ("text", "error"), [("python: 3.1\n", "must be a string"), ("][", "cannot be read"), ("- a\n", "cannot be read")]
)
def test_an_invalid_environment_is_one_line(model, text, error):
    """A python_env.yaml that MLflow cannot read is an error of one line."""
    (model / "python_env.yaml").write_text(text)
    with pytest.raises(StartError, match=error) as caught:
        carried_environment.read(str(model))
    assert "\n" not in str(caught.value)


def test_missing_models_have_specific_errors(tmp_path):
    """A missing directory, a directory without a model, and a URI without a model have different errors."""
    with pytest.raises(StartError, match="there is no such directory"):
        carried_environment.read(str(tmp_path / "none"))
    with pytest.raises(StartError, match="has no MLmodel file"):
        carried_environment.read(str(tmp_path))
    with pytest.raises(StartError, match="cannot fetch the model nowhere:/x"):
        carried_environment.read("nowhere:/x")


@pytest.mark.parametrize("form", [str, Path.as_uri], ids=["directory", "URI"])
def test_fetching_copies_all_files(model, tmp_path, form):
    """`fetch` copies the same files for every form of URI."""
    carried_environment.fetch(form(model), tmp_path / "target" if form is str else tmp_path / "other")
    target = tmp_path / ("target" if form is str else "other")
    names = {path.relative_to(model) for path in model.rglob("*")}
    assert {path.relative_to(target) for path in target.rglob("*")} == names
