"""A Prometheus process, and a receiver in place of Alertmanager that records the alerts that fire."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from tests.support.http_server import run_in_thread
from tests.support.servers import ROOT, Process, free_port

RULES = ROOT / "deploy" / "prometheus"

INTERVAL_S = 0.5
"""Interval between two scrapes and between two evaluations, in seconds."""

WINDOW_S = 6
"""Length of the windows that are 5 or 10 minutes in the rules, in seconds."""


def shortened(text: str) -> str:
    """Returns rules whose alerts fire at once, with short windows instead of 5 and 10 minutes."""
    return re.sub(r"\[(5|10)m\]", f"[{WINDOW_S}s]", re.sub(r"\n *for: .*", "", text))


class Alerts:
    """Receives the alerts that Prometheus sends, like Alertmanager's API version 2."""

    def __init__(self) -> None:
        self.fired: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        alerts = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                alerts._take(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = run_in_thread(self._server)

    def _take(self, sent: list[dict[str, Any]]) -> None:
        with self._changed:
            for alert in sent:
                self.fired.setdefault(alert["labels"]["alertname"], alert)
            self._changed.notify_all()

    def wait_for(self, *names: str, timeout_s: float = 60.0) -> None:
        """Waits until these alerts have fired."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.fired.keys() >= set(names), timeout_s):
                raise AssertionError(f"{sorted(set(names) - self.fired.keys())} did not fire; {sorted(self.fired)} did")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Prometheus:
    """A Prometheus with the rules of deploy/, which scrapes a list of addresses, or what its configurations say."""

    def __init__(
        self, folder: Path, targets: Iterable[str] = (), *, scrape_configs: list[dict[str, Any]] | None = None
    ) -> None:
        self.alerts = Alerts()
        for name in ("recording-rules.yaml", "alerts.yaml"):
            (folder / name).write_text(shortened((RULES / name).read_text()))
        config = yaml.safe_load((RULES / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": f"{INTERVAL_S * 1000:.0f}ms", "evaluation_interval": "500ms"}
        config["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
        if scrape_configs is not None:
            config["scrape_configs"] = scrape_configs
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [self.alerts.address]}]}]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = Process(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
        )
        self._process.wait_for("Server is ready to receive web requests")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the current result of an expression."""
        response = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30)
        answer = response.json()
        assert answer["status"] == "success", (expression, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, expression: str, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Waits until an expression has a result, and returns it."""
        until, pause = time.monotonic() + timeout_s, threading.Event()
        while not (result := self.query(expression)):
            assert time.monotonic() < until, f"no result: {expression}"
            pause.wait(INTERVAL_S)  # Nothing changes before the next scrape.
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        self.alerts.stop()


def promtool(*arguments: str, stdin: str | None = None) -> str:
    """Returns the output of promtool; fails if it reports a problem."""
    done = subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
