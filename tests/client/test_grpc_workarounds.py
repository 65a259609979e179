"""Workarounds for bugs in grpcio that are still needed. If a test here fails, remove the workaround that it names."""

import asyncio
import itertools
from typing import Any

import grpc


def test_grpc_aio_replaces_the_status_of_a_stream(ending_server):
    """If this fails, grpc#36066 is fixed: remove `keep_status`."""
    address, status = ending_server
    status.append(grpc.StatusCode.RESOURCE_EXHAUSTED)

    async def codes(streams: int) -> set[grpc.StatusCode]:
        seen = set()
        async with grpc.aio.insecure_channel(address) as channel:
            for _ in range(streams):
                method: Any = channel.stream_stream("/any/method")
                call = method(itertools.repeat(b"a" * 1000))
                await call.read()
                try:
                    await call.read()
                except grpc.RpcError as error:
                    seen.add(error.code())
                if grpc.StatusCode.INTERNAL in seen:
                    break
        return seen

    assert grpc.StatusCode.INTERNAL in asyncio.run(codes(streams=200))
