"""One scrape answers for all workers, and no counter falls when one of them is killed."""

import os
import signal

import pytest

from tests.process.conftest import payload
from tests.process.test_workers import pids, seen_by
from tests.support.scrapes import Scrape
from tests.support.servers import Caller, ready_address

pytestmark = pytest.mark.slow


@pytest.mark.alone
def test_no_counter_falls_when_a_worker_is_killed(start):
    """Any worker answers for all, and a replacement continues the counters of the dead one."""
    process = start("-w", "2", "--http-port", "0")
    address = ready_address(process)
    url = process.wait_for(r"HTTP on (http://\S+:\d+)")[1]
    calls = 40
    assert len(seen_by(address, calls)) == 2
    settled = {"grpc_method": "predict", "grpc_code": "OK"}
    while Scrape(url).total("grpc_server_handled_total", **settled) < calls:
        pass  # Workers count their notes ten times a second.
    scrapes = [Scrape(url) for _ in range(8)]  # The kernel assigns connections to either worker.
    for scrape in scrapes:
        assert scrape.total("grpc_server_handled_total", grpc_method="predict", grpc_code="OK") == calls
        assert scrape.total("mlflow_grpc_workers") == 2
        assert scrape.total("mlflow_grpc_worker_starts_total") == 2
    assert max(scrape.total("mlflow_grpc_model_ready") for scrape in scrapes) == 2
    victim = pids(process)[0]
    os.kill(victim, signal.SIGKILL)
    process.wait_for(rf"pid {victim}\) ended with code -9")
    previous = scrapes[-1]
    while previous.total("mlflow_grpc_model_ready") < 2 or previous.total("mlflow_grpc_worker_starts_total") < 3:
        scrape = Scrape(url)
        fallen = {key for key, value in previous.counters().items() if scrape.counters().get(key, 0.0) < value}
        assert not fallen
        previous = scrape
    with Caller(address) as call:
        call(payload("pid"))
    while Scrape(url).total("grpc_server_handled_total", **settled) < calls + 1:
        pass
    scrape = Scrape(url)
    assert scrape.total("grpc_server_handled_total", **settled) == calls + 1
    assert scrape.total("process_cpu_seconds_total", worker="0") >= previous.total(
        "process_cpu_seconds_total", worker="0"
    )
