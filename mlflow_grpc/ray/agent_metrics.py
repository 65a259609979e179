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
        self._copies: dict[str, Gauge] = {}

    async def watch(self) -> None:
        """Copies all metrics again and again; runs until cancelled."""
        while True:
            await self._gauges.refresh_all()
            async for part in self._gauges.metrics.parts():
                self._copy(part)
            await asyncio.sleep(INTERVAL_S)

    def _copy(self, part: str) -> None:
        """Sets gauges to the samples of a series, which may come without the header of its family."""
        for family in text_string_to_metric_families(part):
            for sample in family.samples:
                copy = self._copies.get(sample.name)
                if copy is None:
                    copy = Gauge(sample.name, family.documentation, tuple(sample.labels))
                    self._copies[sample.name] = copy
                copy.set(sample.value, dict(sample.labels))
