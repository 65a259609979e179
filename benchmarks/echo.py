"""A bare grpc.aio server that returns its input: the upper limit for a gRPC server in Python."""

import sys
from typing import Any

import grpc
import uvloop


async def echo(request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
    """Returns the request unchanged."""
    return request


async def serve(port: int) -> None:
    """Serves /MLflow/predict until the process is killed."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"predict": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("MLflow", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
