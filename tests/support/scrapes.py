"""Scrapes of a server's metrics, read by the parsers of Prometheus' own client for Python."""

import requests
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
"""An Accept header like that of Prometheus."""

Labels = frozenset[tuple[str, str]]


class Scrape:
    """The metrics of a server at one moment."""

    def __init__(self, url: str, accept: str = "*/*") -> None:
        response = requests.get(f"{url}/metrics", headers={"accept": accept}, timeout=30)
        assert response.status_code == 200
        self.text = response.text
        self.content_type = response.headers["content-type"]
        parse = (
            openmetrics.text_string_to_metric_families if "openmetrics" in accept else text_string_to_metric_families
        )
        self.types: dict[str, str] = {}
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in parse(self.text):
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def total(self, name: str, **labels: str) -> float:
        """Returns the sum of the samples with a name and at least these labels; 0 if there are none."""
        return sum(
            value for (sample, having), value in self.samples.items() if sample == name and having >= labels.items()
        )

    def labels(self, name: str) -> list[dict[str, str]]:
        """Returns the labels of the samples with a name."""
        return [dict(having) for sample, having in self.samples if sample == name]

    def counters(self) -> dict[tuple[str, Labels], float]:
        """Returns the samples that must never fall."""
        monotonous = ("_total", "_bucket", "_sum", "_count")
        return {key: value for key, value in self.samples.items() if key[0].endswith(monotonous)}
