"""benchmarks/fleet.py: the simulation agrees with queueing theory, and its callers follow the client's policy."""

import statistics

import pytest
import simpy
from mlflow_grpc_client import _options

from benchmarks.fleet_model import RETRY_PAUSES_S, Clients, Server, balancer_for, dice_for, round_robin

SERVICE_S = 0.01


def simulated(servers: list[Server], clients: Clients, env: simpy.Environment, *, rate: float, seconds: float) -> None:
    env.process(clients.arrivals(lambda _: rate, lambda: SERVICE_S))
    env.run(seconds)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_times_are_those_of_a_queue_with_constant_service_times(load):
    """The mean wait of an M/D/1 queue is load / (2 (1 - load)) service times (Pollaczek and Khinchine)."""
    env = simpy.Environment()
    servers = [Server(env, timeout_s=1e9)]
    clients = Clients(env, servers, round_robin(), dice_for(1))
    simulated(servers, clients, env, rate=load / SERVICE_S, seconds=400)
    waited = statistics.fmean(clients.outcomes.took_s) / SERVICE_S - 1
    assert waited == pytest.approx(load / (2 * (1 - load)), rel=0.15)
    assert servers[0].work_s / 400 == pytest.approx(load, rel=0.05)


def test_a_server_that_is_down_is_retried_elsewhere():
    """One of four servers is down: a quarter of the attempts fail, and five attempts are enough for nearly all calls."""
    env = simpy.Environment()
    servers = [Server(env) for _ in range(4)]
    servers[0].is_up = False
    clients = Clients(env, servers, round_robin(), dice_for(1), is_throttled=False)
    simulated(servers, clients, env, rate=5, seconds=60)
    outcomes = clients.outcomes
    assert outcomes.statuses["UNAVAILABLE"] <= 0.01 * outcomes.statuses.total()
    assert outcomes.attempts == pytest.approx(4 / 3 * outcomes.statuses.total(), rel=0.1)


def test_throttled_callers_do_not_retry_while_most_attempts_fail():
    """Once half of the tokens are gone, a call has one attempt."""
    env = simpy.Environment()
    server = Server(env)
    server.is_up = False
    clients = Clients(env, [server], round_robin(), dice_for(1))
    simulated([server], clients, env, rate=100, seconds=20)
    assert set(clients.outcomes.statuses) == {"UNAVAILABLE"}
    assert clients.outcomes.attempts < 1.1 * clients.outcomes.statuses.total()


def test_calls_that_would_miss_their_deadline_are_refused():
    """At twice the capacity, calls are refused at once, and answers take no longer than the deadline and a service."""
    env = simpy.Environment()
    servers = [Server(env, timeout_s=0.2)]
    clients = Clients(env, servers, balancer_for("round robin", dice_for(1)), dice_for(1), has_retries=False)
    simulated(servers, clients, env, rate=2 / SERVICE_S, seconds=30)
    statuses = clients.outcomes.statuses
    assert statuses["RESOURCE_EXHAUSTED"] == pytest.approx(statuses["OK"], rel=0.15)
    assert max(clients.outcomes.took_s) < 0.2 + 2 * SERVICE_S


def test_the_pauses_are_those_of_the_client():
    assert RETRY_PAUSES_S == _options.RETRY_PAUSES_S
