"""The machine of the measurement, and the CPU time that other machines took."""

import os
import platform
from pathlib import Path


def name() -> str:
    """Returns the number of cores and the model of the processor."""
    return f"{os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


class Stolen:
    """The CPU time that a hypervisor gives to other machines, counted from the creation of this object."""

    def __init__(self) -> None:
        self._before = _processor_time()

    def share(self) -> float:
        """Returns the stolen share of busy time (`steal` of proc_stat(5)), or 0 if the system does not report it."""
        spent = [later - earlier for earlier, later in zip(self._before, _processor_time(), strict=True)]
        if not spent:
            return 0.0
        _user, _nice, _system, idle, waiting, *_interrupts, stolen = spent
        return stolen / max(1, sum(spent) - idle - waiting)


def _processor_time() -> list[int]:
    """Returns the CPU time so far by category, or an empty result if the system does not report it."""
    path = Path("/proc/stat")
    return list(map(int, path.read_text(encoding="ascii").splitlines()[0].split()[1:9])) if path.is_file() else []
