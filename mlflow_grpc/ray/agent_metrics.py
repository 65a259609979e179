"""The server's metrics as metrics of Ray, whose agent on each node offers them to Prometheus.

The agent exports them as `ray_<name>` with the labels `application`, `deployment` and `replica`. All are gauges there,
including counters and the buckets of histograms, because the agent forgets gauges that are not set any more. It would
export counters of a replica until the node ends, and a histogram of Ray takes single observations only.

Rule of this module: it copies numbers at intervals, and costs calls nothing.
"""

import asyncio

from prometheus_client.parser import text_string_to_metric_families
from ray.serve.metrics import Gauge

from mlflow_grpc.engine.gauges import Gauges

INTERVAL_S = 4.0
"""Time between two copies, in seconds. Ray sends what was set since the last time to the agent every 10 s by default
(`RAY_metrics_report_interval_ms`), and the agent keeps it for twice that time."""


class AgentMetrics:
    """Copies the metrics of a host to Ray; used from the event loop of the host."""

    def __init__(self, gauges: Gauges) -> None:
        """Copies nothing yet.

        Args:
            gauges: `Host.gauges`.

        """
        self._gauges = gauges
        self._by_name: dict[str, Gauge] = {}
        self._series: dict[str, tuple[Gauge, dict[str, str]]] = {}  # By the text before the value.

    async def watch(self) -> None:
        """Copies all metrics again and again; runs until cancelled."""
        while True:
            await self._gauges.refresh_all()
            async for part in self._gauges.metrics.parts():
                self._copy(part)
            await asyncio.sleep(INTERVAL_S)

    def _copy(self, part: str) -> None:
        """Sets gauges to the lines of one series."""
        for line in part.splitlines():
            if line.startswith("#"):
                continue
            text, _, value = line.rpartition(" ")
            # Reading the labels takes several times as long as setting the gauge, and would delay calls.
            if text not in self._series:
                self._series[text] = self._add(line, part)
            gauge, tags = self._series[text]
            gauge.set(float(value), tags)

    def _add(self, line: str, part: str) -> tuple[Gauge, dict[str, str]]:
        """Returns the gauge for a line and its labels, with the text of the header if there is one."""
        (family,) = text_string_to_metric_families(line)
        (sample,) = family.samples
        if sample.name not in self._by_name:
            described = next(iter(text_string_to_metric_families(part)))
            self._by_name[sample.name] = Gauge(sample.name, described.documentation, tuple(sample.labels))
        return self._by_name[sample.name], dict(sample.labels)
