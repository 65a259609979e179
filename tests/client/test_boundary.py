"""The public API of the client distribution."""

import ast
import graphlib
import subprocess
import sys

import mlflow_grpc_client

from tests.support.servers import ROOT
from tests.support.syntax import summary_of

PACKAGE = ROOT / "client" / "mlflow_grpc_client"


def test_only_the_package_its_errors_and_its_integrations_are_public():
    """Every other module is underscored, or is in an underscored package. Users import the functions for Spark and Ray,
    and MLflow imports its plugin."""
    modules = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")]
    public = {str(path) for path in modules if not path.parts[0].startswith("_")}
    assert public == {"errors.py", "deployments.py", "ray_data.py", "spark.py"}
    assert {str(path) for path in modules if path.parts[0].startswith("__")} == {"__init__.py", "__main__.py"}


def test_everything_public_is_listed():
    """`__all__` names each class that the package imports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(mlflow_grpc_client.__all__)


def test_the_shared_protocol_needs_protobuf_only():
    """The server imports the package where gRPC, numpy and MLflow must not be imported."""
    modules = [path.stem for path in (PACKAGE.parent / "_mlflow_grpc_protocol").glob("[!_]*.py")]
    imports = "; ".join(f"import _mlflow_grpc_protocol.{name}" for name in modules)
    code = (
        f"import sys; {imports}; print([name for name in ('grpc', 'numpy', 'pandas', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (len(modules), done.stdout.strip()) == (12, "[]")


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path, names):
    """Returns the modules of the client that a module imports, also inside functions."""
    candidates = [(full, full.rpartition(".")[0]) for full in summary_of(path).imports]
    return {full if full in names else module for full, module in candidates if names & {full, module}}


def test_there_are_no_import_cycles():
    """There are no import cycles between modules of the client."""
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: imported_modules(path, paths.keys()) for name, path in paths.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(paths)  # Raises CycleError.
