"""What a model does that tests step through from another process, by named pipes.

`["step", ENTERED, LEAVE]` opens ENTERED for writing, which the test's reading end answers, then opens LEAVE for reading,
which lasts until the test writes. `["hang"]` never ends, and `["hang_spinning"]` burns its core meanwhile. `["exit"]`
kills the process, `["pid"]` returns its id. `["print", TEXT]` prints, `["raise", TEXT]` raises. `["fork"]` forks a
process that lasts until it is killed, and returns its id, and `["reap", ID]` returns how it ended; `["parallel"]` runs
something in a process of its own. Anything else comes back.

Rule of this module: the standard library alone. Servers import it that are to start quickly.
"""

import multiprocessing
import os
import signal
import threading
from typing import Any


def step(verb: str, *arguments: str) -> Any:
    """Does what the verb names."""
    if verb == "step":
        entered, leave = arguments
        with open(entered, "w") as pipe:
            pipe.write("entered")
        with open(leave) as pipe:
            pipe.read()
    elif verb in ("hang", "hang_spinning"):
        print("hangs\n", end="", flush=True)  # In one piece: several calls may say so at once.
        if verb == "hang":
            threading.Event().wait()
        while True:
            pass
    elif verb == "exit":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb in PROCESSES:
        return PROCESSES[verb](*arguments)
    elif verb == "raise":
        raise ValueError(arguments[0])
    elif verb == "print":
        print(arguments[0])
    return [verb, *arguments]


def fork() -> int:
    pid = os.fork()
    while not pid:
        signal.pause()
    return pid


def reap(pid: str) -> int:
    return os.waitpid(int(pid), 0)[1]


def parallel() -> int | None:
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    return process.exitcode


PROCESSES: dict[str, Any] = {"fork": fork, "parallel": parallel, "pid": os.getpid, "reap": reap}
