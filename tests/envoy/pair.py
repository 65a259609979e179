"""Two servers behind an Envoy, which tests restart and kill."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.process.conftest import QUICK
from tests.restarts.load import Load
from tests.support.envoy import Envoy
from tests.support.servers import Process, free_port, ready_address, start_server


class Pair:
    """Two servers of the stepper, and the Envoy before them; a context manager that ends all three."""

    def __init__(self, folder: Path, *flags: str, lame_duck_s: int = 0) -> None:
        self._folder, self._flags = folder, ("-m", QUICK, "--log-format", "json", *flags)
        self._env = {"MLFLOW_GRPC_LAME_DUCK": str(lame_duck_s)}
        self._ports = [free_port(), free_port()]
        self._stack = contextlib.ExitStack()
        self.servers: list[Process] = []
        self.addresses = [f"127.0.0.1:{port}" for port in self._ports]
        self.envoy: Envoy

    def __enter__(self) -> Self:
        with self._stack:
            self.servers = [self._start(port) for port in self._ports]
            for server in self.servers:
                ready_address(server)
            self.envoy = Envoy(self._ports, self._folder)
            self._stack.enter_context(self.envoy.process)
            self.envoy.wait_until_up(2)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _start(self, port: int) -> Process:
        return self._stack.enter_context(start_server(*self._flags, "-p", str(port), env=self._env))

    def end(self, index: int, number: signal.Signals) -> None:
        """Sends a signal to a server, waits for its end, and starts it again on its port."""
        self.servers[index].signal(number)
        self.servers[index].wait()
        self.servers[index] = self._start(self._ports[index])
        ready_address(self.servers[index])
        self.envoy.wait_until_up(2)

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        """Calls through Envoy, 200 per second, until the block ends."""
        load = Load(self.envoy.address, long_every=1 << 30)
        calling = threading.Thread(target=lambda: asyncio.run(load.run()))
        calling.start()
        try:
            yield load
        finally:
            load.is_over = True
            calling.join()
