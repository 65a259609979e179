"""The same calls to a real `mlflow models serve`, and to a real process of this server over gRPC and HTTP.

Two differences over HTTP are intended. A payload that makes MLflow's server crash (500) is the caller's fault here
(400), and the messages of errors differ, because they repeat no part of the payload.
"""

import http.client
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

from tests.support import depth, zoo
from tests.support.depth import examples, sample
from tests.support.payloads import CONTENT_TYPES, CSV, TEXTS, payloads
from tests.support.servers import Caller, post, ready_address, start_mlflow_server, start_server

JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
IN_FLIGHT = 32
FIRST, SECOND = "every_column", "params"
OTHERS = [name for name in zoo.NAMES if name not in (FIRST, SECOND)]

Request = tuple[bytes, str | None]
"""Body and content type of a request; None for a request without a content type."""


@dataclass
class Servers:
    """One model in a process of each server."""

    model: str
    schema: Any
    url: str
    """Invocations of MLflow's server."""
    http_url: str
    """Address of this server's HTTP port."""
    call: Caller


@pytest.fixture(
    scope="module", params=[FIRST, SECOND, *(pytest.param(name, marks=pytest.mark.deep) for name in OTHERS)]
)
def both(request, zoo_path):
    """A model served by both, each in its own process; in a deep run, the first model by the commands that users type."""
    path = zoo_path(request.param)
    fresh = depth.is_deep and request.param == FIRST
    with start_server("-m", str(path), "--http-port", "0", fresh=fresh) as ours:
        theirs, url = start_mlflow_server(path, fresh=fresh)
        schema = mlflow.models.Model.load(str(path)).get_input_schema()
        with theirs, Caller(ready_address(ours)) as call:
            http_url = ours.wait_for(r"HTTP on (http://127\.0\.0\.1:\d+);")[1]
            yield Servers(request.param, schema, url, http_url, call)


def agree(both, text, content_type):
    status, body = post(both.url, text, content_type.strip())
    outcome = both.call.outcome(text, mlflow_content_type=content_type)
    if status == 200:
        assert outcome == ("OK", body), text[:300]
    else:
        assert outcome[0] == "INVALID_ARGUMENT", (status, body[:300], outcome, text[:300])


def test_json(both):
    """Every payload of the table gets the body of MLflow's server, or INVALID_ARGUMENT if that fails."""
    rows = [{**{name: 1 for name, _ in zoo.COLUMNS}, "binary": "AQID", "datetime": "2021-01-01"}]
    for text in [*sample(TEXTS, "json"), json.dumps({"dataframe_records": rows}), json.dumps({"inputs": [[1, 2.5]]})]:
        agree(both, text, JSON)


def test_csv_and_content_types(both):
    """CSV and every content type get the same answers."""
    for text in sample(CSV):
        agree(both, text, "text/csv")
    for content_type in CONTENT_TYPES:
        agree(both, CSV[0], content_type)


def test_concurrent_calls(both):
    """Both servers give the same answers with 32 calls in flight."""
    texts = sample(text for text in TEXTS if len(text) < 1000)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(lambda text: agree(both, text, JSON), texts))


def sent(session: requests.Session, url: str, request: Request) -> tuple[int, str | None, bytes]:
    """Returns status, content type and body of the response to a request."""
    body, content_type = request
    headers = {} if content_type is None else {"content-type": content_type}
    response = session.post(url, data=body, headers=headers, timeout=60)
    return response.status_code, response.headers.get("content-type"), response.content


def tables() -> list[bytes]:
    """Returns Parquet files that fit some of the models, and one that is cut off."""
    at = pd.Timestamp("2021-01-01")
    columns = {"boolean": [True], "integer": [1], "long": [2], "float": [1.5], "double": [2.5], "string": ["é"]}
    frames = [
        pd.DataFrame({"a": [1.0, 2.5], "b": [2.0, None]}),
        pd.DataFrame({**columns, "binary": [b"\1\2"], "datetime": [at]}).astype(
            {"integer": "int32", "float": "float32"}
        ),
    ]
    files = []
    for frame in frames:
        file = io.BytesIO()
        frame.to_parquet(file)
        files.append(file.getvalue())
    return [*files, files[0][:-5], b""]


def generated(schema: Any) -> list[str]:
    """Returns payloads made from a signature; always the same."""
    texts = []

    @settings(
        max_examples=examples(140),
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(payloads(schema))
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    return texts


def tensors(schema: Any) -> list[str]:
    """Returns a payload that fits a signature of tensors, which generated payloads seldom do."""
    if schema is None or not schema.is_tensor_spec():
        return []
    values = {
        spec.name: np.full([2 if size == -1 else size for size in spec.shape], 1).astype(spec.type).tolist()
        for spec in schema.inputs
    }
    return [json.dumps({"inputs": values if schema.has_input_names() else values[None]}, default=bytes.decode)]


@pytest.fixture(scope="module")
def expected(both) -> list[tuple[Request, tuple[int, str | None, bytes]]]:
    """Requests of every format, with the responses of MLflow's server to them, one by one."""
    rows = [{**{name: 1 for name, _ in zoo.COLUMNS}, "binary": "AQID", "datetime": "2021-01-01", "string": "é"}]
    values = {"temperature": 3.5, "top_k": 7, "stops": ["a", "b"], "since": "2021-01-01T01:02:03"}
    texts = [
        *sample(TEXTS, both.model),
        *generated(both.schema),
        *tensors(both.schema),
        json.dumps({"dataframe_records": rows}),
        json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1.5]]}, "params": values}),
        json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1.5]]}, "params": {"top_k": "many"}}),
        json.dumps({"inputs": [[1, 2.5]]}),
    ]
    asked: list[Request] = [(text.encode(), JSON) for text in texts]
    asked += [(text.encode(), "text/csv") for text in sample(CSV, both.model)]
    asked += [
        (text, content_type.strip()) for text in (texts[-4].encode(), CSV[0].encode()) for content_type in CONTENT_TYPES
    ]
    asked += [(table, PARQUET) for table in tables()]
    asked += [(json.dumps({"inputs": [1.5]}).encode(encoding), JSON) for encoding in ("utf-16", "utf-8-sig")]
    asked += [(b"\xff\xfe\xfd", content_type) for content_type in (JSON, "text/csv", PARQUET)]
    responses = []
    for request in asked:
        with requests.Session() as session:  # MLflow's server closes the connection after a crash.
            responses.append((request, sent(session, both.url, request)))
    return responses


def assert_like_mlflow(request: Request, response: Any, theirs: Any) -> None:
    """Compares a response of this server with that of MLflow's server."""
    (status, content_type, body), (their_status, their_type, their_body) = response, theirs
    shown = (request[1], request[0][:300], their_body[:300], body[:300])
    if their_status == 500:
        assert (status, content_type) == (400, JSON), shown
        assert json.loads(body)["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE"), shown
        return
    assert (status, content_type) == (their_status, their_type), shown
    if status == 200:
        assert body == their_body, shown
    elif status != 415:  # Its body is plain text.
        assert json.loads(body)["error_code"] == json.loads(their_body)["error_code"], shown


def test_http(both, expected):
    """JSON, CSV, Parquet, params and bad requests get the status, content type and body or `error_code` of MLflow."""
    with requests.Session() as session:
        for request, theirs in expected:
            assert_like_mlflow(request, sent(session, f"{both.http_url}/invocations", request), theirs)
    assert {200, 400, 415} <= {theirs[0] for _, theirs in expected}


def test_http_with_32_in_flight(both, expected):
    """32 calls at a time get the responses that MLflow's server gives one by one, several times over."""
    with ThreadPoolExecutor(IN_FLIGHT) as pool, requests.Session() as session:
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=IN_FLIGHT))
        tasks = [
            (request, theirs, pool.submit(sent, session, f"{both.http_url}/invocations", request))
            for request, theirs in expected * 3
        ]
        for request, theirs, task in tasks:
            assert_like_mlflow(request, task.result(), theirs)


def test_no_content_type(both):
    """A body without a content type, which crashes MLflow's server, is JSON."""
    with requests.Session() as session:
        as_json = sent(session, both.url, (b"{}", JSON))
        assert sent(session, both.url, (b"{}", None))[0] == 500
        assert_like_mlflow((b"{}", None), sent(session, f"{both.http_url}/invocations", (b"{}", None)), as_json)


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_routes_of_the_server(both, path):
    """/ping, /health and /version have the status, content type and body of MLflow's server."""
    responses = [
        requests.get(f"{url}{path}", timeout=30) for url in (both.url.removesuffix("/invocations"), both.http_url)
    ]
    theirs, ours = [
        (response.status_code, response.headers["content-type"], response.content) for response in responses
    ]
    assert ours == theirs
    assert ours[0] == 200


def test_other_methods(both):
    """A method or path that MLflow's server does not have gets the same status."""
    for method, path in (("GET", "/invocations"), ("POST", "/ping"), ("GET", "/nowhere")):
        theirs, ours = (
            requests.request(method, f"{url}{path}", timeout=30).status_code
            for url in (both.url.removesuffix("/invocations"), both.http_url)
        )
        assert ours == theirs


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invocations/"),
        ("POST", "/invocations//?a=1"),
        ("GET", "/ping/"),
        ("GET", "/health/"),
        ("GET", "/version/"),
        ("GET", "/docs/"),
        ("POST", "/ping/"),
        ("GET", "/nowhere/"),
        ("GET", "//"),
    ],
)
def test_a_slash_at_the_end_of_a_path(both, method, path):
    """The client is redirected to the path without it, as by MLflow's server, and a POST is sent again with its body."""
    body = CSV[0].encode() if method == "POST" else None
    (status, location), (our_status, our_location) = (
        (response.status_code, response.headers.get("location", "").removeprefix(url))
        for url in (both.url.removesuffix("/invocations"), both.http_url)
        for response in [
            requests.request(method, url + path, data=body, timeout=30, allow_redirects=False),
        ]
    )
    assert (our_status, our_location) == (status, location)


def test_a_redirected_call_is_answered(both):
    """Clients that follow redirects get the predictions."""
    with requests.Session() as session:
        theirs = sent(session, f"{both.url}/", (CSV[0].encode(), "text/csv"))
        assert_like_mlflow(
            (CSV[0].encode(), "text/csv"),
            sent(session, f"{both.http_url}/invocations/", (CSV[0].encode(), "text/csv")),
            theirs,
        )


def test_a_repeated_content_type(both):
    """The first header counts, as in MLflow's server."""
    answers = []
    for url in (both.url.removesuffix("/invocations"), both.http_url):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.putrequest("POST", "/invocations")
        connection.putheader("content-type", "text/html")
        connection.putheader("content-type", JSON)
        connection.putheader("content-length", "2")
        connection.endheaders(b"{}")
        response = connection.getresponse()
        answers.append((response.status, response.headers["content-type"]))
        connection.close()
    assert answers[1] == answers[0] == (415, "text/plain; charset=utf-8")
