"""Two servers are replaced one after the other under load, without a failed call."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import mlflow
import pytest

from tests.restarts.balancers import start_envoy, start_haproxy
from tests.restarts.load import Load
from tests.support.servers import free_port, ready_address, start_server

pytestmark = pytest.mark.restarts

RESTARTS = int(os.environ.get("RESTARTS", "20"))
LAME_DUCK = os.environ.get("LAME_DUCK", "5")

SLEEPER = """
import time
import mlflow
from mlflow.pyfunc.model import PythonModel

class Sleeper(PythonModel):
    def predict(self, context, model_input, params=None):
        time.sleep(float(model_input[0]))
        return list(model_input)

mlflow.models.set_model(Sleeper())
"""


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory):
    """A model that takes as many seconds as its first input says."""
    folder = tmp_path_factory.mktemp("sleeper")
    (folder / "code.py").write_text(SLEEPER)
    mlflow.pyfunc.save_model(folder / "model", python_model=folder / "code.py", pip_requirements=[])
    return folder / "model"


@pytest.mark.timeout(120 + 40 * RESTARTS)
@pytest.mark.parametrize("start_balancer", [start_haproxy, start_envoy])
def test_no_call_fails(sleeper, tmp_path, start_balancer):
    """SIGTERM, wait for the end, start again, wait until ready; then the next server. 200 calls a second, one in 400
    takes 5 s."""
    ports = [free_port(), free_port()]
    flags = ("-m", str(sleeper), "--log-level", "warning")

    def start(port):
        process = stack.enter_context(start_server(*flags, "-p", str(port), env={"MLFLOW_GRPC_LAME_DUCK": LAME_DUCK}))
        ready_address(process)
        return process

    with contextlib.ExitStack() as stack:
        servers = [start(port) for port in ports]
        balancer = start_balancer(ports, tmp_path)
        stack.enter_context(balancer.process)
        balancer.wait_until_up(2)
        load = Load(balancer.address)
        calling = threading.Thread(target=lambda: asyncio.run(load.run()))
        calling.start()
        longest_s = 0.0
        try:
            for number in range(RESTARTS):
                began = time.monotonic()
                servers[number % 2].signal(signal.SIGTERM)
                assert servers[number % 2].wait() == 0
                longest_s = max(longest_s, time.monotonic() - began)
                servers[number % 2] = start(ports[number % 2])
                balancer.wait_until_up(2)
        finally:
            load.is_over = True
            calling.join()
    print(f"{RESTARTS} restarts, {load.calls} calls, {dict(load.failures)} failed, longest end {longest_s:.1f} s")
    assert not load.failures
