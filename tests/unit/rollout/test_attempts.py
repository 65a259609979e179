"""Pauses between attempts to serve a version."""

import pytest

from mlflow_grpc.rollout.attempts import MAX_PAUSE_S, Attempts


def test_pauses_grow_for_the_same_version():
    """Each failure doubles the pause, up to a maximum; pauses are spread by a fifth."""
    attempts, now = Attempts(60.0), 1000.0
    for expected_s in (60, 120, 240, 480, 960, 1920, MAX_PAUSE_S, MAX_PAUSE_S):
        assert attempts.may_try("3", now)
        pause_s = attempts.failed("3", now)
        assert pause_s == pytest.approx(expected_s, rel=0.21)
        assert not attempts.may_try("3", now + pause_s - 0.1)
        now += pause_s


def test_another_version_is_tried_at_once():
    """A failure says nothing about another version, whose own pauses start short."""
    attempts = Attempts(60.0)
    for _ in range(5):
        attempts.failed("3", 0.0)
    assert attempts.may_try("4", 0.0)
    assert attempts.failed("4", 0.0) <= 72
    assert attempts.may_try("3", 0.0)


def test_a_success_ends_the_pauses():
    """A version that failed, and was not named meanwhile, is tried at once when it is named again."""
    attempts = Attempts(60.0)
    attempts.failed("3", 0.0)
    attempts.clear()
    assert attempts.may_try("3", 0.0)
    assert attempts.failed("3", 0.0) <= 72
