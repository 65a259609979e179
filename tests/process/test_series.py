"""The number of series of a server's metrics, which docs/scaling.md multiplies by the number of servers."""

import re
from typing import Any

import pytest
import requests
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.servers import ROOT, Caller, ready_address, start_server

pytestmark = pytest.mark.slow

PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "scaling.md").read_text())
HealthStub: Any = health_pb2_grpc.HealthStub


def shown(pattern: str) -> list[int]:
    """Returns the numbers in a sentence of the page."""
    (found,) = re.findall(pattern, PAGE)
    return [int(number.replace(",", "")) for number in (found if isinstance(found, tuple) else (found,))]


def test_the_page_has_the_series_of_a_server(iris_path):
    """The example model has as many series as the page says, before and after calls, and the table multiplies them."""
    with start_server("-m", str(iris_path), "--http-port", "0") as process:
        address, url = ready_address(process), process.wait_for(r"HTTP on (http://\S+:\d+)")[1]

        def scrape() -> tuple[int, int]:
            text = requests.get(f"{url}/metrics", timeout=30).text
            return len(re.findall(r"^[a-z]", text, re.MULTILINE)), round(len(text) / 1000)

        before, before_kb = scrape()
        assert [before, before_kb] == shown(r"has (\d+) series in a scrape of (\d+) kB before its first call")
        of_route = scrape()[0] - before
        example = (iris_path / "serving_input_example.json").read_text()
        with Caller(address) as call:
            call(example)
            of_rpc = scrape()[0] - before - of_route
            headers = {"content-type": "application/json"}
            assert requests.post(f"{url}/invocations", example, headers=headers, timeout=30).status_code == 200
            HealthStub(call.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        after, after_kb = scrape()
        assert [of_rpc, of_route] == shown(
            r"adds (\d+) series with its first call, an HTTP route (\d+) for each status"
        )
        assert after == shown(r"The table counts (\d+) series")[0]
        assert after_kb == pytest.approx(shown(r"series, in (\d+) kB: those after calls of `predict`")[0], abs=2)
        text = requests.get(f"{url}/metrics", timeout=30).text
        of_model = len(re.findall(r'^[a-z_]+\{.*model="iris"', text, re.MULTILINE))
        assert of_model == pytest.approx(shown(r"and a further model about (\d+)")[0], abs=5)
    rows = re.findall(r"\| (\d+)(?: \([\d.]+\)), two for|\| (\d+) \([\d.]+\) \|", PAGE)
    pods = [int(first or second) for first, second in rows]
    series = [int(number.replace(",", "")) for number in re.findall(r"\| ([\d,]+) \| \d+ s \|", PAGE)]
    assert len(pods) == len(series) == 4
    assert series == [pytest.approx(count * after, rel=0.03) for count in pods]
