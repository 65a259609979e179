"""The argument with which pip installs the server again, from the source that pip recorded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from _mlflow_grpc_protocol import install_sources
from packaging.requirements import Requirement

from mlflow_grpc import __version__, distribution
from mlflow_grpc.distribution import CLIENT, SERVER
from tests.support.servers import ROOT


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Makes the server look installed with a direct_url.json, in a directory that is not a checkout."""

    def install(origin: dict[str, object] | None) -> None:
        info = tmp_path / f"mlflow_grpc-{__version__}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {SERVER}\nVersion: {__version__}\n")
        if origin is not None:
            (info / "direct_url.json").write_text(json.dumps(origin))
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        monkeypatch.setattr(install_sources, "_checkout", lambda name: None)

    return install


def test_a_clone_is_named_by_its_path():
    """The server and the client of this checkout are installed from its two directories."""
    assert distribution.source_of(SERVER).location == str(ROOT)
    assert distribution.source_of(CLIENT).location == str(ROOT / "client")
    assert distribution.install_source("s3").endswith(f"'{ROOT}[s3]'")
    assert install_sources.install_argument(CLIENT, "score").endswith(f"'{ROOT / 'client'}[score]'")


def test_a_clone_that_is_not_installed_is_named(monkeypatch):
    """Without an installed distribution of the server, the clone that it is imported from is named."""
    monkeypatch.setattr(sys, "path", [str(ROOT), str(ROOT / "client")])
    assert distribution.install_source() == str(ROOT)


@pytest.mark.parametrize(
    ("origin", "argument"),
    [
        (None, f"{SERVER}=={__version__}"),
        ({"url": "file:///no/such/dir", "dir_info": {}}, f"{SERVER}=={__version__}"),
        ({"url": f"file://{ROOT}", "dir_info": {}}, str(ROOT)),
        ({"url": f"file://{ROOT}", "dir_info": {"editable": True}}, f"-e {ROOT}"),
        ({"url": "https://example.com/mlflow_grpc.whl", "archive_info": {}}, "https://example.com/mlflow_grpc.whl"),
        (
            {"url": "https://example.com/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "git+https://example.com/r.git@abc",
        ),
        (
            {"url": "https://example.com/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "x"},
            "'git+https://example.com/r.git@abc#subdirectory=x'",
        ),
    ],
)
def test_every_origin_has_its_argument(installed, origin, argument):
    """A directory, an archive or a repository is named in pip's form; only the version if it is gone."""
    installed(origin)
    assert distribution.install_source() == argument


def test_a_path_with_spaces_is_one_argument(installed, tmp_path):
    """A path with spaces is quoted for the shell."""
    directory = tmp_path / "a clone"
    directory.mkdir()
    installed({"url": Path(directory).as_uri(), "dir_info": {}})
    assert distribution.install_source() == f"'{directory}'"


@pytest.mark.parametrize(
    "origin",
    [
        None,
        {"url": "https://example.com/mlflow_grpc.whl", "archive_info": {}},
        {"url": "https://example.com/r.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
    ],
)
def test_an_extra_goes_where_pip_reads_it(installed, origin):
    """The argument of pip for an extra is a requirement with this extra."""
    installed(origin)
    requirement = Requirement(distribution.source_of(SERVER).requirement("s3"))
    assert (requirement.name, requirement.extras) == (SERVER, {"s3"})


def test_ray_that_is_missing():
    """The error of the package for Ray Serve has the command that installs the extra from where the server is."""
    code = "import sys; sys.modules['ray'] = None; import mlflow_grpc.ray"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "client")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr.splitlines()[-1].endswith(f"pip install {distribution.install_source('ray')}")
    assert f"{ROOT}[ray]" in done.stderr


def test_an_older_protobuf_is_a_problem(tmp_path):
    """A protobuf that another package has put in place of the newer one ends the server with one line, which says what to
    install; the real one is no problem."""
    assert distribution.protobuf_problem() == ""
    info = tmp_path / "protobuf-6.31.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: protobuf\nVersion: 6.31.0\n")
    command = [sys.executable, "-m", "mlflow_grpc", "serve", "-m", "nowhere", "--log-format", "text"]
    ended = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: protobuf 6.31.0 is installed, and grpcio-health-checking needs protobuf<")
    assert ended.stderr.count("\n") == 1
    assert re.search(
        r"pip install 'protobuf<\S+,>=\S+', and install that package in an environment of its own", ended.stderr
    )
