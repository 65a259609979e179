"""Calls a server's health service ten times a second until it is ended; then prints the duration of each call in
seconds.

It is a separate process, so that it measures the server and not the load generator.
"""

import json
import signal
import sys
import threading
import time
from typing import Any

import grpc


def main(address: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    took_s = []
    with grpc.insecure_channel(address) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        check(b"", timeout=5)
        while not ended.wait(0.1):
            began = time.perf_counter()
            check(b"", timeout=5)
            took_s.append(time.perf_counter() - began)
    print(json.dumps(took_s))


if __name__ == "__main__":
    main(sys.argv[1])
