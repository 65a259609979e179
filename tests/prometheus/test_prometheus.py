"""Rules, panels and alerts of deploy/ with a real Prometheus and real servers (make prometheus)."""

import datetime as dt
import json
import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
import requests
import yaml

from tests.process.conftest import QUICK, own_registry, payload, registry  # noqa: F401 - fixtures
from tests.process.test_workers import pids
from tests.prometheus.prometheus import INTERVAL_S, RULES, WINDOW_S, Prometheus, promtool
from tests.support.access import Authority
from tests.support.servers import ROOT, Caller, Process, free_port, ready_address, start_server

pytestmark = [
    pytest.mark.prometheus,
    pytest.mark.alone,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")),
        reason="needs Prometheus and promtool, on Debian: apt-get install prometheus",
    ),
]

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())

ALERTS = {rule["alert"]: rule for rule in yaml.safe_load((RULES / "alerts.yaml").read_text())["groups"][0]["rules"]}


def test_promtool_accepts_the_rules():
    """promtool accepts the syntax and names of the configuration, the recording rules and the alerts."""
    assert "SUCCESS" in promtool("check", "config", str(RULES / "prometheus.yaml"))


def test_alerts_wait_for_their_time():
    """promtool's own tests, with the real windows and times: each alert fires for its cause, and not early."""
    assert "SUCCESS" in promtool("test", "rules", str(ROOT / "tests" / "prometheus" / "rules.test.yaml"))


def test_each_alert_has_its_recipe():
    """The page that an alert names has the section."""
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for name, rule in ALERTS.items():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in anchors) == ("docs/operations.md", True), name


def http_url(process: Process) -> str:
    return process.wait_for(r"HTTP on (http://\S+:\d+)")[1]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Process, Process, Process]]:
    """A server with one thread and a short queue, one with two workers, and one whose two models cannot be loaded."""
    with ExitStack() as stack:
        folder = ROOT / "tests" / "prometheus"

        def start(*flags: str) -> Process:
            return stack.enter_context(start_server("--http-port", "0", *flags))

        one = start("-m", QUICK, "--threads", "1", "--queue-calls", "3", "--timeout", "1")
        two = start("-m", QUICK, "-w", "2")
        half = start("--config", str(folder / "half.yaml"))
        for process in (one, two, half):
            ready_address(process)
        yield one, two, half


@pytest.fixture(scope="module")
def prometheus(servers, tmp_path_factory) -> Iterator[Prometheus]:
    """Scrapes the servers, and a port on which nothing listens."""
    targets = [http_url(process).removeprefix("http://") for process in servers]
    with Prometheus(tmp_path_factory.mktemp("prometheus"), [*targets, f"127.0.0.1:{free_port()}"]) as prometheus:
        yield prometheus


class Load:
    """All kinds of calls to the first server, until it is stopped."""

    def __init__(self, server: Process) -> None:
        self._stopping = threading.Event()
        self._server = server
        self._pool = ThreadPoolExecutor(8)
        for text in ("answer", "answer", "raise", "raise", "answer", "answer"):
            self._pool.submit(self._call, payload(text, "x"))
        self._pool.submit(self._post)

    def _call(self, text: str) -> None:
        with Caller(ready_address(self._server)) as call:
            while not self._stopping.is_set():
                call.outcome(text)

    def _post(self) -> None:
        while not self._stopping.is_set():
            headers = {"content-type": "application/json"}
            requests.post(f"{http_url(self._server)}/invocations", payload("answer"), headers=headers, timeout=30)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._pool.shutdown()


@pytest.mark.timeout(200)
def test_each_panel_and_each_rule_has_a_result_under_load(servers, prometheus):
    """Every expression of the dashboard and every recording rule has series while calls succeed, fail and are refused."""
    variables = {"$job": ".*", "$model": ".*", "$__rate_interval": f"{WINDOW_S}s"}
    with Load(servers[0]):
        for panel in DASHBOARD["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for name, value in variables.items():
                    expression = expression.replace(name, value)
                result = prometheus.wait_for(expression)
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    optional = label in ("version", "worker")  # An empty label counts as absent.
                    assert optional or any(label in series["metric"] for series in result), (panel["title"], label)
        for group in yaml.safe_load((RULES / "recording-rules.yaml").read_text())["groups"]:
            for rule in group["rules"]:
                prometheus.wait_for(rule["record"])
        prometheus.alerts.wait_for("MlflowGrpcModelErrors", "MlflowGrpcRefusals")


@pytest.fixture
def following(own_registry, tmp_path) -> Iterator[tuple[Process, Path, mlflow.MlflowClient]]:  # noqa: F811 - a fixture
    """A server that follows an alias and watches its configuration file, the file, and a client of the registry."""
    client = mlflow.MlflowClient(tracking_uri=own_registry, registry_uri=own_registry)
    client.set_registered_model_alias("churn", "champion", "1")
    file = tmp_path / "models.yaml"
    file.write_text("models: [{uri: 'models:/churn@champion', track: 1s}]")
    flags = ("--config", str(file), "--watch-config", "1s", "--http-port", "0")
    with start_server(*flags, env={"MLFLOW_TRACKING_URI": own_registry}) as process:
        ready_address(process)
        yield process, file, client


@pytest.mark.timeout(300)
def test_alerts_of_what_is_not_served(following, tmp_path):
    """A version that cannot be fetched, then a file that is wrong, and then a registry that does not answer each fire an
    alert; what was served goes on.
    """
    process, file, client = following
    (tmp_path / "prometheus").mkdir()
    with Prometheus(tmp_path / "prometheus", [http_url(process).removeprefix("http://")]) as prometheus:
        prometheus.wait_for("mlflow_grpc_config_behind == 0 and on () mlflow_grpc_model_behind_registry == 0")
        missing = client.create_model_version("churn", str(tmp_path / "no-such-directory"))
        client.set_registered_model_alias("churn", "champion", missing.version)
        prometheus.alerts.wait_for("MlflowGrpcModelBehind")
        assert (
            "serves another version of churn"
            in prometheus.alerts.fired["MlflowGrpcModelBehind"]["annotations"]["summary"]
        )
        assert "MlflowGrpcConfigBehind" not in prometheus.alerts.fired
        file.write_text("models: [")
        prometheus.alerts.wait_for("MlflowGrpcConfigBehind")
        assert "<no value>" not in prometheus.alerts.fired["MlflowGrpcConfigBehind"]["annotations"]["summary"]
        assert "MlflowGrpcRegistryAway" not in prometheus.alerts.fired
        (tmp_path / "registry.db").write_bytes(b"no database")
        prometheus.alerts.wait_for("MlflowGrpcRegistryAway")
        summary = prometheus.alerts.fired["MlflowGrpcRegistryAway"]["annotations"]["summary"]
        assert "no version of churn to 127.0.0.1:" in summary
    with Caller(ready_address(process)) as call:
        assert call.outcome(payload("answer"))[0] == "OK"


ELSEWHERE = {
    "MlflowGrpcConfigBehind",
    "MlflowGrpcModelBehind",
    "MlflowGrpcRegistryAway",
    "MlflowGrpcAbsent",
    "MlflowGrpcCertificateExpires",
}
"""Alerts of servers whose models change while they run, of no servers, and of servers with TLS."""


def test_the_alert_of_no_servers(tmp_path):
    """Without a target there is no series `up`, and the alert for that fires."""
    with Prometheus(tmp_path) as prometheus:
        # Not `alerts`: Prometheus sends an alert again after a minute, if Alertmanager was not known yet when it fired.
        (fired,) = prometheus.wait_for('ALERTS{alertstate="firing"}')
    assert (fired["metric"]["alertname"], fired["metric"]["job"]) == ("MlflowGrpcAbsent", "mlflow-grpc")


@pytest.mark.timeout(200)
def test_a_server_with_mutual_tls_is_scraped(tmp_path):
    """The lines about TLS in the configuration, with files of this test, scrape a server that requires certificates.

    Its certificate expires within two days, and the alert for that fires.
    """
    authority = Authority(tmp_path / "tls")
    cert, key = authority.server(not_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    own_cert, own_key = authority.client(common_name="prometheus")
    text = (RULES / "prometheus.yaml").read_text()
    lines = [line.replace("# ", "", 1) for line in text.partition("fires.\n")[2].splitlines()]
    (config,) = yaml.safe_load(text)["scrape_configs"]
    tls = yaml.safe_load("\n".join(lines))
    assert list(tls) == ["scheme", "tls_config"]
    names = {"ca_file": authority.ca, "cert_file": own_cert, "key_file": own_key, "server_name": "localhost"}
    assert tls["tls_config"].keys() == names.keys()
    tls["tls_config"] = {name: str(value) for name, value in names.items()}
    flags = ("--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(authority.ca))
    with start_server("-m", QUICK, "--http-port", "0", *flags) as process:
        ready_address(process)
        target = process.wait_for(r"HTTP on https://(\S+:\d+)")[1]
        plain = {**config, "static_configs": [{"targets": [target]}]}
        (tmp_path / "prometheus").mkdir()
        scrapes = [{**plain, **tls}, {**plain, "job_name": "without"}]
        with Prometheus(tmp_path / "prometheus", scrape_configs=scrapes) as prometheus:
            prometheus.wait_for('up{job="mlflow-grpc"} == 1 and on () up{job="without"} == 0')
            prometheus.wait_for('mlflow_grpc_serving{job="mlflow-grpc"} == 1')
            severities = 'count by (severity) (ALERTS{alertname="MlflowGrpcCertificateExpires",alertstate="firing"})'
            prometheus.wait_for(f"count({severities}) == 2")
            prometheus.alerts.wait_for("MlflowGrpcCertificateExpires")
            summary = prometheus.alerts.fired["MlflowGrpcCertificateExpires"]["annotations"]["summary"]
            assert re.fullmatch(rf"The certificate of {target} expires in \S+h \S+m \S+s", summary)
            assert "MlflowGrpcDown" not in prometheus.alerts.fired


@pytest.mark.timeout(300)
def test_each_alert_fires(servers, prometheus):
    """Each alert fires for its cause: dead servers and workers, failed, hung and slow models, and a stalled process."""
    one, two, half = servers
    prometheus.alerts.wait_for("MlflowGrpcDown", "MlflowGrpcModelFailed")
    with Load(one):
        prometheus.alerts.wait_for("MlflowGrpcModelErrors", "MlflowGrpcRefusals")
    # Hung calls time out and keep their threads; those behind them wait until their own time is over.
    with Caller(ready_address(one)) as call, ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            list(pool.map(call.outcome, [payload("hang")] * 3))
        prometheus.alerts.wait_for("MlflowGrpcAbandonedCalls", "MlflowGrpcDeadlines", "MlflowGrpcNotServing")
        prometheus.alerts.wait_for("MlflowGrpcWaiting")
    for starts in range(3, 6):
        victim = pids(two)[-1]
        os.kill(victim, signal.SIGKILL)
        two.wait_for(r"worker \d started, pid", times=starts)
        prometheus.wait_for(f"sum(mlflow_grpc_worker_starts_total) >= {starts + 2}")
    prometheus.alerts.wait_for("MlflowGrpcWorkersMissing", "MlflowGrpcRestarts")
    still = half.popen.pid
    os.kill(still, signal.SIGSTOP)
    threading.Event().wait(2 * INTERVAL_S)  # The duration of the stall.
    os.kill(still, signal.SIGCONT)
    prometheus.alerts.wait_for("MlflowGrpcEventLoopDelay")
    _, hard_limit = resource.prlimit(still, resource.RLIMIT_NOFILE)
    files = len(list(Path(f"/proc/{still}/fd").iterdir()))
    resource.prlimit(still, resource.RLIMIT_NOFILE, (files + 4, hard_limit))
    prometheus.alerts.wait_for("MlflowGrpcOpenFiles")
    # Without its time, MlflowGrpcAbsent fires before the first scrape.
    assert prometheus.alerts.fired.keys() - {"MlflowGrpcAbsent"} == ALERTS.keys() - ELSEWHERE
    for alert in prometheus.alerts.fired.values():
        assert "<no value>" not in alert["annotations"]["summary"]
