"""The shared timestamps.py: times are exact to the nanosecond, or an error."""

import datetime

import numpy as np
import pandas as pd
import pytest
from _mlflow_grpc_protocol.timestamps import seconds_and_nanos

UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.datetime(1970, 1, 1), (0, 0)),
        (datetime.datetime(1969, 12, 31, 23, 59, 59, 999999), (-1, 999_999_000)),
        (datetime.datetime(1970, 1, 1, 5, 30, 0, 1, EAST), (0, 1000)),
        (datetime.datetime(1, 1, 1), (-62_135_596_800, 0)),
        (datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), (253_402_300_799, 999_999_000)),
        (pd.Timestamp("2020-01-01T00:00:00.123456789"), (1_577_836_800, 123_456_789)),
        (pd.Timestamp("2020-01-01T05:30:00.000000001+05:30"), (1_577_836_800, 1)),
        (pd.Timestamp("1900-01-01T00:00:00.000000001"), (-2_208_988_800, 1)),
        (pd.Timestamp.min, (-9_223_372_037, 145_224_193)),
        (pd.Timestamp.min.tz_localize("UTC"), (-9_223_372_037, 145_224_193)),
        (pd.Timestamp("1677-09-21T00:12:43.999999999"), (-9_223_372_037, 999_999_999)),
        (pd.Timestamp.max, (9_223_372_036, 854_775_807)),
        (pd.Timestamp("3000-01-01").as_unit("s"), (32_503_680_000, 0)),
        (np.datetime64("3000-01-01"), (32_503_680_000, 0)),
        (np.datetime64("3000-01-01T00:00:00", "s"), (32_503_680_000, 0)),
        (np.datetime64("1000-01-01T00:00:00.000001", "us"), (-30_610_224_000, 1000)),
        (np.datetime64(-1, "ns"), (-1, 999_999_999)),
        (np.datetime64(1, "M"), (2_678_400, 0)),
        (np.datetime64(3, ("ms", 100)), (0, 300_000_000)),
        ("2020-01-01T00:00:00.123456789", (1_577_836_800, 123_456_789)),
        ("2020-01-01T05:30:00.5+05:30", (1_577_836_800, 500_000_000)),
        ("2020-01-01 00:00:00Z", (1_577_836_800, 0)),
        ("2020-01-01", (1_577_836_800, 0)),
        ("20200101T000000", (1_577_836_800, 0)),
        ("20200101T000000,123456789", (1_577_836_800, 123_456_789)),
        ("2020-01-01T00:00.1234567", (1_577_836_800, 123_456_700)),
    ],
)
def test_valid_times_are_exact(value, expected):
    """Times of every library, unit and zone are exact."""
    assert seconds_and_nanos(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("NaT", "ns"), pd.NaT, np.datetime64("10000-01-01"), np.datetime64("0000-12-31"), np.datetime64(1, "ps"),
        "yesterday", "2020-13-01", "2020-01-01+02:00", "20200101-0200", "2020-01-01.5", "2020-01-01T00:00:00.1234567891", "", 5, datetime.date(2020, 1, 1), None,
    ],
)  # fmt: skip
def test_invalid_times_are_errors(value):
    """A value that is not a time, or outside the range of the message, is an error."""
    with pytest.raises((TypeError, ValueError)):
        seconds_and_nanos(value)
