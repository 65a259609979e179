"""Processes of servers: start, CPU time, memory and end, with all processes that they start."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

END_LIMIT_S = 30.0
_STATE, _PARENT, _SESSION, _USER_TICKS, _SYSTEM_TICKS, _STARTED = 0, 1, 3, 11, 12, 19
"""Fields of /proc/PID/stat after the name of the program (proc_pid_stat(5))."""
_ENDED = "ZX"
"""States of a process that has ended."""


class ServerProcess:
    """A server in a session of its own, with its output in a file."""

    def __init__(self, command: list[str], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Starts the server.

        Args:
            command: The command line.
            log: The file for the output.
            folder: The working directory.
            environment: The environment variables.

        """
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def has_ended(self) -> bool:
        """Whether the process that was started has ended."""
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The pid of the process that was started."""
        return self._process.pid

    def last_output(self) -> str:
        """Returns the end of the output."""
        return self._log.read_text(errors="replace")[-2000:]

    def memory_mb(self) -> float:
        """Returns the memory of the server in MB (proportional set size)."""
        total = 0
        for pid in self._members():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def processor_s(self) -> float:
        """Returns the CPU time of the server in seconds."""
        ticks = sum(int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS]) for fields in self._members().values())
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Ends the server with all that it started, and kills what is left after `END_LIMIT_S` seconds."""
        members = self._members()
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + END_LIMIT_S
        while time.monotonic() < deadline:
            members |= self._members()
            self._process.poll()
            if not _running(members):
                break
            time.sleep(0.02)
        for pid in _running(members):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _members(self) -> dict[int, list[str]]:
        """Returns the fields of /proc/PID/stat of the processes of the session and their descendants, by their pids."""
        processes = _all_processes()
        members = {pid for pid, fields in processes.items() if int(fields[_SESSION]) == self._process.pid}
        # A process may have left the session, as daemons do; its parent shows where it comes from.
        while children := {pid for pid, fields in processes.items() if int(fields[_PARENT]) in members} - members:
            members |= children
        return {pid: processes[pid] for pid in members}


def _running(members: dict[int, list[str]]) -> list[int]:
    """Returns the pids of processes that still run; a later process of the same pid has another time of its start."""
    now = _all_processes()
    return [
        pid
        for pid, fields in members.items()
        if pid in now and now[pid][_STARTED] == fields[_STARTED] and now[pid][_STATE] not in _ENDED
    ]


def _all_processes() -> dict[int, list[str]]:
    """Returns the fields of /proc/PID/stat after the name of the program, by the pids of all processes."""
    processes = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                processes[int(folder.name)] = text.rpartition(")")[2].split()
    return processes
