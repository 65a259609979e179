"""http/request_body.py: what arriving bodies take in memory and of the event loop's time."""

import asyncio
import gzip
import tracemalloc

import pytest

from mlflow_grpc.errors import InvalidPayload, PayloadTooLarge
from mlflow_grpc.http.request_body import INFLATED_BYTES, body_of

MIB = 1024 * 1024


class Room:
    """Counts what is kept."""

    def __init__(self):
        self.steps = []

    def take(self, size):
        self.steps.append(size)


def read(encoding, *pieces, max_bytes=100 * MIB):
    """Returns the body of these pieces, and the room that it took."""
    room = Room()

    async def add_all():
        body = body_of(encoding, max_bytes, room.take)
        for piece in pieces:
            await body.add(piece)
        return body.complete()

    return asyncio.run(add_all()), room


def test_inflating_gives_the_event_loop_a_turn_after_64_kb():
    """Another task runs as often as there are steps, and no step keeps more than 64 KB."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def check():
        body = body_of("gzip", 100 * MIB, room.take)
        counting = asyncio.create_task(count())
        await body.add(gzip.compress(bytes(8 * MIB)))
        counting.cancel()
        assert len(body.complete()) == 8 * MIB

    room = Room()
    asyncio.run(check())
    assert max(room.steps) <= INFLATED_BYTES
    assert sum(room.steps) == 8 * MIB
    assert turns >= 8 * MIB // INFLATED_BYTES


def test_tiny_pieces_take_no_more_memory_than_a_large_one():
    """A body of 200,000 pieces of two bytes takes less than a megabyte while it arrives."""

    async def peak():
        body = body_of(None, MIB, lambda _: None)
        tracemalloc.start()
        for number in range(200_000):
            await body.add(bytes([number % 256, 1]))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak_bytes, body.complete()

    peak_bytes, content = asyncio.run(peak())
    assert len(content) == 400_000
    assert peak_bytes < MIB


def test_nothing_is_kept_beyond_the_limit():
    """Neither of a plain body nor of one that is inflated: a bomb of 100 MB takes a megabyte."""
    for encoding, piece in ((None, bytes(2 * MIB)), ("gzip", gzip.compress(bytes(100 * MIB)))):
        room = Room()
        with pytest.raises(PayloadTooLarge):
            asyncio.run(body_of(encoding, MIB, room.take).add(piece))
        assert sum(room.steps) <= MIB


@pytest.mark.parametrize("size", [1, 7, 16_384, 65_536, 10_000_000])
def test_pieces_of_any_size_are_the_same_body(size):
    """Members of gzip may be cut anywhere, and there may be thousands of them in one piece."""
    expected = bytes(range(256)) * 4000
    data = b"".join(gzip.compress(expected[start : start + 512]) for start in range(0, len(expected), 512))
    if size == 1:
        expected, data = expected[:1024], b"".join(gzip.compress(expected[start : start + 512]) for start in (0, 512))
    body, room = read("GZIP", *[data[start : start + size] for start in range(0, len(data), size)])
    assert body == expected
    assert sum(room.steps) == len(expected)


def test_what_is_not_gzip():
    """Other bytes, and a stream without its end, are the caller's fault."""
    whole = gzip.compress(b"ab" * 1000)
    for data in (b"ab", whole[:-1], whole + b"ab", b""):
        with pytest.raises(InvalidPayload):
            read("gzip", data)
