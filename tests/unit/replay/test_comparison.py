"""replay/comparison.py: when two answers are the same, and what is shown of two that differ."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_grpc.replay.comparison import SAME, difference

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_the_same_value_is_the_same_in_any_form(value):
    """Spaces, escapes and indents of JSON do not matter; NaN is the same as NaN."""
    assert difference(json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)) is SAME


@pytest.mark.parametrize(
    ("recorded", "replayed", "tolerance", "count", "first", "largest"),
    [
        ("[1, 2]", "[1, 2.0]", 0, 0, "", None),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', 0, 0, "", None),
        ('{"predictions": [1, 2]}', '{"predictions": [1, 3.5]}', 0, 1, "predictions[1]: 2 is now 3.5", 1.5),
        ("[1.0]", "[1.001]", 0.01, 0, "", None),
        ("[1.0]", "[1.1]", 0.01, 1, "[0]: 1.0 is now 1.1", pytest.approx(0.1)),
        ("[0.0]", "[1e-9]", 1e-6, 0, "", None),
        ("[1]", "[true]", 0, 1, "[0]: 1 is now true", None),
        ('["a"]', '["a", "b"]', 0, 1, '[1]: nothing is now "b"', None),
        ('{"a": {"b": null}}', '{"a": {}}', 0, 1, "a.b: null is now nothing", None),
        ("plain", "text", 0, 1, '"plain" is now "text"', None),
        ("[1, 2, 3]", "[2, 4, 3]", 0, 2, "[0]: 1 is now 2", 2),
        (None, "[1]", 0, 1, "nothing is now [1]", None),
        ('["' + "x" * 100 + '"]', '["y"]', 0, 1, '[0]: "' + "x" * 76 + '... is now "y"', None),
    ],
)
def test_differences(recorded, replayed, tolerance, count, first, largest):
    """Values that differ are counted, the first is shown with its path, and the largest difference of numbers."""
    compared = difference(recorded, replayed, tolerance)
    assert (compared.count, compared.first, compared.largest) == (count, first, largest)


def test_infinities():
    """Infinity is itself only, whatever the tolerance."""
    assert difference("[Infinity]", "[Infinity]", 0.5) is SAME
    compared = difference("[Infinity]", "[-Infinity]", 0.5)
    assert compared.largest == math.inf
    assert difference("[Infinity]", "[1e308]", 0.5).count == 1
