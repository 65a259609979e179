"""Actions of a model that tests control from another process, through named pipes.

`["step", ENTERED, LEAVE]` opens ENTERED for writing, which the test's reading end answers, and then opens LEAVE for
reading, which blocks until the test writes. `["hang"]` never ends, and `["hang_spinning"]` also keeps its core busy.
`["exit"]` kills the process, and `["pid"]` returns its id. `["variable", NAME]` returns a variable of its environment.
`["print", TEXT]` prints, and `["raise", TEXT]` raises.
`["fork"]` forks a process that runs until it is killed, and returns its id. `["reap", ID]` returns how that process
ended. `["parallel"]` runs something in another process. Any other input is returned.

Rule of this module: it imports only the standard library, so that servers with it start quickly.
"""

import multiprocessing
import os
import signal
import threading
from typing import Any


def step(verb: str, *arguments: str) -> Any:
    """Performs the action that the verb names."""
    if verb == "step":
        entered, leave = arguments
        with open(entered, "w") as pipe:
            pipe.write("entered")
        with open(leave) as pipe:
            pipe.read()
    elif verb in ("hang", "hang_spinning"):
        print("hangs\n", end="", flush=True)  # In one write, because several calls may print at once.
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


PROCESSES: dict[str, Any] = {
    "fork": fork,
    "parallel": parallel,
    "pid": os.getpid,
    "reap": reap,
    "variable": os.environ.get,
}
