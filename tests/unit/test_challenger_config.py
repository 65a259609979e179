"""The keys challenger and cache of a model: what they accept, and which calls belong to a challenger."""

import pytest
import yaml

from mlflow_grpc import config
from mlflow_grpc.challenger_config import Challenger
from mlflow_grpc.config import ChallengerModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.rollout.configuration import tracked
from mlflow_grpc.settings import Settings


def read(tmp_path, **model):
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": [model]}))
    return config.read(path)


def test_a_challenger_is_a_model_behind_its_champion(tmp_path):
    """It has the options of its champion, a name of its own and no endpoint."""
    challenger = {"uri": "models:/churn@challenger", "share": "5%", "sticky_by": "User-Id", "version": "b"}
    more = {"track": "30s", "cache": {"rows": 10}, "unknown_columns": "refuse"}
    models = read(tmp_path, uri="models:/churn@champion", challenger=challenger, **more).models
    champion, behind = models
    assert champion.challenger == Challenger(
        uri="models:/churn@challenger", share=0.05, sticky_by="user-id", version="b"
    )
    assert isinstance(behind, ChallengerModel)
    assert (behind.name, behind.version, behind.uri) == ("churn-challenger", "b", "models:/churn@challenger")
    assert (behind.endpoint, behind.challenger, behind.track) == (False, None, 30)
    assert (behind.unknown_columns, behind.cache) == (champion.unknown_columns, champion.cache)


@pytest.mark.parametrize("share", ["50 %", 0.5, "0.5"])
def test_a_share_is_a_percentage_or_a_number(tmp_path, share):
    """Both mean the same."""
    champion, _ = read(tmp_path, uri="m", challenger={"uri": "c", "share": share}).models
    assert champion.challenger is not None
    assert champion.challenger.share == 0.5


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"challenger": {"uri": "c"}}, "challenger: share is missing: say which share of the calls it answers"),
        ({"challenger": {"uri": "c", "share": 5}}, "challenger.share: has to be a percentage such as 5%"),
        ({"challenger": {"uri": "c", "share": "0%"}}, "challenger.share: has to be a percentage such as 5%"),
        ({"challenger": {"uri": "c", "share": "x%"}}, "challenger.share: input should be a valid number"),
        ({"challenger": {"uri": "c", "shar": 1}}, "challenger.shar: there is no such key; did you mean share"),
        ({"challenger": {"uri": "c", "share": 1, "max_cpu": 1}}, "max_cpu limits a shadow: set shadow: true"),
        ({"challenger": {"uri": "c", "share": 1, "sticky_by": "a b"}}, "has to be a metadata key with a text"),
        ({"challenger": {"uri": "c", "share": 1, "sticky_by": "a-bin"}}, "has to be a metadata key with a text"),
        ({"challenger": {"uri": "c", "share": 1}, "endpoint": False}, "challenger is for MLflow models"),
        ({"cache": {"rows": 0}}, "cache.rows: input should be greater than or equal to 1"),
        ({"cache": {"row": 1}}, "cache.row: there is no such key; did you mean rows"),
        ({"cache": {}}, "cache.rows: is missing"),
    ],
)
def test_invalid_keys_are_refused(tmp_path, model, message):
    """The error has the path of the key, and says what to do."""
    with pytest.raises(StartError, match=message):
        read(tmp_path, uri="m", **model)


def test_a_class_has_no_challenger(tmp_path):
    """Only MLflow models have signatures that can be compared."""
    with pytest.raises(StartError, match="challenger is for MLflow models"):
        read(tmp_path, class_path="package.Class", challenger={"uri": "c", "share": 1})


def test_names_of_challengers_are_names(tmp_path):
    """A name that another model has is refused, and one that is too long is shortened."""
    path = tmp_path / "models.yaml"
    models = [{"uri": "m", "challenger": {"uri": "c", "shadow": True}}, {"uri": "n", "name": "m-challenger"}]
    path.write_text(yaml.safe_dump({"models": models}))
    with pytest.raises(StartError, match="several models are called m-challenger"):
        config.read(path)
    _, behind = read(tmp_path, uri="m", name="x" * 128, challenger={"uri": "c", "shadow": True}).models
    assert behind.name is not None
    assert len(behind.name) == 128


def test_the_flag_of_tracking_is_for_challengers_too(tmp_path):
    """A challenger with an alias is followed, even if its champion always means the same version."""
    configuration = read(tmp_path, uri="models:/m/1", challenger={"uri": "models:/m@c", "shadow": True})
    models = tracked(configuration, Settings(config=tmp_path / "models.yaml", track_s=5)).models
    assert [model.track for model in models] == [None, 5]


def test_groups_are_of_the_share_and_grow():
    """About the share of keys is selected, and a key that is selected stays so with a larger share."""
    keys = [f"user-{number}" for number in range(10_000)]
    small, large = (Challenger(uri="c", share=share) for share in (0.05, 0.2))
    selected = {key for key in keys if small.selects(key)}
    assert 400 < len(selected) < 600
    assert selected < {key for key in keys if large.selects(key)}
    assert all(Challenger(uri="c", shadow=True).selects(key) for key in keys[:10])
