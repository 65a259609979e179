"""Trials of what operators need: a shutdown without lost calls, models, access, and what can be watched."""

import os
import secrets
import signal
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import requests

from benchmarks.peers.faces import PeerError
from benchmarks.peers.features.calls import ANSWERED, LIMIT_S, Result, credentials, words
from benchmarks.peers.features.models import FACTOR, SECOND, SECOND_FACTOR, payload, wait_until
from benchmarks.peers.features.stand import Observation, Stand, Started, main_protocol
from benchmarks.peers.features.tried import Options, Reloading
from benchmarks.peers.protocols import MODEL, Protocol, Rest, TensorsRest
from tests.support.collector import Collector

IN_FLIGHT_S, BETWEEN_S, NEW_LIMIT_S = 3.0, 0.2, 30.0
MAX_CALLS = int(NEW_LIMIT_S / BETWEEN_S) + 1
END_LIMIT_S = 90.0
SECOND_LIMIT_S, SPAN_LIMIT_S = 30.0, 15.0
SETTLED_S = 2.0
"""Without a further span for so long, all have come: the servers send them every half second."""
TLS_LIMIT_S = 40.0
BOTH = (ANSWERED, ANSWERED)
"""What comes of calls of two models that both answer."""
NONE_DOCUMENTED = "no setting documented"


def shutdown(stand: Stand) -> Observation:
    """SIGTERM while a call runs: whether that call is answered, and how long new ones are."""
    with stand.start(Options()) as started, started.caller() as caller, ThreadPoolExecutor(MAX_CALLS) as pool:
        running = pool.submit(caller.call, payload(7.0, wait_s=IN_FLIGHT_S))
        wait_until(lambda: started.log.has_started(7.0), LIMIT_S)
        process = started.running.process
        pid = started.server.ending_pid(started.location, process.pid)
        os.kill(pid, signal.SIGTERM)
        signaled = time.monotonic()
        calls: list[tuple[float, Future[Result]]] = []
        while not any(call.done() and call.result().word != ANSWERED for _, call in calls):
            if time.monotonic() - signaled > NEW_LIMIT_S:
                raise PeerError(f"calls are still answered {NEW_LIMIT_S:g} s after SIGTERM")
            time.sleep(BETWEEN_S)
            calls.append((time.monotonic() - signaled, pool.submit(started.call)))
        in_flight, new = running.result(), [(sent_s, call.result()) for sent_s, call in calls]
        has_ended = wait_until(lambda: not Path(f"/proc/{pid}").exists() or process.has_ended, END_LIMIT_S)
        took = f"{time.monotonic() - signaled:.0f} s" if has_ended else f"more than {END_LIMIT_S:.0f} s"
    lost_s, lost = next((sent_s, result) for sent_s, result in new if result.word != ANSWERED)
    seen = (
        f"a call of {IN_FLIGHT_S:g} s in flight: {in_flight}; new calls on connections of their own, every "
        f"{BETWEEN_S:g} s: {words(result for _, result in new)}, the first one lost was sent {lost_s:.1f} s after "
        f"SIGTERM: {lost}; the process ended after {took}"
    )
    later = "new ones lost" if lost_s == new[0][0] else f"new ones for {lost_s:.1f} s"
    return Observation(f"{'answered' if in_flight.word == ANSWERED else 'lost'}, {later}", seen)


def two_models(stand: Stand) -> Observation:
    """Two models in one server."""
    if "second" not in stand.server.settings:
        return Observation("one", NONE_DOCUMENTED)
    with stand.start(Options(second=stand.models.second)) as started:
        outcome = _loaded(started)
    return Observation("several" if outcome == BOTH else "one", _of_models(outcome, stand, "second"))


def loading(stand: Stand) -> Observation:
    """A second model is loaded while the server runs."""
    if not issubclass(stand.server, Reloading):
        return Observation("no", NONE_DOCUMENTED)
    with stand.start(Options(reloads=True)) as started:
        before = started.call(_of_name(started, SECOND)).word
        try:
            cast("Reloading", started.server).load_second(started.location, stand.models.second)
        except requests.RequestException as error:
            return Observation("no", f"refused: {error}")
        began = time.monotonic()
        outcome = _loaded(started)
        took_s = time.monotonic() - began
    seen = f"{_of_models(outcome, stand, 'reloads')}; before: {before}; {took_s:.1f} s later"
    return Observation("yes" if outcome == BOTH else "no", seen)


def tokens(stand: Stand) -> Observation:
    """A call without a token, with a wrong one and with the right one."""
    if "tokens" not in stand.server.settings:
        word = stand.plain.call(token=secrets.token_hex()).word
        return Observation("no", f"{NONE_DOCUMENTED}; a call with any token: {word}")
    with stand.start(Options(tokens=True)) as started:
        right = started.server.token(started.location)
        without, wrong, proven = (started.call(token=token).word for token in ("", secrets.token_hex(), right))
    refuses = ANSWERED not in (without, wrong) and proven == ANSWERED
    seen = f"{stand.server.settings['tokens']}: no token: {without}; wrong token: {wrong}; right token: {proven}"
    return Observation("yes" if refuses else "no", seen)


def tls(stand: Stand) -> Observation:
    """TLS on the gRPC port, and mutual TLS: a client without a certificate is refused."""
    if not stand.server.has_grpc:
        return Observation("no", "no gRPC port")
    certificate = certificate_in(stand.folder)
    trusting = credentials(certificate)
    if "certificate" not in stand.server.settings:
        word = stand.plain.call(credentials=trusting).word
        return Observation("no", f"{NONE_DOCUMENTED}; a call with TLS: {word}")
    setting = stand.server.settings["certificate"]
    with stand.start(Options(certificate=certificate), must_answer=False) as started:
        started.is_ready(trusting, TLS_LIMIT_S)
        with_tls, without = (started.call(credentials=proof).word for proof in (trusting, None))
    seen = f"{setting}: a call with TLS on the gRPC port: {with_tls}, without: {without}"
    if with_tls != ANSWERED:
        return Observation("no", seen)
    if "client_authority" not in stand.server.settings:
        return Observation("TLS", f"{seen}; mutual: {NONE_DOCUMENTED}")
    proven = credentials(certificate, certificate)
    with stand.start(Options(certificate=certificate, client_authority=certificate), proven) as started:
        anonymous = started.call(credentials=trusting).word
    mutual = f"mutual ({stand.server.settings['client_authority']}): with a certificate {ANSWERED}, without {anonymous}"
    return Observation("TLS and mutual TLS" if anonymous != ANSWERED else "TLS", f"{seen}; {mutual}")


def metrics(stand: Stand) -> Observation:
    """Metrics of a call in Prometheus' format."""
    started = stand.plain
    started.call()
    url = started.server.metrics_url(started.location)
    response = requests.get(url, timeout=LIMIT_S)
    path = url.rpartition("/")[2]
    if not response.ok:
        return Observation("no", f"GET /{path}: HTTP {response.status_code}")
    lines = response.text.splitlines()
    types = sum(line.startswith("# TYPE") for line in lines)
    of_model = sum(MODEL in line and not line.startswith("#") for line in lines)
    seen = f"GET /{path}: HTTP 200, {types} metrics, {of_model} values name the model"
    return Observation("yes" if types else "no", seen)


def traces(stand: Stand) -> Observation:
    """Spans of two calls, one over gRPC and one over HTTP, at a collector."""
    setting = stand.server.settings.get("collector", "OTEL_EXPORTER_OTLP_ENDPOINT; no setting documented")
    arrived: dict[str, str] = {}
    with Collector() as collector, stand.start(Options(collector=collector.url)) as started:
        ways: dict[str, Protocol] = {"HTTP": started.server.json_over_http}
        if started.server.has_grpc:
            ways["gRPC"] = main_protocol(started.server)
        for name, protocol in ways.items():
            # The call that showed that the server is ready has spans, too.
            _settle(collector)
            before = {span.span_id for span in collector.spans}
            started.call(protocol)
            wait_until(lambda before=before: len(collector.spans) > len(before), SPAN_LIMIT_S)  # type: ignore[misc]
            _settle(collector)
            spans = sorted({span.name for span in collector.spans if span.span_id not in before})
            arrived[name] = f"spans {', '.join(spans)}" if spans else "no span"
    works = [name for name, spans in arrived.items() if spans != "no span"]
    seen = "; ".join(f"{name}: {spans}" for name, spans in arrived.items())
    return Observation(" and ".join(sorted(works)) or "no", f"{setting}: {seen}")


def certificate_in(folder: Path) -> Path:
    """Returns a self-signed certificate for this machine, with its key in a file that ends in .key."""
    certificate = folder / "certificate.pem"
    if not certificate.exists():
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        files = ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files]
        command += ["-subj", "/CN=localhost", "-addext", names]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise PeerError(f"openssl makes no certificate: {error}") from error
    return certificate


def _both_models(started: Started) -> tuple[str, str]:
    """Returns what comes of a call of each model: "answered" if the predictions are its own."""
    outcome = []
    for name, factor in ((MODEL, FACTOR), (SECOND, SECOND_FACTOR)):
        result = started.call(_of_name(started, name))
        is_wrong = result.word == ANSWERED and result.values != [factor]
        outcome.append("answered by another model" if is_wrong else result.word)
    return outcome[0], outcome[1]


def _settle(collector: Collector) -> None:
    """Waits until no more spans come."""
    count = -1
    while count != len(collector.spans):
        count = len(collector.spans)
        wait_until(lambda count=count: len(collector.spans) > count, SETTLED_S)  # type: ignore[misc]


def _loaded(started: Started) -> tuple[str, str]:
    """Waits until both models answer, and returns what comes of a call of each."""
    wait_until(lambda: _both_models(started) == BOTH, SECOND_LIMIT_S)
    return _both_models(started)


def _of_name(started: Started, name: str) -> Protocol:
    """Returns the protocol by which a model is called by its name over HTTP."""
    path = started.server.path_of(name)
    protocol: Protocol = TensorsRest() if path.startswith("/v2") else Rest()
    protocol.path = path
    return protocol


def _of_models(outcome: tuple[str, str], stand: Stand, feature: str) -> str:
    return f"{stand.server.settings[feature]}: {MODEL} {outcome[0]}, {SECOND} {outcome[1]}"
