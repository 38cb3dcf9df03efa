"""Steps judged by worker processes while the training goes on.

A step goes to its worker as a recorded step in a file on shared memory, and its verdicts come back
through a pipe. The workers take the steps in turn, so what one of them judges does not depend on
how fast they are. Verdicts are taken in the order of the steps. `most` steps at most are under way:
beyond that the training waits.

A worker that was killed is started again, and its steps are still in their files. Rejected:
`multiprocessing`, whose processes import the user's program again, and run it where it has no
`if __name__ == "__main__"`.
"""

import contextlib
import errno
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradaudit.audit.settings import Settings
from gradaudit.audit.step_files import Judged
from gradaudit.backends import present_backend
from gradaudit.records import StepRecord, StepSpec
from gradaudit.report import uninterrupted

_EACH = 2
"""Steps under way for each worker: one that it judges, and one that waits for it."""

_MOST_STARTS = 2
"""How often a step is given to a worker: it is given up when its worker ends so often."""

_PATIENCE_S = 10
"""How long a worker may take to end before it is killed."""

_SHARED = Path("/dev/shm")
"""Shared memory as files, on Linux."""

SIZE = struct.Struct("<Q")
"""How the size of an answer is written before it."""


@dataclass
class Step:
    """A step that is under way. step, epoch: its numbers. spec: with the model's code."""

    path: Path
    step: int
    epoch: int
    spec: StepSpec
    worker: "_Worker"
    starts: int = 1

    def record(self) -> StepRecord:
        """Read its record again.

        Raises:
            DataError: the file is damaged.
        """
        return present_backend().read_step(self.path)[0]


class Background:
    """Judges recorded steps in worker processes.

    Args:
        settings: of the audit; `background` is the number of workers.

    Attributes:
        most: steps that may be under way.
    """

    def __init__(self, settings: Settings) -> None:
        self.most = _EACH * settings.background
        self._settings = settings
        self._folders: list[Path] = []
        self._workers: list[_Worker] = []
        self._steps: deque[Step] = deque()
        self._count = 0

    def submit(self, record: StepRecord, spec: StepSpec) -> None:
        """Give a step to the worker whose turn it is.

        Raises:
            DataError: no file holds the step.
            OSError: there is no space for it, or no process can be started.
        """
        if not self._workers:
            self._start()
        path = self._write(record, spec)
        worker = self._workers[self._count % len(self._workers)]
        self._count += 1
        self._steps.append(Step(path, record.step, record.epoch, spec, worker))
        worker.ask(path)

    def _start(self) -> None:
        places = [_SHARED] if os.access(_SHARED, os.W_OK) else []
        for place in (*places, None):
            self._folders.append(Path(tempfile.mkdtemp(prefix="gradaudit-", dir=place)))
        asked = replace(self._settings, background=0, record_steps=())
        for _ in range(self._settings.background):
            self._workers.append(_Worker(self._folders, asked))

    def _write(self, record: StepRecord, spec: StepSpec) -> Path:
        """Write a step to shared memory, or to the disk where that is full."""
        *shared, disk = [folder / f"{self._count}.step" for folder in self._folders]
        for path in shared:
            try:
                present_backend().write_step(path, record, spec)
                return path
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        present_backend().write_step(disk, record, spec)
        return disk

    def has_more(self, than: int) -> bool:
        """Return whether more steps are under way, or the first of them has its verdicts."""
        steps = self._steps
        return len(steps) > than or bool(steps and steps[0].worker.has_answered())

    def wait(self) -> None:
        """Wait until the first step under way has its verdicts, or was given up.

        What interrupts it loses nothing.
        """
        step = self._steps[0]
        while step.worker.answers_next() is None:
            if step.starts >= _MOST_STARTS:
                return
            with uninterrupted():  # or it would not be asked for all of its steps
                step.starts += 1
                self._restart(step.worker)

    def _restart(self, worker: "_Worker") -> None:
        worker.kill()
        worker.start()
        for step in self._steps:
            if step.worker is worker:
                worker.ask(step.path)

    def first(self) -> tuple[Step, Judged | Exception]:
        """Take the first step under way, once `wait` has returned, and its verdicts.

        An exception in their place is a fault of the auditor. `forget` it afterwards.
        """
        step = self._steps.popleft()
        answer = step.worker.answer()
        if answer is None:
            code = step.worker.kill()
            answer = RuntimeError(
                f"the process that judged it ended {step.starts} times, at last with the code "
                f"{code}; it may lack memory. It wrote: {step.worker.wrote() or 'nothing'}"
            )
            self._restart(step.worker)
        return step, answer

    def forget(self, step: Step) -> None:
        """Remove the file of a step whose verdicts were taken."""
        step.path.unlink(missing_ok=True)

    def give_up(self) -> list[Step]:
        """Kill the workers, and return the steps that were under way."""
        steps, self._steps = list(self._steps), deque()
        for worker in self._workers:
            worker.kill()
        return steps

    def close(self) -> None:
        """End the workers, and remove all files. Another step would start them again."""
        workers, folders, self._workers, self._folders = self._workers, self._folders, [], []
        for worker in workers:
            worker.end()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


class _Worker:
    """One worker process, which judges what it is asked to, in this order.

    folders: where the steps are; in the last it writes what its libraries print. settings: of the
    audit.
    """

    def __init__(self, folders: list[Path], settings: Settings) -> None:
        self._folders, self._settings = folders, settings
        handle, name = tempfile.mkstemp(suffix=".txt", dir=folders[-1])
        os.close(handle)
        self._printed = Path(name)
        self.start()

    def start(self) -> None:
        """Start the process. It ends when it is told to, or when this process has gone."""
        with open(self._printed, "wb") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gradaudit.audit.worker", *map(str, self._folders)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env=_environment(),
                start_new_session=True,  # Ctrl-C on the terminal is for the training
            )
        self._answers: deque[Any] = deque()
        self._arrived = threading.Event()
        args = (self._process.stdout, self._put)
        self._reader = threading.Thread(target=_read, args=args, daemon=True)
        self._reader.start()
        self._send(self._settings)

    def _put(self, answer: Any) -> None:
        self._answers.append(answer)
        self._arrived.set()

    def ask(self, path: Path) -> None:
        """Let it judge a file."""
        self._send(str(path))

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answers tell that it has ended
            pickle.dump(what, self._process.stdin)
            self._process.stdin.flush()

    def has_answered(self) -> bool:
        """Return whether `answers_next` returns at once."""
        return bool(self._answers)

    def answers_next(self) -> Judged | Exception | None:
        """Wait for the next answer, and return it without taking it; None if it has ended."""
        while not self._answers:
            self._arrived.wait()
            self._arrived.clear()
        return self._answers[0]

    def answer(self) -> Judged | Exception | None:
        """Take the next answer."""
        return self._answers.popleft()

    def end(self) -> None:
        """Tell the process to end, and wait until it has."""
        if self._process.poll() is None:
            self._send(None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE_S)
        self.kill()

    def kill(self) -> int:
        """Kill the process if it has not ended; return its exit code, that of a signal below 0."""
        assert self._process.stdin is not None
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait()
        self._reader.join()
        return code

    def wrote(self) -> str:
        """Return the end of what its libraries have printed."""
        return self._printed.read_text(errors="replace")[-500:].strip()


def _read(pipe: Any, put: Callable[[Any], None]) -> None:
    """Hand on the answers that come out of a pipe, and None at its end."""
    with pipe:
        while len(size := pipe.read(SIZE.size)) == SIZE.size:
            (count,) = SIZE.unpack(size)
            if len(answer := pipe.read(count)) < count:
                break
            try:
                put(pickle.loads(answer))
            except Exception as error:  # whatever the answer does as it is loaded
                put(RuntimeError(f"its answer cannot be read: {type(error).__name__}: {error}"))
    put(None)


def _environment() -> dict[str, str]:
    """Return the environment of a worker, which finds the same packages and takes one thread."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.fspath(path) or os.getcwd() for path in sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
    }
