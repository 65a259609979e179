"""A fleet of servers in a simulation: balancing, retries and autoscaling, for sizes that no test can run.

`python -m benchmarks.fleet` prints a table for each question. `--check` compares the simulation with two real servers
first.

Rule of this module: it asks the questions. `benchmarks/fleet_model.py` simulates, and `benchmarks/fleet_check.py` has
the real servers.
"""

import itertools
import math
import random
import statistics
from collections import Counter
from dataclasses import dataclass
from functools import partial

import click
import simpy

from benchmarks.fleet_model import (
    BALANCERS,
    Clients,
    Events,
    Outcomes,
    Server,
    balancer_for,
    dice_for,
    least_request,
    round_robin,
)

SMALL_S, LARGE_S = 0.0004, 0.010
"""CPU time of a call with one row, and of a typed call with 10,000 rows of 20 numbers, in seconds: measured with 32
calls in flight, and with one."""

REFUSAL_S = 0.0003
"""CPU time of a refusal of overload, in seconds; measured."""

MODEL_S = 0.004
"""Service time of the model in the questions about retries, in seconds."""

SCALED_MODEL_S = 0.02
"""Service time of the model in the question about autoscaling, in seconds."""

FAULT_AT_S, FAULT_S, END_S = 5.0, 5.0, 15.0
"""When a fault begins, how long it lasts, and when the simulation of retries ends, in seconds."""

DOUBLED_AT_S, SCALED_END_S = 60.0, 180.0
"""When the load doubles, and when the simulation of autoscaling ends, in seconds."""

HPA_INTERVAL_S, HPA_TOLERANCE, START_S = 15.0, 0.1, 15.0
"""Interval and tolerance of Kubernetes' HorizontalPodAutoscaler (its defaults), and the time until a new server takes
calls, in seconds: 5 s of it are the server's, the rest is for scheduling and readiness."""

SLOW_S = 0.1
"""Duration of a call from which it counts as slow, in seconds."""


def balancing(*, servers: int = 10, seconds: float = 30.0, load: float = 0.6, large_share: float = 0.01) -> str:
    """Compares balancers with small and large calls, at a share of the servers' capacity."""
    lines = ["| balancer | p50 | p99 | p99.9 |", "|---|---|---|---|"]
    rate = load * servers / ((1 - large_share) * SMALL_S + large_share * LARGE_S)
    for name in BALANCERS:
        dice = dice_for(1)
        env = simpy.Environment()
        clients = Clients(env, [Server(env) for _ in range(servers)], balancer_for(name, dice), dice)
        draw = partial(_small_or_large, dice, large_share)
        env.process(clients.arrivals(lambda _: rate, draw))
        env.run(seconds)
        quantiles = " | ".join(f"{clients.outcomes.quantile_ms(share):.1f} ms" for share in (0.5, 0.99, 0.999))
        lines.append(f"| {name} | {quantiles} |")
    return "\n".join(lines)


def _small_or_large(dice: random.Random, large_share: float) -> float:
    return LARGE_S if dice.random() < large_share else SMALL_S


@dataclass(frozen=True)
class RetryPolicy:
    """What callers do about errors."""

    label: str
    has_retries: bool
    is_throttled: bool


POLICIES = (
    RetryPolicy("none", has_retries=False, is_throttled=False),
    RetryPolicy("without throttling", has_retries=True, is_throttled=False),
    RetryPolicy("the client's", has_retries=True, is_throttled=True),
)


def retries(*, servers: int = 10, load: float = 0.6, overload: float = 2.0) -> str:
    """Compares retries while a server is down, and while more than the capacity is offered."""
    lines = ["| fault, for 5 s | retries | attempts a call | calls that failed | p99 after the fault |"]
    lines.append("|---|---|---|---|---|")
    capacity = servers / MODEL_S
    faults = {"one server of ten is down": load * capacity, f"{overload:g} times the capacity": overload * capacity}
    for (fault, peak), policy in itertools.product(faults.items(), POLICIES):
        outcomes = _with_fault(servers, usual=load * capacity, peak=peak, policy=policy)
        calls = outcomes.statuses.total()
        later = [
            took
            for took, ended_at in zip(outcomes.took_s, outcomes.ended_at, strict=True)
            if ended_at > FAULT_AT_S + FAULT_S + 1
        ]
        lines.append(
            f"| {fault} | {policy.label} | {outcomes.attempts / calls:.2f} | {1 - outcomes.statuses['OK'] / calls:.2%} "
            f"| {statistics.quantiles(later, n=100)[98] * 1000:.0f} ms |"
        )
    return "\n".join(lines)


def _with_fault(servers: int, *, usual: float, peak: float, policy: RetryPolicy) -> Outcomes:
    """Returns what callers saw whose rate is `peak` during the fault; if that is the usual rate, a server is down."""
    dice = dice_for(2)
    env = simpy.Environment()
    fleet = [Server(env) for _ in range(servers)]
    clients = Clients(env, fleet, round_robin(), dice, has_retries=policy.has_retries, is_throttled=policy.is_throttled)

    def fail() -> Events:
        yield env.timeout(FAULT_AT_S)
        fleet[0].is_up = False
        yield env.timeout(FAULT_S)
        fleet[0].is_up = True

    if peak == usual:
        env.process(fail())

    def rate(now: float) -> float:
        return peak if FAULT_AT_S <= now < FAULT_AT_S + FAULT_S else usual

    env.process(clients.arrivals(rate, lambda: MODEL_S, REFUSAL_S))
    env.run(END_S)
    return clients.outcomes


def autoscaling(*, usual: float = 200.0) -> str:
    """Doubles the load, with the rule of Kubernetes' HorizontalPodAutoscaler at several targets of utilization."""
    lines = ["| target | servers before and after | seconds with more than 1 % of slow calls | refused attempts |"]
    lines.append("|---|---|---|---|")
    for target in (0.5, 0.6, 0.7, 0.8):
        dice = dice_for(3)
        env = simpy.Environment()
        servers = [Server(env) for _ in range(math.ceil(usual * SCALED_MODEL_S / target))]
        before = len(servers)
        clients = Clients(env, servers, least_request(dice), dice)
        env.process(_autoscaler(env, servers, target))
        env.process(
            clients.arrivals(lambda now: usual * (2 if now >= DOUBLED_AT_S else 1), lambda: SCALED_MODEL_S, REFUSAL_S)
        )
        env.run(SCALED_END_S)
        outcomes = clients.outcomes
        slow = Counter(
            int(ended_at)
            for took, ended_at in zip(outcomes.took_s, outcomes.ended_at, strict=True)
            if took > SLOW_S and ended_at > DOUBLED_AT_S
        )
        slow_seconds = sum(calls > usual * 2 / 100 for calls in slow.values())
        refused = outcomes.attempts - outcomes.statuses["OK"]
        lines.append(f"| {target} | {before} and {len(servers)} | {slow_seconds} | {refused} |")
    return "\n".join(lines)


def _autoscaler(env: simpy.Environment, servers: list[Server], target: float) -> Events:
    """Adds servers by the rule of the autoscaler; the load of these simulations never falls."""
    started = len(servers)

    def start() -> Events:
        yield env.timeout(START_S)
        servers.append(Server(env))

    while True:
        yield env.timeout(HPA_INTERVAL_S)
        ratio = statistics.fmean(server.utilization(HPA_INTERVAL_S) for server in servers) / target
        if ratio > 1 + HPA_TOLERANCE:
            needed = math.ceil(len(servers) * ratio)
            for _ in range(needed - started):
                env.process(start())
            started = max(started, needed)


@click.command()
@click.option("--check", is_flag=True, help="Compares the simulation with two real servers first, for two minutes.")
def main(*, check: bool) -> None:
    """Simulates fleets of servers, and prints what balancing, retries and autoscaling do to their callers."""
    if check:
        from benchmarks import fleet_check

        click.echo(f"Two servers, simulated and real:\n\n{fleet_check.compare()}\n")
    click.echo(f"Ten servers at 60 %, one call in a hundred is large:\n\n{balancing()}\n")
    click.echo(f"Ten servers at 60 %, a model that takes {MODEL_S * 1000:g} ms, and a fault:\n\n{retries()}\n")
    click.echo(
        f"A model that takes {SCALED_MODEL_S * 1000:g} ms; the load doubles from one second to the next:\n\n"
        f"{autoscaling()}"
    )


if __name__ == "__main__":
    main()
