"""An MLflow model whose calls the test steps through from another process, by named pipes.

`{"inputs": ["step", ENTERED, LEAVE]}` opens ENTERED for writing, which the test's reading end answers, then
opens LEAVE for reading, which lasts until the test writes. `["hang"]` never ends, and `["hang_spinning"]`
burns its core meanwhile. `["exit"]` kills the process. `["print", TEXT]` prints. `["fork"]` forks a process that
lasts until it is killed, and gives its id, and `["reap", ID]` gives how it ended; `["parallel"]` runs something in a
process of its own. Anything else comes back.
"""

import multiprocessing
import os
import signal
import threading
from typing import Any

import mlflow
from mlflow.pyfunc.model import PythonModel


class Stepper(PythonModel):
    """Sees `inputs` as an array."""

    def predict(self, context, model_input, params=None):
        verb, *rest = [str(item) for item in model_input]
        if verb == "step":
            entered, leave = rest
            with open(entered, "w") as pipe:
                pipe.write("entered")
            with open(leave) as pipe:
                pipe.read()
        elif verb == "hang":
            print("hangs\n", end="", flush=True)  # In one piece: several calls may say so at once.
            threading.Event().wait()
        elif verb == "hang_spinning":
            print("hangs\n", end="", flush=True)  # In one piece: several calls may say so at once.
            while True:
                pass
        elif verb == "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "pid":
            return os.getpid()
        elif verb in PROCESSES:
            return PROCESSES[verb](*rest)
        elif verb == "raise":
            raise ValueError(rest[0])
        elif verb == "print":
            print(rest[0])
        return [verb, *rest]


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


PROCESSES: dict[str, Any] = {"fork": fork, "reap": reap, "parallel": parallel}


def save(path: Any) -> None:
    """Saves the model, without a signature."""
    mlflow.pyfunc.save_model(path, python_model=__file__, pip_requirements=["mlflow"])


mlflow.models.set_model(Stepper())
