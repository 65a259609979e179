"""Offers a served model to browsers over a WebSocket: each message is a flower as JSON, each answer its species.

    python bridge.py

MODEL_ADDRESS is the address of the model's server, localhost:50051 by default. PORT is this program's own, 8765.
"""

import asyncio
import json
import os

from mlflow_grpc_client import AsyncClient, AsyncTypedModel, PredictError
from websockets.asyncio.server import ServerConnection, serve

ADDRESS = os.environ.get("MODEL_ADDRESS", "localhost:50051")
PORT = int(os.environ.get("PORT", "8765"))


async def answer(model: AsyncTypedModel, message: str | bytes) -> dict[str, str]:
    """Returns the answer to a message, or what is wrong with it."""
    try:
        return {"species": await model.predict(json.loads(message))}
    except (PredictError, TypeError, ValueError) as error:  # ValueError, if it is not JSON at all.
        return {"error": str(error)}


async def main() -> None:
    """Serves until the process is stopped. All connections share one client, and with it one HTTP/2 connection."""
    async with AsyncClient(ADDRESS) as client:
        model = client.model("iris")

        async def converse(browser: ServerConnection) -> None:
            async for message in browser:
                await browser.send(json.dumps(await answer(model, message)))

        async with serve(converse, "127.0.0.1", PORT) as server:
            print(f"ready on ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
