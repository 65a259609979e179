"""Environments of models: their content, refusals before a build, and their storage."""

import dataclasses
import hashlib
import importlib.metadata
import io
import os
import platform
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from mlflow_grpc.choices import EnvManager
from mlflow_grpc.distribution import CLIENT, SERVER
from mlflow_grpc.environments import building, interpreters, restarting, support, wheels
from mlflow_grpc.environments.building import Recipe
from mlflow_grpc.environments.commands import CommandFailed, Commands, Ended
from mlflow_grpc.environments.wheels import Wheel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.pyfunc.carried_environment import CarriedEnvironment
from mlflow_grpc.settings import Settings
from tests.support.processes import wait_until_gone
from tests.support.servers import ROOT

pytestmark = pytest.mark.slow

HERE = platform.python_version()


def carried(directory: Path, *dependencies: str, python: str = HERE) -> CarriedEnvironment:
    return CarriedEnvironment("m", directory, python, (), dependencies, is_local=True)


@pytest.fixture
def commands():
    with Commands() as running:
        yield running


# Wheels.


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheels of the server and the client, installed by pip into a directory."""
    folder = tmp_path_factory.mktemp("wheels")
    target = folder / "target"
    paths = [str(wheel.write(folder)) for wheel in wheels.pack_server_and_client()]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *paths], check=True)
    return target


def files_of(package: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(package)): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(
    ("package", "source"),
    [("mlflow_grpc", ROOT), ("mlflow_grpc_client", ROOT / "client"), ("_mlflow_grpc_protocol", ROOT / "client")],
    ids=["server", "client", "protocol"],
)
def test_a_wheel_has_the_imported_code(installed, package, source):
    """pip accepts the wheel and installs the imported files, including data files."""
    assert files_of(installed / package) == files_of(source / package)


@pytest.mark.parametrize("name", [SERVER, CLIENT])
def test_a_wheel_has_the_metadata(installed, name):
    """The installed wheel has the version, requirements, extras and commands of the distribution."""

    def facts(distribution: importlib.metadata.Distribution) -> tuple[object, ...]:
        scripts = sorted((entry.name, entry.value) for entry in distribution.entry_points)
        return distribution.version, distribution.requires, distribution.metadata.get_all("Provides-Extra"), scripts

    (there,) = importlib.metadata.distributions(name=name, path=[str(installed)])
    assert facts(there) == facts(importlib.metadata.distribution(name))


def test_equal_code_makes_equal_wheels():
    """Two wheels of the same code are equal to the byte, so that an environment is found again."""
    assert wheels.pack(SERVER) == wheels.pack(SERVER)


def test_a_missing_distribution_is_refused(monkeypatch):
    """Without the distribution's metadata there is no wheel, and the error says what to install."""
    monkeypatch.setattr(sys, "path", [str(ROOT), str(ROOT / "client")])
    with pytest.raises(StartError, match=rf"mlflow-grpc has to be installed here .*: pip install {ROOT}"):
        wheels.pack(SERVER)
    with pytest.raises(StartError, match="mlflow-grpc-client has to be installed here"):
        wheels.pack(CLIENT)


# Versions.


@pytest.mark.parametrize("python", ["2.7.18", "3.8.18", "3.10.13"])
def test_an_older_python_is_refused(tmp_path, python):
    """A model whose Python the server does not support is refused, with both versions and advice."""
    needed = importlib.metadata.metadata(SERVER)["Requires-Python"]
    if python in SpecifierSet(needed):
        pytest.fail(f"the server now runs with {python}: take an older one")
    with pytest.raises(StartError, match=rf"Python {python}, and this server needs {needed}.*--env-manager local"):
        support.check(carried(tmp_path, python=python))


@pytest.mark.parametrize("python", [HERE, ".".join(HERE.split(".")[:2]), "3.99.0"])
def test_supported_pythons_are_accepted(tmp_path, python):
    """This Python version and later ones are accepted; the search for an interpreter comes later."""
    support.check(carried(tmp_path, python=python))


@pytest.mark.parametrize(
    "requirement",
    [
        "mlflow==1.30.0",
        "mlflow<2",
        "mlflow>=1,<2.1",
        "mlflow==2.1.*",
        "mlflow~=2.1.0",
        "mlflow-skinny==2.0.1",
        "MLflow<2",
    ],
)
def test_unsupported_mlflow_versions_are_refused(tmp_path, requirement):
    """A requirement that no supported MLflow version meets is refused; --install-mlflow ignores it."""
    (tmp_path / "requirements.txt").write_text(f"toolz\n{requirement}\n")
    model = carried(tmp_path, "-r requirements.txt")
    with pytest.raises(StartError, match=r"requires .*(?i:mlflow).*--install-mlflow"):
        support.check(model)
    support.check(model, install_mlflow=True)


@pytest.mark.parametrize(
    "requirement",
    [
        f"mlflow=={importlib.metadata.version('mlflow')}",
        "mlflow",
        "mlflow>=1",
        "mlflow>=3.14,<4",
        "mlflow>3.99",
        "mlflow>3.14.0,<3.15",
        "mlflow==3.14.*",
        "mlflow~=3.14",
        "mlflow!=3.14.0",
        "mlflow[extras]>=3",
        "mlflow-skinny>=3.14",
        "mlflow==1.0; python_version < '3'",
        "mlflow @ https://example.com/mlflow.zip",
        "./mlflow",
        "toolz<1",
    ],
)
def test_possible_mlflow_versions_are_accepted(tmp_path, requirement):
    """A requirement that some supported version meets, or that only pip can check, is accepted."""
    support.check(carried(tmp_path, requirement))


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ({"env_manager": "conda"}, r"conda is not supported: use virtualenv or uv, .*conda env create"),
        ({"env_manager": "uv", "config": ROOT / "pyproject.toml"}, "--env-manager uv is for one model, and --config"),
        ({"env_manager": "virtualenv", "model_uri": "mlmodel:a.B"}, "a Python package, which carries no environment"),
    ],
)
def test_models_without_an_own_environment_are_refused(monkeypatch, flags, error):
    """Conda, several models and packages are refused, with an alternative."""
    monkeypatch.setenv("MODEL_PATH", "m")
    with pytest.raises(StartError, match=error):
        restarting.prepare(Settings.load(flags), install_mlflow=False)


# Interpreters.


def test_the_interpreter_of_the_same_version_is_found():
    """The search prefers an interpreter of the same version to another patch release of the same minor version."""
    minor = interpreters.minor_of(HERE)
    for version, expected in ((HERE, HERE), (minor, minor), (f"{minor}.99", minor)):
        path = interpreters.find(version)
        assert path is not None
        code = "import platform; print(platform.python_version())"
        output = subprocess.check_output([path, "-c", code], text=True).strip()
        assert output == expected or interpreters.minor_of(output) == expected


def test_a_missing_interpreter_has_install_advice():
    """A missing minor version returns None, and its error says how to install it."""
    assert interpreters.find("3.99.1") is None
    assert "pyenv install 3.99.1" in str(interpreters.missing("3.99.1"))


def test_uv_is_searched_on_the_path_first(monkeypatch, tmp_path):
    """uv on the PATH is preferred, then the one beside this interpreter; otherwise the error says how to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(interpreters.find_uv()).samefile(Path(sys.executable).parent / "uv")
    (tmp_path / "uv").touch(mode=0o755)
    assert interpreters.find_uv() == str(tmp_path / "uv")
    (tmp_path / "uv").unlink()
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(StartError, match="pip install uv"):
        interpreters.find_uv()


# Commands.


def test_lines_go_to_the_log(commands, caplog):
    """Each line that a command writes to stdout or stderr becomes a log line."""
    caplog.set_level("INFO")
    code = "import sys; print('one'); print('two', file=sys.stderr); print('three', end='')"
    commands.run([sys.executable, "-u", "-c", code], label="it")
    assert [text for text in caplog.messages if text.startswith("it: ")] == ["it: one", "it: two", "it: three"]


def test_a_failed_command_has_its_last_lines(commands):
    """The error has the exit code, and the lines from the first error on."""
    code = "import sys; print('fine'); print('ERROR: no such thing'); print('really'); sys.exit(3)"
    with pytest.raises(CommandFailed) as caught:
        commands.run([sys.executable, "-c", code], label="it")
    assert str(caught.value) == "it failed with exit code 3: ERROR: no such thing; really"


def test_a_missing_program_is_one_line(commands, tmp_path):
    """A program that cannot be started is an error of one line."""
    with pytest.raises(CommandFailed, match=r"cannot run .*/none: No such file or directory"):
        commands.run([tmp_path / "none"], label="it")


@pytest.mark.parametrize("ignored", [False, True], ids=["ends", "ignores the signal"])
def test_a_signal_ends_a_command_with_its_children(commands, tmp_path, monkeypatch, ignored):
    """A signal ends the command and its children, by force if necessary, and raises Ended."""
    monkeypatch.setattr("mlflow_grpc.environments.commands.KILL_AFTER_S", 0.2)
    os.mkfifo(tmp_path / "started")
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignored else ""
    child = (
        f"{ignore}import os, signal; open('started', 'w').write(f'{{os.getpid()}} {{os.getppid()}}'); signal.pause()"
    )
    code = f"{ignore}import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    pids: list[int] = []

    def send() -> None:
        pids.extend(map(int, (tmp_path / "started").read_text().split()))
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Ended) as caught:
        commands.run([sys.executable, "-c", code], label="it", cwd=tmp_path)
    sender.join()
    assert caught.value.number == signal.SIGTERM
    assert len(pids) == 2
    for pid in pids:
        wait_until_gone(pid)


def test_a_signal_ends_a_call(commands):
    """A signal ends the wait for a function in another thread."""
    release = threading.Event()

    def wait() -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return release.wait(60)

    with pytest.raises(Ended):
        commands.call(wait)
    release.set()


def test_a_call_returns_the_result_or_raises(commands):
    """`call` returns the function's result or raises its exception."""
    assert commands.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        commands.call(lambda: 1 // 0)


def test_signal_handlers_are_restored():
    """The previous signal handlers are restored."""
    before = signal.getsignal(signal.SIGTERM)
    with Commands():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


# Building. The server in these environments is a program of a few lines, so that pip needs no index.


def wheel_of(text: str) -> Wheel:
    """Makes a wheel with the name of the server's distribution, whose command runs `text`."""
    files = {
        "mlflow_grpc/__init__.py": f"def main():\n    {text}\n",
        "mlflow_grpc-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: mlflow-grpc\nVersion: 1\n",
        "mlflow_grpc-1.dist-info/entry_points.txt": "[console_scripts]\nmlflow-grpc = mlflow_grpc:main\n",
        "mlflow_grpc-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, data in {**files, "mlflow_grpc-1.dist-info/RECORD": "".join(f"{path},,\n" for path in files)}.items():
            archive.writestr(zipfile.ZipInfo(path), data)
    return Wheel(SERVER, "mlflow_grpc-1-py3-none-any.whl", content.getvalue())


GOOD = wheel_of("print('here')")


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


def recipe(model: Path, manager: EnvManager = EnvManager.UV, *, wheel: Wheel = GOOD, text: str = "") -> Recipe:
    return Recipe(manager, carried(model, *text.splitlines()), (wheel,))


@pytest.mark.parametrize("manager", [pytest.param(EnvManager.VIRTUALENV, marks=pytest.mark.deep), EnvManager.UV])
def test_an_environment_is_built_once(tmp_path, model, commands, caplog, manager):
    """An environment has the model's requirements and the server. A second call finds it without running a command."""
    caplog.set_level("INFO")
    (model / "own").mkdir()
    (model / "own" / "pyproject.toml").write_text(OWN_PACKAGE)
    (model / "own" / "backend.py").write_text(BACKEND)
    directory = building.prepare(recipe(model, manager, text="./own"), tmp_path / "envs", commands)
    output = subprocess.check_output([directory / "bin" / "mlflow-grpc"], text=True)
    assert output == "here\n"
    code = "import own, sys; print(sys.prefix)"
    prefix = subprocess.check_output([building.python_of(directory), "-c", code], text=True).strip()
    assert Path(prefix) == directory
    caplog.clear()
    assert building.prepare(recipe(model, manager, text="./own"), tmp_path / "envs", commands) == directory
    assert caplog.messages == [f"found the model's environment in {directory}"]


OWN_PACKAGE = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

BACKEND = """\
import zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "own-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as archive:
        archive.writestr("own.py", "")
        archive.writestr("own-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: own\\nVersion: 1\\n")
        archive.writestr("own-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr("own-1.dist-info/RECORD", "own.py,,\\n")
    return name
"""


def test_different_content_is_a_different_environment(model):
    """The server's code and extras, the requirements, and the versions of Python, MLflow and the manager identify it."""
    first = recipe(model)
    others = [
        recipe(model, EnvManager.VIRTUALENV),
        recipe(model, wheel=wheel_of("print('other')")),
        recipe(model, text="toolz"),
        dataclasses.replace(first, carried=carried(model, python="3.99.0")),
        dataclasses.replace(first, extras=("s3",)),
        dataclasses.replace(first, mlflow="3.17.2"),
    ]
    assert len({first.name, *(environment.name for environment in others)}) == 7


@pytest.mark.deep
@pytest.mark.parametrize(
    ("manager", "text", "wheel", "error"),
    [
        (EnvManager.VIRTUALENV, "./none-of-that", GOOD, "pip install failed"),
        (EnvManager.UV, "./none-of-that", GOOD, "uv pip install failed"),
        (
            EnvManager.UV,
            "",
            wheel_of("raise SystemExit('it is broken')"),
            "mlflow-grpc failed with exit code 1: it is broken",
        ),
    ],
    ids=["requirement of pip", "requirement of uv", "server"],
)
def test_a_failed_build_leaves_nothing(tmp_path, model, commands, manager, text, wheel, error):
    """A failed build is an error of one line, and leaves no environment."""
    with pytest.raises(StartError, match=f"the environment of the model at m cannot be built: .*{error}") as caught:
        building.prepare(recipe(model, manager, text=text, wheel=wheel), tmp_path / "envs", commands)
    assert "\n" not in str(caught.value)
    assert [path.suffix for path in (tmp_path / "envs").iterdir()] == [".lock"]


@pytest.mark.deep
def test_incomplete_environments_are_built_again(tmp_path, model, commands):
    """The remains of a killed build, and an environment without its interpreter, are built again."""
    directory = building.prepare(recipe(model), tmp_path / "envs", commands)
    for missing in (directory / building.MARKER, building.python_of(directory)):
        (directory / "left behind").touch()
        missing.unlink()
        assert building.prepare(recipe(model), tmp_path / "envs", commands) == directory
        assert not (directory / "left behind").exists()
        assert missing.exists()
    subprocess.run([directory / "bin" / "mlflow-grpc"], check=True, capture_output=True)


def test_a_missing_interpreter_leaves_nothing(tmp_path, model, commands):
    """The error names the missing Python version, and nothing is left."""
    unknown = Recipe(EnvManager.VIRTUALENV, carried(model, python="3.99.1"), (GOOD,))
    with pytest.raises(StartError, match=r"Python 3\.99\.1, and no Python 3\.99"):
        building.prepare(unknown, tmp_path / "envs", commands)
    assert [path.suffix for path in (tmp_path / "envs").iterdir()] == [".lock"]


def test_an_unwritable_directory_is_refused_with_advice(tmp_path, model, commands):
    """The error names the variable that sets the directory of environments."""
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="MLFLOW_ENV_ROOT"):
        building.prepare(recipe(model), tmp_path / "file" / "envs", commands)


@pytest.mark.deep
def test_requirements_with_hashes_are_installed_first(tmp_path, model, commands):
    """Requirements with hashes do not exclude the server's wheel, which has no hash."""
    archive = model / "own-1-py3-none-any.whl"
    namespace: dict[str, object] = {}
    exec(BACKEND, namespace)  # noqa: S102 - the text above
    namespace["build_wheel"](str(model))  # type: ignore[operator]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (model / "requirements.txt").write_text(f"own @ {archive.as_uri()} --hash=sha256:{digest}\n")
    hashed = recipe(model, EnvManager.VIRTUALENV, text="-r requirements.txt")
    directory = building.prepare(hashed, tmp_path / "envs", commands)
    subprocess.run([building.python_of(directory), "-c", "import own, mlflow_grpc"], check=True)
