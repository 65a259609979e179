"""The Spark block of docs/spark-and-ray.md prints the predictions of the example model."""

import re
import shutil
import sys

import pytest

from tests.support.scripts import block_with, printed_by

pytestmark = [
    pytest.mark.spark,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not shutil.which("java"), reason="needs Java, on Debian: apt-get install default-jre-headless"),
]


def test_the_page(iris_path, tmp_path):
    """Both flowers have their species beside their ids."""
    pytest.importorskip("pyspark")
    code = block_with("docs/spark-and-ray.md", "predict_udf")
    printed = printed_by(code, iris_path, tmp_path, PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    assert re.findall(r"^\| +(\d) *\| *(\w+) *\|$", printed, re.MULTILINE) == [("1", "setosa"), ("2", "virginica")]
