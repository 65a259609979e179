"""The same calls to a real `mlflow models serve` and to a real process of this server."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import zoo
from tests.support.depth import sample
from tests.support.payloads import CONTENT_TYPES, CSV, TEXTS
from tests.support.servers import Caller, post, ready_address, start_mlflow_server, start_server


@pytest.fixture(
    scope="module",
    params=["every_column", *(pytest.param(name, marks=pytest.mark.deep) for name in ("tensor", "no_signature"))],
)
def both(request, zoo_path):
    """A model served by both, each in its own process; the first model by the commands that users type."""
    path = zoo_path(request.param)
    is_first = request.param == "every_column"
    with start_server("-m", str(path), fresh=is_first) as ours:
        theirs, url = start_mlflow_server(path, fresh=is_first)
        with theirs, Caller(ready_address(ours)) as call:
            yield url, call


def agree(url, call, text, content_type):
    status, body = post(url, text, content_type.strip())
    outcome = call.outcome(text, mlflow_content_type=content_type)
    if status == 200:
        assert outcome == ("OK", body), text[:300]
    else:
        assert outcome[0] == "INVALID_ARGUMENT", (status, body[:300], outcome, text[:300])


def test_json(both):
    """Every payload of the table gets the body of MLflow's server, or INVALID_ARGUMENT if that fails."""
    url, call = both
    rows = [{**{name: 1 for name, _ in zoo.COLUMNS}, "binary": "AQID", "datetime": "2021-01-01"}]
    for text in [*sample(TEXTS, "json"), json.dumps({"dataframe_records": rows}), json.dumps({"inputs": [[1, 2.5]]})]:
        agree(url, call, text, "application/json")


def test_csv_and_content_types(both):
    """CSV and every content type get the same answers."""
    url, call = both
    for text in sample(CSV):
        agree(url, call, text, "text/csv")
    for content_type in CONTENT_TYPES:
        agree(url, call, CSV[0], content_type)


def test_concurrent_calls(both):
    """With 32 calls in flight, both give the same answers."""
    url, call = both
    texts = sample(text for text in TEXTS if len(text) < 1000)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda text: agree(url, call, text, "application/json"), texts))
