"""Names of variables, functions and classes are terms of the field instead of everyday words."""

import pytest

from tests.support.servers import ROOT
from tests.support.syntax import summary_of

pytestmark = pytest.mark.slow

VAGUE = frozenset(
    (
        "each", "found", "made", "given", "known", "told", "said", "asked", "place", "part", "whole", "kind", "words",
        "some", "rest", "other", "one", "own", "wanted", "most", "least",
    )
)  # fmt: skip
"""Words that do not describe a value."""

MAX_PER_THOUSAND = 10.0

TREES = {
    "server": ROOT / "mlflow_grpc",
    "client": ROOT / "client" / "mlflow_grpc_client",
    "protocol": ROOT / "client" / "_mlflow_grpc_protocol",
    "benchmarks": ROOT / "benchmarks",
    "examples": ROOT / "examples",
    "tests": ROOT / "tests",
}


@pytest.mark.parametrize("tree", TREES)
def test_vague_names_are_rare(tree):
    """At most ten in a thousand names are vague words, in each part of the repository."""
    names = {path: summary_of(path).names for path in sorted(TREES[tree].rglob("*.py"))}
    vague = {
        str(path.relative_to(ROOT)): count
        for path, used in names.items()
        if (count := sum(name.strip("_").lower() in VAGUE for name in used))
    }
    total = sum(map(len, names.values()))
    rate = 1000 * sum(vague.values()) / total
    worst = sorted(vague.items(), key=lambda item: -item[1])[:10]
    assert rate <= MAX_PER_THOUSAND, f"{rate:.1f} of 1,000 names are vague, most of them in {worst}"
