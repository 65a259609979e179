"""POST /invocations answers like MLflow's server: status, body to the byte, content type, `error_code`.

Two differences are intended. A payload that makes MLflow's server crash (500) is the caller's fault here (400), and
errors repeat no part of the payload.
"""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import zoo
from tests.support.depth import examples, sample
from tests.support.payloads import CONTENT_TYPES, CSV, TEXTS, payloads

PARQUET = "application/vnd.apache.parquet"


@pytest.fixture
def agree(pair, urls):
    """Returns a function that sends a payload to both servers and compares the answers."""
    session = requests.Session()

    def compare(name, payload, content_type="application/json"):
        oracle, _, _ = pair(name)
        body = payload.encode() if isinstance(payload, str) else payload
        response = session.post(urls[name], data=body, headers={"content-type": content_type.strip()}, timeout=60)
        status, text = oracle(payload, content_type.strip())
        shown = (payload[:300], text[:300], response.text[:300])
        assert response.status_code == (400 if status == 500 else status), shown
        assert response.headers["content-type"] == (
            "text/plain; charset=utf-8" if status == 415 else "application/json"
        )
        if status == 200:
            assert response.text == text, shown
        elif status == 400:
            assert response.json()["error_code"] == json.loads(text)["error_code"], shown
        return status

    yield compare
    session.close()


@pytest.mark.parametrize("name", sample(zoo.NAMES, share=3))
def test_json_and_csv(agree, name):
    """Malformed, odd and plain payloads of every format have equal answers from every model."""
    seen = {agree(name, text) for text in sample(TEXTS, name)}
    seen |= {agree(name, text, "text/csv") for text in sample(CSV, name)}
    assert {400, 500} & seen


@pytest.mark.parametrize("name", sample(zoo.NAMES, share=3))
def test_generated_payloads(agree, pair, name):
    """Payloads that hypothesis generates from a signature have equal answers."""
    schema = pair(name)[2].metadata.get_input_schema()

    @settings(max_examples=examples(40), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        agree(name, data.draw(payloads(schema)))

    check()


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_content_types(agree, content_type):
    """A refused content type gets a 415 in plain text, as in MLflow."""
    for text in ('{"dataframe_records": [{"a": 1, "b": 2}]}', "a,b\n1,2\n"):
        agree("numbers", text, content_type)


@pytest.mark.parametrize("name", ["numbers", "every_column", "no_signature", "tensors"])
def test_parquet(agree, name):
    """Parquet is binary, so only HTTP accepts it."""
    table = io.BytesIO()
    pd.DataFrame({"a": [1.0, 2.5], "b": [2.0, None]}).to_parquet(table)
    agree(name, table.getvalue(), PARQUET)
    agree(name, table.getvalue()[:-5], PARQUET)
    agree(name, b"", PARQUET)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_encodings(agree, encoding):
    """JSON may be UTF-16 and UTF-32 (`json.loads`), CSV is UTF-8; other bytes are refused."""
    assert agree("numbers", '{"dataframe_records": [{"a": 1, "b": 2}]}'.encode(encoding))
    agree("every_column", '{"dataframe_records": [{"string": "é"}]}'.encode(encoding))
    agree("no_signature", "é,b\n1,2\n".encode(encoding), "text/csv")


def test_thirty_two_concurrent_calls(agree):
    """Concurrent calls get the same answers as single calls."""
    texts = sample(text for text in TEXTS if len(text) < 10_000)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda text: agree("every_column", text), texts * 5))
