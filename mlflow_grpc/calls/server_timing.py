"""The trailer and header `server-timing`: where a call spent its time.

Rule of this module: it writes the times that a call has collected. Source: https://www.w3.org/TR/server-timing/; the
durations are in milliseconds.
"""

import time

from _mlflow_grpc_protocol.metadata import SERVER_TIMING_KEY

from mlflow_grpc.calls.call import Call


def trailers(call: Call, *, always: bool) -> tuple[tuple[str, str], ...]:
    """Returns the trailer with the times of a call; an empty tuple if the caller did not request it.

    Args:
        call: The call.
        always: True if all callers get it.

    """
    if not always and call.metadata(SERVER_TIMING_KEY) != "1":
        return ()
    usage = call.usage
    durations_s = {
        "queue": usage.waited_s,
        "decode": usage.decode_s,
        "predict": usage.model_s,
        "encode": usage.encode_s,
        "total": time.monotonic() - call.started_at,
    }
    text = ", ".join(f"{name};dur={duration_s * 1000:.3f}" for name, duration_s in durations_s.items() if duration_s)
    return ((SERVER_TIMING_KEY, text),)
