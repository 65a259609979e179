"""Copies of the fork server behave like new processes."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.process.conftest import QUICK
from tests.support.fork_server import ForkedProcess
from tests.support.servers import ROOT, Forked, Process, environment, ready_address

COMMAND = str(Path(sys.executable).parent / "mlflow-grpc")


@pytest.mark.parametrize("arguments", [["--version"], ["serve", "--prot", "1"], ["serve", "--help"]])
def test_arguments_output_and_exit_code(arguments, tmp_path):
    """Arguments, output and exit code equal those of the installed command."""
    with Forked(arguments, cwd=tmp_path) as copy, Process([COMMAND, *arguments], cwd=tmp_path) as fresh:
        assert copy.wait() == fresh.wait()
        assert (copy.stdout, copy.stderr) == (fresh.stdout, fresh.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_working_directory_stdin_and_signals(number, tmp_path):
    """A copy has its own working directory, standard input and signals, and a signal ends it like any process."""
    with Forked(["serve", "-p", "0", "-m", QUICK], cwd=tmp_path) as copy:
        ready_address(copy)
        proc = Path(f"/proc/{copy.popen.pid}")
        assert (proc / "cwd").readlink() == tmp_path
        assert (proc / "fd" / "0").readlink() == Path(os.devnull)
        copy.signal(number)
        assert copy.wait() == (0 if number == signal.SIGTERM else -number)


def test_variables_that_python_reads_at_start_are_refused():
    """Variables that Python reads at start are refused, because a copy would not read them."""
    with pytest.raises(ValueError, match="another PYTHONHASHSEED: start a fresh one"):
        ForkedProcess(["--version"], environment({"PYTHONHASHSEED": "1"}), ROOT)
