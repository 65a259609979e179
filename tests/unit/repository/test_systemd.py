"""deploy/systemd: a unit that systemd accepts, and whose settings and times are those of the server."""

import re
import shlex
import shutil
import subprocess

import pytest

from mlflow_grpc import declarations, settings
from mlflow_grpc.lifecycle import NOTICE_S
from mlflow_grpc.misspellings import flags_by_variable, misspelt
from mlflow_grpc.services.listener import MAX_AGE_SPREAD
from tests.support.servers import ROOT
from tests.unit.repository.test_manifests import TO_END_S

FOLDER = ROOT / "deploy" / "systemd"
UNIT = (FOLDER / "mlflow-grpc.service").read_text()
PAGE = (ROOT / "docs" / "deployment.md").read_text().partition("\n## systemd\n")[2].partition("\n## ")[0]
OF_MLFLOW = {"MLFLOW_TRACKING_URI"}


def values(text: str) -> dict[str, str]:
    """Returns the assignments in a unit or a file of variables, also those that are comments."""
    return dict(re.findall(r"^(?:# )?([A-Z]\w+)=(.*)$", text, re.MULTILINE))


VARIABLES = values((FOLDER / "mlflow-grpc.env").read_text())


def test_each_setting_exists():
    """The server has each variable of the file, and each flag of the command."""
    known = [name for _, info in settings.fields() for name in declarations.env_names(info)]
    assert misspelt(VARIABLES, flags_by_variable(settings.fields())) == []
    assert VARIABLES.keys() - {*known} == OF_MLFLOW
    program, command, *flags = shlex.split(values(UNIT)["ExecStart"])
    assert (program.rpartition("/")[2], command) == ("mlflow-grpc", "serve")
    spellings = {name for _, info in settings.fields() for name in declarations.flag(info).names}
    assert {flag.partition("=")[0] for flag in flags} <= spellings


def test_systemd_waits_until_the_server_has_drained():
    """The time before systemd kills the server has room for the lame duck, ageing TLS connections and the drain."""
    lame_duck, age, drain = (
        int(VARIABLES[f"MLFLOW_GRPC_{name}"]) for name in ("LAME_DUCK", "MAX_CONNECTION_AGE", "DRAIN_TIMEOUT")
    )
    assert age * MAX_AGE_SPREAD <= drain
    unit = values(UNIT)
    assert int(unit["TimeoutStopSec"]) == pytest.approx(lame_duck + NOTICE_S + age * MAX_AGE_SPREAD + drain + TO_END_S)
    assert unit["KillSignal"] == "SIGTERM"


def test_the_commands_of_the_page_install_what_the_unit_names():
    """The page makes the user, the environment and the file of variables that the unit names."""
    unit = values(UNIT)
    assert f"--home-dir {unit['WorkingDirectory']} --shell /usr/sbin/nologin {unit['User']}\n" in PAGE
    assert unit["WorkingDirectory"] == f"/var/lib/{unit['StateDirectory']}"
    assert f"-g {unit['Group']} deploy/systemd/mlflow-grpc.env {unit['EnvironmentFile']}\n" in PAGE
    assert f"python3 -m venv {unit['ExecStart'].partition('/bin/')[0]}\n" in PAGE


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path):
    """`systemd-analyze verify` finds no unknown key, value or section, and finds those of another unit."""
    program = values(UNIT)["ExecStart"].partition(" ")[0]
    found = tmp_path / "mlflow-grpc.service"
    for text, is_accepted in ((UNIT, True), (UNIT.replace("KillMode=mixed", "KilMode=mixed"), False)):
        found.write_text(text.replace(program, "/bin/true"))
        command = ["systemd-analyze", "verify", "--man=no", str(found)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        lines = [line for line in done.stderr.splitlines() if "mlflow-grpc.service" in line]
        assert (lines == []) is is_accepted, done.stderr
