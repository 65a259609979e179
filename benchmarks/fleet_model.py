"""Servers, balancers and callers of a simulated fleet.

Rule of this module: simulated time only. It follows the rules of the server's admission, of the client's retries and of
the balancers. A server answers one call at a time, as a process with one busy core does.
"""

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

MAX_REQUESTS = 1024
"""Default of `--queue-calls`."""

RETRY_PAUSES_S = (0.1, 0.2, 0.4, 0.8)
"""Pauses of the client's retries, as in mlflow_grpc_client."""

MAX_TOKENS, TOKEN_RATIO = 100.0, 0.5
"""The client's retry throttling (gRFC A6): a failure costs a token, an answer brings back a share of one. There are no
retries while half of the tokens are gone."""

Events = Generator[Any, Any, Any]


class Server:
    """A server with one queue; a call is refused if too many wait, or if the wait exceeds its time."""

    def __init__(self, env: simpy.Environment, *, timeout_s: float = 1.0, threads: int = 1) -> None:
        """Starts idle.

        Args:
            env: The clock.
            timeout_s: Time of a call from its arrival to its deadline, in seconds.
            threads: Number of calls that are answered at a time.

        """
        self.is_up = True
        self.open_calls = 0
        self.work_s = 0.0
        """Service time so far, in seconds."""
        self._env = env
        self._timeout_s = timeout_s
        self._threads = simpy.Resource(env, capacity=threads)
        self._queued_s = 0.0
        self._samples: deque[float] = deque([0.0], maxlen=2)

    def answer(self, service_s: float, refusal_s: float = 0.0) -> Events:
        """Answers a call after `service_s`, or refuses it after `refusal_s`; returns the gRPC status."""
        if not self.is_up:
            return "UNAVAILABLE"
        if self.open_calls >= MAX_REQUESTS or self._queued_s / self._threads.capacity > self._timeout_s:
            if refusal_s:
                yield from self._run(refusal_s)
            return "RESOURCE_EXHAUSTED"
        self.open_calls += 1
        self._queued_s += service_s
        yield from self._run(service_s)
        self._queued_s -= service_s
        self.open_calls -= 1
        return "OK" if self.is_up else "UNAVAILABLE"

    def _run(self, seconds: float) -> Events:
        with self._threads.request() as turn:
            yield turn
            yield self._env.timeout(seconds)
        self.work_s += seconds

    def utilization(self, window_s: float) -> float:
        """Returns the busy share of the time since the last call of this function, which was `window_s` ago."""
        self._samples.append(self.work_s)
        return min((self._samples[-1] - self._samples[0]) / window_s / self._threads.capacity, 1.0)


Balancer = Callable[[Sequence[Server]], Server]


def round_robin() -> Balancer:
    """Returns a balancer that takes the servers in turn, as gRPC's `round_robin` does."""
    numbers = itertools.count()
    return lambda servers: servers[next(numbers) % len(servers)]


def least_request(dice: random.Random) -> Balancer:
    """Returns a balancer that takes the less busy one of two random servers, as Envoy's `LEAST_REQUEST` does."""
    return lambda servers: min(dice.sample(list(servers), min(2, len(servers))), key=lambda server: server.open_calls)


BALANCERS = ("round robin", "least request of two")


def balancer_for(name: str, dice: random.Random) -> Balancer:
    """Returns one of the BALANCERS."""
    return round_robin() if name == BALANCERS[0] else least_request(dice)


@dataclass
class Outcomes:
    """What the callers of a simulation saw."""

    took_s: list[float] = field(default_factory=list)
    """Durations of the answered calls, in the order of their end."""
    ended_at: list[float] = field(default_factory=list)
    """When the answered calls ended."""
    statuses: Counter[str] = field(default_factory=Counter)
    attempts: int = 0

    def quantile_ms(self, share: float) -> float:
        """Returns a quantile of the durations in milliseconds."""
        return sorted(self.took_s)[min(int(share * len(self.took_s)), len(self.took_s) - 1)] * 1000


@dataclass
class Clients:
    """Callers with the retry policy of mlflow_grpc_client, which share one budget of retries."""

    env: simpy.Environment
    servers: list[Server]
    balancer: Balancer
    dice: random.Random
    has_retries: bool = True
    is_throttled: bool = True
    outcomes: Outcomes = field(default_factory=Outcomes)
    _tokens: float = MAX_TOKENS

    def call(self, service_s: float, refusal_s: float = 0.0) -> Events:
        """Makes a call, with its retries."""
        began = self.env.now
        pauses_s = iter(RETRY_PAUSES_S if self.has_retries else ())
        while True:
            self.outcomes.attempts += 1
            status = yield from self.balancer(self.servers).answer(service_s, refusal_s)
            if status == "OK":
                self._tokens = min(self._tokens + TOKEN_RATIO, MAX_TOKENS)
                self.outcomes.took_s.append(self.env.now - began)
                self.outcomes.ended_at.append(self.env.now)
                break
            self._tokens = max(self._tokens - 1, 0.0)
            pause_s = next(pauses_s, None)
            if pause_s is None or (self.is_throttled and self._tokens <= MAX_TOKENS / 2):
                break
            yield self.env.timeout(pause_s * self.dice.uniform(0.8, 1.2))
        self.outcomes.statuses[status] += 1

    def arrivals(
        self, rate: Callable[[float], float], service_s: Callable[[], float], refusal_s: float = 0.0
    ) -> Events:
        """Starts calls at random times (a Poisson process) with a rate, in calls a second, that depends on the time."""
        while True:
            yield self.env.timeout(self.dice.expovariate(rate(self.env.now)))
            self.env.process(self.call(service_s(), refusal_s))


def dice_for(seed: int) -> random.Random:
    """Returns a source of random numbers that is the same in each run."""
    return random.Random(seed)  # noqa: S311 - nothing secret
