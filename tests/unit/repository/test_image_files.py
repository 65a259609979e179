"""Contents of the image's Dockerfile that must match other files; tests/image builds it."""

import re
import subprocess
import sys

import pytest

from mlflow_grpc import __version__
from tests.support.servers import ROOT

pytestmark = pytest.mark.slow

TEXT = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def environment():
    return dict(re.findall(r"([A-Z]\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", TEXT, re.MULTILINE))))


@pytest.mark.deep
def test_mlflow_telemetry_is_off_in_the_image():
    """MLflow's telemetry is off with the environment of the image, and on without it."""
    name = "MLFLOW_DISABLE_TELEMETRY"
    code = f"""
import os
from mlflow.telemetry.utils import is_telemetry_disabled
print(is_telemetry_disabled())
os.environ[{name!r}] = {environment()[name]!r}
print(is_telemetry_disabled())
"""
    # MLflow's telemetry is also off in tests, which it detects by other variables.
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_the_image_has_oci_labels():
    """The image has OCI labels with the current version."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', TEXT))
    assert labels["version"] == __version__
    assert {"title", "description", "licenses", "base.name"} <= labels.keys()
