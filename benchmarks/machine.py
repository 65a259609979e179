"""The machine that is measured on, and how much of it others took meanwhile."""

import os
import platform
from pathlib import Path


def name() -> str:
    """Its cores and the model of its processor."""
    return f"{os.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


class Stolen:
    """How much of the processors' time a hypervisor gives to other machines, from the moment on that this is made."""

    def __init__(self) -> None:
        self._before = _processor_time()

    def share(self) -> float:
        """The share of the busy time (`steal` of proc_stat(5)); 0 where the system does not tell it."""
        spent = [later - earlier for earlier, later in zip(self._before, _processor_time(), strict=True)]
        if not spent:
            return 0.0
        _user, _nice, _system, idle, waiting, *_interrupts, stolen = spent
        return stolen / max(1, sum(spent) - idle - waiting)


def _processor_time() -> list[int]:
    """The processors' time so far, by what it went to; empty where that is not told."""
    told = Path("/proc/stat")
    return list(map(int, told.read_text(encoding="ascii").splitlines()[0].split()[1:9])) if told.is_file() else []
