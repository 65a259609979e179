"""Rules of the key `access`, and the configuration file that has them."""

import re
import sys

import pytest

from mlflow_grpc import config
from mlflow_grpc.access import permits
from mlflow_grpc.access.gate import make_gate
from mlflow_grpc.access_config import AccessRule
from mlflow_grpc.choices import Service
from mlflow_grpc.distribution import install_source
from mlflow_grpc.errors import StartError
from mlflow_grpc.settings import Settings

FILE = """
models:
  - {uri: models:/churn/1}
access:
  - callers: [batch, "spiffe://example.org/ns/prod/*"]
    models: [churn, iris/2]
  - callers: ["prom*"]
    services: [metrics]
"""


def test_a_caller_may_do_what_one_of_its_rules_allows(tmp_path):
    """Patterns of callers and models, versions, services; a caller without a rule may do nothing."""
    path = tmp_path / "models.yaml"
    path.write_text(FILE)
    rules = permits.Permits(config.read(path).access)
    batch, prod, prometheus, other = (
        rules.of(name) for name in ("batch", "spiffe://example.org/ns/prod/sa/x", "prometheus", "batch2")
    )
    for permit in (batch, prod):
        allowed = [
            pair
            for pair in (("churn", "1"), ("churn", ""), ("iris", "1"), ("iris", "2"), ("churn2", "1"))
            if permit.allows_model(Service.PREDICT, *pair)
        ]
        assert allowed == [("churn", "1"), ("churn", ""), ("iris", "2")]
        assert permit.allows(Service.MODELS)
        assert not permit.allows(Service.METRICS)
    assert [service for service in Service if prometheus.allows(service)] == [Service.METRICS]
    assert not any(other.allows(service) for service in Service)
    assert rules.of("batch") is batch


def test_without_rules_every_caller_may_do_everything():
    """Without the key, a permit allows each service and model."""
    permit = permits.Permits(None).of("anyone")
    assert all(permit.allows(service) for service in Service)
    assert permit.allows_model(Service.PREDICT, "any", "1")


def test_any_number_of_callers_leaves_a_limited_number_of_permits(monkeypatch):
    """JWTs may have any subjects."""
    monkeypatch.setattr(permits, "MAX_PERMITS", 3)
    rules = permits.Permits((AccessRule(callers=("*",)),))
    assert all(rules.of(f"caller-{number}").allows(Service.PREDICT) for number in range(10))
    assert len(rules._permits) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("access: [{callers: []}]", "callers: has to have at least one entry"),
        ("access: [{models: [a]}]", "callers: is missing"),
        ("access: [{callers: [a], model: [b]}]", "did you mean models?"),
        ("access: [{callers: [a], services: [predictions]}]", "'predict'"),
        ("access: {batch: [churn]}", "access: has to be a list"),
    ],
)
def test_a_wrong_rule_is_refused(tmp_path, text, problem):
    """The error has the path of the rule and what to write."""
    path = tmp_path / "models.yaml"
    path.write_text(f"models: [{{uri: x}}]\n{text}\n")
    with pytest.raises(StartError) as caught:
        config.read(path)
    assert "access" in str(caught.value)
    assert problem in str(caught.value)


def test_rules_are_never_ignored(tmp_path):
    """A file that looks like one of rest-model-service has no ignored rules: it is read strictly."""
    path = tmp_path / "rest_config.yaml"
    text = "service_title: Churn\nmodels: [{class_path: a.b.C}]\naccess: [{callers: [batch]}]\n"
    path.write_text(text)
    (rule,) = config.read(path).access or ()
    assert rule.callers == ("batch",)
    path.write_text(f"{text}unknown: 1\n")
    with pytest.raises(StartError, match="unknown: there is no such key"):
        config.read(path)


def test_jwts_need_an_extra(monkeypatch):
    """Without PyJWT the start ends with the command that installs it; without JWTs it is not imported."""
    for name in ("mlflow_grpc.access.jwts", "mlflow_grpc.access.keys"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "jwt", None)
    settings = Settings(model_uri="x", auth_jwt_issuer="i", auth_jwt_audience="a", auth_jwt_jwks="keys.json")
    with pytest.raises(StartError, match=re.escape(f"needs the package jwt: pip install {install_source('jwt')}")):
        make_gate(settings, None)


def test_rules_need_callers():
    """Rules without a way to recognize callers would refuse everyone or nobody, so the server does not start."""
    with pytest.raises(StartError, match="set --auth-tokens, --auth-jwt-issuer or --auth-tls-san"):
        make_gate(Settings(model_uri="x"), (AccessRule(callers=("a",)),))
    assert make_gate(Settings(model_uri="x"), None) is None
