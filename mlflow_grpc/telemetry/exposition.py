"""The text formats that Prometheus reads: its own format 0.0.4, and OpenMetrics 1.0.

Rule of this module: it writes metric families. Sources: https://prometheus.io/docs/instrumenting/exposition_formats/
and https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate

from mlflow_grpc.telemetry.instruments import Gauge, Histogram

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = Callable[[], str | None]
"""Returns the labels of a series, as `labels` writes them; None while the series is not shown."""

Sample = Callable[[], float]

Shown = Callable[[], Iterator[tuple[str, Histogram]]]
"""Yields the labels and the histogram of those series that are shown."""


class Kind(StrEnum):
    """Type of a family. The values are its names in both formats, except that the text format uses gauge for info."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


def labels(**values: str) -> str:
    """Writes labels without their braces, such as `model="iris",version="3"`."""
    return ",".join(f'{name}="{_escape(value)}"' for name, value in values.items())


@dataclass
class Family:
    """The series of one metric."""

    name: str
    """Name without the suffix of a counter (`_total`) or an info (`_info`)."""
    type: Kind
    help: str
    series: list[tuple[Labels, Sample | Histogram]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    """Functions that yield further series, for a family of which few series are shown."""

    def add(self, series_labels: Labels | str, source: Sample | Histogram) -> None:
        """Adds a series.

        Args:
            series_labels: Its labels, or a function that returns them.
            source: Returns its value; a histogram has its own buckets.
        """
        self.series.append((_constant(series_labels) if isinstance(series_labels, str) else series_labels, source))

    def add_gauge(self, series_labels: Labels | str, gauge: Gauge) -> Gauge:
        """Adds the sum of a gauge over all workers, and returns the gauge."""
        self.add(series_labels, gauge.total)
        return gauge

    def add_histogram(self, series_labels: Labels | str, histogram: Histogram) -> Histogram:
        """Adds a histogram and returns it."""
        self.add(series_labels, histogram)
        return histogram

    def add_shown(self, series: Shown) -> None:
        """Adds a function that yields histograms, after all series that are added by themselves."""
        self.shown.append(series)

    def text(self, *, is_open_metrics: bool) -> Iterator[str]:
        """Yields the lines of the family, one series at a time; an empty string for a series that is not shown."""
        header = self._header(is_open_metrics=is_open_metrics)
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.type, "")
        for series_labels, source in self.series:
            text = series_labels()
            if text is None:
                yield ""
                continue
            if isinstance(source, Histogram):
                yield header + _histogram(self.name, text, source)
            else:
                yield f"{header}{self.name}{suffix}{_braces(text)} {_number(source())}\n"
            header = ""
        for shown in self.shown:
            yield ""
            for text, histogram in shown():
                yield header + _histogram(self.name, text, histogram)
                header = ""

    def _header(self, *, is_open_metrics: bool) -> str:
        name, type_name = self.name, str(self.type)
        if not is_open_metrics:
            name += {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.type, "")
            type_name = "gauge" if self.type is Kind.INFO else type_name
        unit = next((unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}")), "")
        unit_line = f"# UNIT {name} {unit}\n" if unit and is_open_metrics else ""
        return f"# HELP {name} {_escape(self.help)}\n# TYPE {name} {type_name}\n{unit_line}"


def _histogram(name: str, text: str, histogram: Histogram) -> str:
    counts, total = histogram.totals()
    prefix = f"{name}_bucket{{{text},le=" if text else f"{name}_bucket{{le="
    counted = list(accumulate(counts))
    bounds = [*map(repr, histogram.bounds), "+Inf"]
    lines = [f'{prefix}"{bound}"}} {count:.0f}' for bound, count in zip(bounds, counted, strict=True)]
    braces = _braces(text)
    lines += [f"{name}_sum{braces} {_number(total)}", f"{name}_count{braces} {counted[-1]:.0f}\n"]
    return "\n".join(lines)


def _constant(text: str) -> Labels:
    return lambda: text


def _braces(text: str) -> str:
    return f"{{{text}}}" if text else ""


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
