"""forks.py: child processes that start as copies of this process."""

import os
import signal

import numpy as np

from mlflow_grpc.forks import Fork, seed_again


def child(act, held_back=()):
    """Starts a child that runs a function and ends with its exit code."""
    process = Fork.start(held_back)
    if process is None:
        code = 99
        try:
            code = act()
        finally:
            os._exit(code)
    return process


def test_exit_codes_are_known():
    """The exit code of a child is known; a signal that ended it is negative."""
    ended = child(lambda: 7)
    ended.join()
    assert ended.exitcode == 7
    held, release = os.pipe()
    waiting = child(lambda: os.read(held, 1)[0])
    assert waiting.exitcode is None
    waiting.kill()
    waiting.join()
    waiting.kill()
    assert waiting.exitcode == -signal.SIGKILL
    for end in (held, release):
        os.close(end)


def test_signals_wait_until_the_child_unblocks_them():
    """Signals stay blocked in the child until it unblocks them, and the parent's mask is restored."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    held = child(lambda: int(signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())), [signal.SIGUSR1])
    held.join()
    assert held.exitcode == 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_children_draw_different_random_numbers():
    """Each child draws different random numbers from numpy, whose generator is copied with the process."""
    drawn = []
    for _ in range(2):
        reader, writer = os.pipe()

        def draw(writer=writer):
            seed_again()
            return 0 if os.write(writer, np.random.bytes(8)) == 8 else 1

        child(draw).join()
        drawn.append(os.read(reader, 8))
        for end in (reader, writer):
            os.close(end)
    assert drawn[0] != drawn[1]
