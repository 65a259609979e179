"""The thread that looks again and again: early when it is woken, not more often than it may, until it is stopped."""

import threading
import time

from mlflow_grpc.polling import Poller


def test_a_wake_comes_early_and_not_too_early():
    """A woken poller looks before its delay is over, and not before the minimum time; the end of the block ends it."""
    looked: list[float] = []
    again = threading.Semaphore(0)

    def look() -> float:
        looked.append(time.monotonic())
        again.release()
        return 60.0

    with Poller(look, "test", cooldown_s=0.2) as poller:
        assert again.acquire(timeout=20)
        for _ in range(5):
            poller.wake()
        assert again.acquire(timeout=20)
        assert looked[1] - looked[0] >= 0.2
    thread = next((thread for thread in threading.enumerate() if thread.name == "test"), None)
    if thread is not None:
        thread.join(20)
        assert not thread.is_alive()
    assert len(looked) == 2


def test_a_wake_delays_nothing():
    """A look that asked for another one soon gets it as soon, woken or not, and not after the minimum time of wakes."""
    again = threading.Semaphore(0)

    def look() -> float:
        again.release()
        return 0.05

    with Poller(look, "test-that-retries", cooldown_s=60.0) as poller:
        for _ in range(3):
            poller.wake()
            assert again.acquire(timeout=20)


def test_an_exception_is_logged_and_the_next_look_follows(caplog):
    """A look that fails does not end the thread."""
    again = threading.Semaphore(0)

    def look() -> float:
        again.release()
        raise RuntimeError("broken")

    with Poller(look, "test-that-fails") as poller:
        assert again.acquire(timeout=20)
        poller.wake()
        assert again.acquire(timeout=20)
    assert "test-that-fails failed, and is tried again" in caplog.text
