"""What the image's Dockerfile says, where that has to fit something else; tests/image builds it."""

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


@pytest.mark.parametrize("is_in_image", [True, False])
def test_mlflow_does_not_report(is_in_image):
    """With the image's environment MLflow's own switch for its telemetry is off; without it, it is on."""
    name = "MLFLOW_DISABLE_TELEMETRY"
    # Where tests run MLflow reports nothing either, which it knows by other variables.
    code = "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    env = {"PATH": "/usr/bin:/bin", **({name: environment()[name]} if is_in_image else {})}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(is_in_image)


def test_labels():
    """The image says what it is in the words of OCI, and the version is this one."""
    labels = dict(re.findall(r'org\.opencontainers\.image\.([a-z.]+)="([^"]*)"', TEXT))
    assert labels["version"] == __version__
    assert {"title", "description", "licenses", "base.name"} <= labels.keys()
