"""Architecture rules that a test can check: who may import what, and who reads the environment."""

import graphlib
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from tests.support.syntax import summary_of

PACKAGE = ROOT / "mlflow_grpc"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# From the bottom to the top. All layers may use the modules beside them.
LAYERS = [
    "access",
    "contract",
    "hosting",
    "environments",
    "payload",
    "engine",
    "calls",
    "recording",
    "http",
    "services",
    "mlmodel",
    "model_loading",
    "rollout",
    "thread_watch",
    "host",
    "lifecycle",
    "typed_contract",
    "openapi",
    "runner",
    "worker_handle",
    "worker",
    "replacements",
    "workers",
    "replay",
    "cli",
    "ray",
    "__main__",
]
BESIDE = {
    "access_config",
    "access_settings",
    "polling",
    "tls_files",
    "addresses",
    "arguments",
    "cache_config",
    "challenger_config",
    "child_server",
    "choices",
    "config",
    "rest_config",
    "rollout_settings",
    "recording_settings",
    "setting_sources",
    "daemon_threads",
    "declarations",
    "main_thread",
    "misspellings",
    "reserved_ports",
    "distribution",
    "errors",
    "forks",
    "http_settings",
    "naming",
    "settings",
    "yaml_file",
    "logs",
    "own_loggers",
    "root_logger",
    "telemetry",
    "telemetry_settings",
    "protos",
    "process",
    "__init__",
}


def imports(path: Path) -> tuple[str, ...]:
    return summary_of(path).imports


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def points_down(here: str, name: str) -> bool:
    """True if a room may import a name."""
    parts = name.split(".")
    if parts[0] != "mlflow_grpc" or len(parts) == 1:
        return True
    there = parts[1] if parts[1] in (*LAYERS, *BESIDE) else "__init__"
    if here in BESIDE:
        return there in BESIDE
    return there in BESIDE or LAYERS.index(there) <= LAYERS.index(here)


def test_imports_point_down():
    """A package imports only the packages below it and the modules beside the layers."""
    upwards = {
        str(path.relative_to(PACKAGE)): [name for name in imports(path) if not points_down(room(path), name)]
        for path in MODULES
    }
    assert {path: names for path, names in upwards.items() if names} == {}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_there_are_no_import_cycles():
    """There are no import cycles between modules or subfolders; imports inside functions count."""
    names = {module_name(path) for path in MODULES}
    graph = {
        module_name(path): {
            imported if imported in names else imported.rpartition(".")[0]
            for imported in imports(path)
            if {imported, imported.rpartition(".")[0]} & (names - {module_name(path)})
        }
        for path in MODULES
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_mlflow_models_are_hosted_without_the_mlmodel_interface():
    """Code for MLflow models never imports hosting/mlmodel; only the bridges do."""
    for path in (PACKAGE / "hosting" / "pyfunc").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith("mlflow_grpc.hosting.mlmodel")], path


FOLDERS = [path.parent for path in MODULES if path.name == "__init__.py"]
WITH_SUBFOLDERS = [folder for folder in FOLDERS if any(inner.parent == folder for inner in FOLDERS)]


@pytest.mark.parametrize("folder", WITH_SUBFOLDERS, ids=lambda folder: folder.name)
def test_a_subfolder_is_a_layer_of_its_package(folder):
    """A subfolder imports only modules of its package that do not import the subfolder, directly or indirectly."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        if folder in path.parents and path != folder / "__init__.py":
            importer = path.relative_to(folder).parts[0].removesuffix(".py")
            for name in imports(path):
                target = PACKAGE.parent.joinpath(*name.split("."))
                if folder in target.parents and (imported := target.relative_to(folder).parts[0]) != importer:
                    graph.setdefault(importer, set()).add(imported)
    assert list(TopologicalSorter(graph).static_order())  # Raises CycleError.


def test_libraries_stay_in_their_packages():
    """grpc is imported only in services, lifecycle and ray, Ray only in ray, and MLflow only in hosting, payload and the
    bridges. MLflow's private names are in one module."""
    for path in MODULES:
        used = {name.split(".")[0] for name in imports(path)}
        of_grpc = used & {"grpc", "grpc_health", "grpc_reflection", "grpc_status"}
        assert not of_grpc or room(path) in ("services", "lifecycle", "ray"), path
        assert "ray" not in used or room(path) == "ray", path
        assert "mlflow" not in used or room(path) in ("hosting", "payload", "mlmodel"), path
        if path != PACKAGE / "hosting" / "pyfunc" / "internals.py":
            private = [name for name in imports(path) if name.startswith("mlflow.") and "._" in name]
            assert not private, path


def test_only_settings_read_the_environment():
    """No module except settings.py reads a variable of the environment. Two others prepare the environment of gRPC's core
    and of another process."""
    users = {path.name for path in MODULES if "os.environ" in (text := path.read_text()) or "getenv" in text}
    assert users == {"settings.py", "process.py", "restarting.py"}
    for name, uses in {"process.py": ["os.environ.setdefault"] * 2, "restarting.py": ["os.environ.items"]}.items():
        (path,) = [path for path in MODULES if path.name == name]
        assert re.findall(r"os\.environ\.?\w*", path.read_text()) == uses


@pytest.mark.parametrize("module", ["mlflow_grpc.workers", "mlflow_grpc.cli", "mlflow_grpc.child_server"])
def test_a_supervisor_imports_neither_grpc_nor_mlflow(module):
    """Modules that run before workers are forked import neither grpc, whose objects do not survive a fork, nor MLflow,
    which takes seconds."""
    code = f"import sys, {module}; print([name for name in ('grpc', 'mlflow', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_modules_use_the_servers_own_loggers():
    """No module has a logger that a model's logging setup could silence."""
    assert not {str(path) for path in MODULES if "getLogger(__name__)" in path.read_text()}


def test_no_thread_delays_the_exit():
    """Functions run in the threads of a model or in daemon threads: the event loop waits for its own executor."""
    users = {path.name for path in MODULES if {"to_thread", "run_in_executor"} & {*summary_of(path).names}}
    assert not users


def test_modules_are_short():
    """A module has at most 300 lines, or its docstring says why it has up to 400."""
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    explained = [path for path in MODULES if "\nIt has more than 300 lines, because " in path.read_text()]
    assert explained == [path for path in MODULES if lines[path] > 300]
    assert max(lines.values()) <= 400


def test_few_types_are_any():
    """Requests, answers and models have types: fewer than 40 `Any` where calls are answered and contracts are made."""
    modules = [path for folder in ("services", "engine", "contract") for path in (PACKAGE / folder).rglob("*.py")]
    assert 0 < sum(summary_of(path).names.count("Any") for path in modules) < 40


def test_unit_tests_mirror_the_package():
    """Tests of modules are in folders of the same name as those of the modules."""
    tests = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")} - {Path("repository")}
    assert not [folder for folder in folders if not (PACKAGE / folder).is_dir()]
