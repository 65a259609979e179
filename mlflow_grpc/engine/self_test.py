"""Self-test of a version that is about to be served: calls with its own input example, which also warm it up.

Rule of this module: an example that fails is an error. At the start of a server it is not, because there is no other
version that could be served instead.
"""

import threading

from mlflow_grpc.engine.answer import answer
from mlflow_grpc.engine.requests import NoObserver, TextRequest
from mlflow_grpc.engine.servable import ServableModel
from mlflow_grpc.errors import StartError
from mlflow_grpc.hosting.error_text import one_line
from mlflow_grpc.payload.codec import TextCodec

CALLS = 3
"""Number of calls with the example: the first ones of many libraries take longer than those after them."""

LIMIT_S = 60.0
"""Maximum duration of all calls together, in seconds."""


def run(servable: ServableModel) -> None:
    """Calls a model with the example that it was logged with; without an example, does nothing.

    Raises:
        StartError: The model fails on the example, or takes too long.

    """
    info = servable.model.info
    if not info.logged_example or info.is_example_typed or isinstance(servable.codec, TextCodec):
        return
    errors: list[str] = []

    def call() -> None:
        try:
            for _ in range(CALLS):
                answer(TextRequest(info.logged_example, None, NoObserver()), servable)
        except BaseException as error:  # noqa: BLE001 - a caller would get any of them
            errors.append(one_line(error.__cause__ or error))

    # In a thread, since a model that takes too long cannot be stopped.
    thread = threading.Thread(target=servable.context.copy().run, args=(call,), name="self-test", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if thread.is_alive():
        raise StartError(f"its input example is not answered within {LIMIT_S:g} s")
    if errors:
        raise StartError(f"it fails on its own input example: {errors[0]}")
