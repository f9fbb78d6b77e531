"""Worker processes: a function made once in each, called on many jobs.

Not `multiprocessing`: forking beside torch's threads can hang, and its other ways import the caller's main script again, which runs a
script without a guard a second time. These workers are plain interpreters that read pickled jobs from a pipe; they end with the pipe.
"""

import contextlib
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from crossdistill.core.errors import StudyError

AHEAD = 2  # jobs a worker has waiting or finished, so that none stands idle
COMMAND = "from crossdistill.core.workers import serve; serve()"

Process = subprocess.Popen[bytes]


class CannotWork(Exception):
    """The function cannot be made in another process: it, or what it needs, cannot be sent or imported there."""


class WorkerEnded(StudyError):
    """A worker process has ended in the middle of a job, as the system ends one when the memory is full."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Workers:
    """`n` processes, each with its own function `make(*arguments)`; a context manager that ends them.

    `threads` of each process (None: as in this one). With `on_demand` a process starts when it is first needed, and another takes
    the place of one that has ended; an error of `make` is then the error of the job. Else all start now, and CannotWork is raised
    where the function cannot be made elsewhere. After an error in the block, workers get `patience_s` seconds to save their state.
    """

    def __init__(
        self, n: int, make: Callable[..., Callable[..., Any]], *arguments: Any, threads: int | None = 1, on_demand: bool = False,
        patience_s: float = 0.0,
    ) -> None:  # fmt: skip
        try:
            self._setup = pickle.dumps((make, arguments))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise CannotWork(str(error)) from error
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if threads:
            self._environment["OMP_NUM_THREADS"] = str(threads)
        self._on_demand, self._patience_s = on_demand, patience_s
        self._processes: list[Process] = []
        self._starting, self._ended = threading.Lock(), False
        self._threads = ThreadPoolExecutor(n)
        self._idle: queue.LifoQueue[Process | None] = queue.LifoQueue()  # None: not started. The last busy one is asked first
        for process in [None] * n if on_demand else [self._start() for _ in range(n)]:
            self._idle.put(process)
        if not on_demand:
            self._set_all_up()

    def map(self, jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What the function gives for each job, in order. An error in a worker is raised here, with its traceback as a note.

        Raises WorkerEnded where a worker process has ended.
        """
        ahead: deque[Future[Any]] = deque()
        for job in jobs:
            ahead.append(self.submit(*job))
            if len(ahead) > AHEAD * len(self._processes):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def submit(self, *job: Any) -> "Future[Any]":
        """What the function will give for a job, once a worker was free and has done it; errors are as in `map`."""
        return self._threads.submit(self._call, pickle.dumps(job))

    def end(self, patience_s: float = 0.0) -> None:
        """End all processes: at once, or after so many seconds in which those at work may finish a step and save their state."""
        with self._starting:
            self._ended = True
        try:
            if patience_s:
                self._let_finish(patience_s)
        finally:
            for process in self._processes:
                process.kill()
            self._threads.shutdown(cancel_futures=True)
            for process in self._processes:
                with process:
                    _close(process)

    def _let_finish(self, seconds: float) -> None:
        for process in self._processes:
            _close(process)  # which tells a worker to stop
        deadline = time.monotonic() + seconds
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def _start(self) -> Process:
        with self._starting:
            if self._ended:
                raise CancelledError
            # -P: Python would look into the current directory first, where a file may be called as one of our libraries is.
            command, pipe = [sys.executable, "-P", "-c", COMMAND], subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=self._environment)
            self._processes.append(process)
            return process

    def _set_all_up(self) -> None:
        for process in self._processes:
            try:
                _ask(process, self._setup)
            except Exception as error:
                self.end()
                raise CannotWork(str(error)) from error

    def _call(self, job: bytes) -> Any:
        process = self._idle.get()
        try:
            if process is None:
                process = self._ready()
            return _ask(process, job)
        except WorkerEnded:
            if self._on_demand and process is not None:
                process.kill()
                process = None
            raise
        finally:
            self._idle.put(process)

    def _ready(self) -> Process:
        process = self._start()
        try:
            _ask(process, self._setup)
        except BaseException:
            process.kill()
            raise
        return process

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.end(self._patience_s if kind else 0.0)


def _close(process: Process) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()


def _ask(process: Process, message: bytes) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(message)
        process.stdin.flush()
        error, answer = pickle.load(process.stdout)
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as ended:  # ValueError: the pipe was closed
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # its pipe closes before its exit code is known
        raise WorkerEnded(
            f"a worker process has ended (exit code {process.poll()}), perhaps because the memory was full: give fewer --workers (1: none "
            "beside this process), and the same command goes on from what is done",
            process.poll(),
        ) from ended
    if error is not None:
        raise error
    return answer


def serve() -> None:
    """What a worker process runs: make the function, then answer jobs until the pipe is closed, in the middle of a job as well.

    A job is then interrupted as by SIGTERM, so that a training saves its state, whether its parent wishes so or was killed. Signals
    that reach the whole group at once, as Ctrl-C does, are left to the parent: two of them would mean to stop without saving.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGUSR1, _stop)
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a job prints must not come between the answers
    busy = threading.Event()
    busy.set()  # at first with importing what the function needs
    threading.Thread(target=_watch, args=(inbox.fileno(), busy), daemon=True).start()
    try:
        _answer(inbox, outbox, busy)
    except (KeyboardInterrupt, BrokenPipeError):  # our parent ends us, or was killed
        os._exit(128 + signal.SIGTERM)
    os._exit(0)


def _answer(inbox: Any, outbox: Any, busy: threading.Event) -> None:
    function: Callable[..., Any] | None = None
    while True:
        error, answer = None, None
        try:
            received = pickle.load(inbox)
            busy.set()
            if function is None:
                make, arguments = received
                function = make(*arguments)
            else:
                answer = function(*received)
        except EOFError:
            return
        except Exception as raised:
            error = _sendable(raised)
        busy.clear()
        pickle.dump((error, answer), outbox)
        outbox.flush()


def _watch(inbox: int, busy: threading.Event) -> None:
    """Interrupt the job at hand once the pipe is closed; a worker without a job reads the pipe's end itself."""
    closed = select.poll()
    closed.register(inbox, 0)  # of no interest but its closing
    closed.poll()
    busy.wait()
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGUSR1)


def _stop(number: int, frame: object) -> None:
    """In the main thread: let in one SIGTERM, which with any that came before it is one."""
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _sendable(error: Exception) -> Exception:
    """The error itself with its traceback as a note, or one that says the same where it cannot be pickled."""
    text = traceback.format_exc()
    error.add_note(text)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error
