"""Two servers are replaced one after the other under load, without a failed call."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import grpc
import mlflow
import pytest
import trustme

from tests.restarts.balancers import start_envoy, start_haproxy
from tests.restarts.load import Load
from tests.support.servers import free_port, ready_address, start_server

pytestmark = pytest.mark.restarts

RESTARTS = int(os.environ.get("RESTARTS", "20"))
LAME_DUCK = os.environ.get("LAME_DUCK", "5")

MAX_LOST_PER_RESTART = 20
"""Maximum number of calls that a restart over TLS may lose without a maximum age of connections."""

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


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_flags(authority, tmp_path_factory):
    """Flags of a server with TLS, whose certificate the authority has issued."""
    folder = tmp_path_factory.mktemp("tls")
    certificate = authority.issue_cert("127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    return ("--tls-cert", str(cert), "--tls-key", str(key))


def restart_in_turns(flags, start_balancer, folder, **mix):
    """Restarts two servers in turns under load: SIGTERM, wait for the end, start again, wait until ready.

    Returns the load, which has ended.
    """
    ports = [free_port(), free_port()]

    def start(port):
        process = stack.enter_context(start_server(*flags, "-p", str(port), env={"MLFLOW_GRPC_LAME_DUCK": LAME_DUCK}))
        ready_address(process)
        return process

    with contextlib.ExitStack() as stack:
        servers = [start(port) for port in ports]
        balancer = start_balancer(ports, folder)
        stack.enter_context(balancer.process)
        balancer.wait_until_up(2)
        load = Load(balancer.address, **mix)
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
    return load


@pytest.mark.timeout(120 + 40 * RESTARTS)
@pytest.mark.parametrize("start_balancer", [start_haproxy, start_envoy])
def test_no_call_fails(sleeper, tmp_path, start_balancer):
    """200 calls a second, of which one in 400 takes 5 s, lose nothing to restarts."""
    load = restart_in_turns(("-m", str(sleeper), "--log-level", "warning"), start_balancer, tmp_path)
    assert not load.failures


@pytest.mark.timeout(120 + 40 * RESTARTS)
@pytest.mark.parametrize("start_balancer", [start_haproxy, start_envoy])
def test_no_call_or_stream_fails_with_workers(sleeper, tmp_path, start_balancer):
    """Servers with two workers lose no call and no short stream; one call in 50 takes 1 s, and one in 5 is a stream."""
    flags = ("-m", str(sleeper), "--log-level", "warning", "-w", "2")
    load = restart_in_turns(flags, start_balancer, tmp_path, long_every=50, long_s=1.0, stream_every=5)
    assert not load.failures


@pytest.mark.timeout(120 + 60 * RESTARTS)
@pytest.mark.parametrize("age", ["5", "20"])
def test_no_call_fails_over_tls_with_a_maximum_age(sleeper, tls_flags, authority, tmp_path, age):
    """Over TLS no call is lost if connections have a maximum age below the drain timeout of 30 s."""
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    flags = ("-m", str(sleeper), "--log-level", "warning", *tls_flags, "--max-connection-age", age)
    load = restart_in_turns(flags, start_haproxy, tmp_path, credentials=credentials)
    assert not load.failures


@pytest.mark.timeout(120 + 60 * RESTARTS)
def test_few_calls_fail_over_tls_without_a_maximum_age(sleeper, tls_flags, authority, tmp_path):
    """Over TLS without a maximum age, only calls are lost that clients send before they have read GOAWAY."""
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    flags = ("-m", str(sleeper), "--log-level", "warning", *tls_flags)
    load = restart_in_turns(flags, start_haproxy, tmp_path, credentials=credentials)
    assert set(load.failures) <= {"CANCELLED: CANCELLED"}
    assert load.failures.total() <= MAX_LOST_PER_RESTART * RESTARTS
