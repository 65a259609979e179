"""Metrics of this process: CPU time, memory, open files, start.

Rule of this module: it reads /proc of its own process. Reading takes a millisecond if many files are open, so a
separate thread does it. Source of the names: https://prometheus.io/docs/instrumenting/writing_clientlibs/.
"""

import os
import resource
import threading
import time
from pathlib import Path

from mlflow_grpc.own_loggers import get_logger
from mlflow_grpc.telemetry.exposition import Family, Kind, Labels, Sample, labels
from mlflow_grpc.telemetry.instruments import Counter, Gauge, Instruments

logger = get_logger(__name__)

PAGE_BYTES = resource.getpagesize()


class ProcessMetrics:
    """Metrics of this worker's process. If there may be several workers, their series have the label `worker`."""

    def __init__(self, instruments: Instruments, slots: int) -> None:
        """Reserves positions in memory.

        Args:
            instruments: Makes the instruments.
            slots: Number of slots in the memory of all workers.
        """
        self._slots = slots
        self._cpu_s = 0.0
        self._lock = threading.Lock()
        self.families: list[Family] = []
        self._cpu = self._counter(instruments.counter(), "process_cpu_seconds", "CPU time used, in seconds.")
        self._resident = self._gauge(instruments, "process_resident_memory_bytes", "Resident memory in bytes.")
        self._virtual = self._gauge(instruments, "process_virtual_memory_bytes", "Virtual memory in bytes.")
        self._open_fds = self._gauge(instruments, "process_open_fds", "Open files, including connections.")
        self._max_fds = self._gauge(instruments, "process_max_fds", "Maximum number of open files.")
        self._threads = self._gauge(instruments, "process_threads", "Threads of the process.")
        self._started = self._gauge(
            instruments, "process_start_time_seconds", "Start of the process, in seconds since 1970."
        )
        starts = instruments.counter()
        starts.add()
        self._counter(starts, "mlflow_grpc_worker_starts", "Starts of a worker, including replacements.")
        self._started.set(time.time() - _age_s())

    def refresh(self) -> None:
        """Reads the values; may be called from any thread."""
        with self._lock:
            cpu_s = time.process_time()
            self._cpu.add(cpu_s - self._cpu_s)
            self._cpu_s = cpu_s
            soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._max_fds.set(0 if soft_limit == resource.RLIM_INFINITY else soft_limit)
            try:
                virtual, resident, *_ = Path("/proc/self/statm").read_text().split()
                open_fds = len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names are enough; minus its own
                threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
            except OSError as error:  # No more files can be opened: the values stay until some are closed.
                logger.debug("/proc/self cannot be read: %s", error)
                return
            self._virtual.set(int(virtual) * PAGE_BYTES)
            self._resident.set(int(resident) * PAGE_BYTES)
            self._open_fds.set(open_fds)
            self._threads.set(threads)

    def _counter(self, counter: Counter, name: str, text: str) -> Counter:
        self._add(Family(name, Kind.COUNTER, text), counter)
        return counter

    def _gauge(self, instruments: Instruments, name: str, text: str) -> Gauge:
        gauge = instruments.gauge()
        self._add(Family(name, Kind.GAUGE, text), gauge)
        return gauge

    def _add(self, family: Family, counter: Counter) -> None:
        self.families.append(family)
        for worker in range(self._slots):
            text = labels(worker=str(worker)) if self._slots > 1 else ""
            family.add(_if_positive(counter, worker, text), _of_worker(counter, worker))


def _of_worker(counter: Counter, worker: int) -> Sample:
    return lambda: counter.by_worker()[worker]


def _if_positive(counter: Counter, worker: int, text: str) -> Labels:
    """Hides the values of a worker that is not running."""
    return lambda: text if counter.by_worker()[worker] else None


def _age_s() -> float:
    """Returns the time since the start of this process, in seconds."""
    # The name of the program, in parentheses, may contain spaces.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
