"""Worker processes: a function made once in each, called on many jobs, answers in order.

Not `multiprocessing`: forking beside torch's threads can hang, and its other ways import the caller's main script again, which runs a
script without a guard a second time. These workers are plain interpreters that read pickled jobs from a pipe; they end with the pipe.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from crossdistill.core.errors import StudyError

AHEAD = 2  # jobs a worker has waiting or finished, so that none stands idle
COMMAND = "from crossdistill.probes._workers import serve; serve()"


class CannotWork(Exception):
    """The function cannot be made in another process: it, or what it needs, cannot be sent or imported there."""


class Workers:
    """`n` processes, each with its own function `make(*arguments)`; a context manager that ends them.

    Raises CannotWork where the function cannot be made elsewhere.
    """

    def __init__(self, n: int, make: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        try:
            setup = pickle.dumps((make, arguments))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise CannotWork(str(error)) from error
        # One thread each: the processes share the cores among them.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self._processes = [
            # -P: Python would look into the current directory first, where a file may be called as one of our libraries is.
            subprocess.Popen([sys.executable, "-P", "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in range(n)
        ]
        self._threads = ThreadPoolExecutor(n)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in self._processes:
            try:
                _ask(process, setup)
            except Exception as error:
                self.end()
                raise CannotWork(str(error)) from error
            self._idle.put(process)

    def map(self, jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for each job, in order. An error in a worker is raised here, with its traceback as a note.

        Raises StudyError where a worker process has ended, as the system ends one when the memory is full.
        """
        ahead: deque[Future[Any]] = deque()
        for job in jobs:
            ahead.append(self._threads.submit(self._call, pickle.dumps(job)))
            if len(ahead) > AHEAD * len(self._processes):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _call(self, job: bytes) -> Any:
        process = self._idle.get()
        try:
            return _ask(process, job)
        finally:
            self._idle.put(process)

    def end(self) -> None:
        """End all processes at once, whatever they are doing."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with process, contextlib.suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.close()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _ask(process: "subprocess.Popen[bytes]", message: bytes) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message)
        process.stdin.flush()
        error, answer = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError) as ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # its pipe closes before its exit code is known
        raise StudyError(
            f"a worker process has ended (exit code {process.poll()}), perhaps because the memory was full: give fewer --workers (1: none "
            "beside this process), and the same command goes on from what is done"
        ) from ended
    if error is not None:
        raise error
    return answer


def serve() -> None:
    """What a worker process runs: make the function, then answer jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; our parent decides
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a probe prints must not come between the answers
    function: Callable[..., Any] | None = None
    while True:
        error, answer = None, None
        try:
            received = pickle.load(inbox)
            if function is None:
                make, arguments = received
                function = make(*arguments)
            else:
                answer = function(*received)
        except EOFError:
            return
        except Exception as raised:
            error = _sendable(raised)
        try:
            pickle.dump((error, answer), outbox)
            outbox.flush()
        except BrokenPipeError:  # our parent was killed, and nobody is left to tell
            os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error itself with its traceback as a note, or one that says the same where it cannot be pickled."""
    text = traceback.format_exc()
    error.add_note(text)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error
