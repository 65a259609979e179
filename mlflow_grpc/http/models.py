"""The route GET /models: the models of the server as JSON.

Rule of this module: it writes the answer of the service mlflow_grpc.v1.Models as protobuf's JSON, with the field names
of mlflow_grpc/v1/models.proto. It decides nothing about models.
"""

from collections.abc import Callable

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route


def routes(describe_models: Callable[[], Message]) -> list[BaseRoute]:
    """Returns the route.

    Args:
        describe_models: Returns the ListModelsResponse with all models.

    """

    async def list_models(_: Request) -> JSONResponse:
        listed = MessageToDict(
            describe_models(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return JSONResponse(listed, headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})

    return [Route("/models", list_models)]
