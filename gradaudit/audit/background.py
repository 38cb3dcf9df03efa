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
import os
import pickle
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradaudit.audit.settings import Settings
from gradaudit.audit.step_files import Judged
from gradaudit.backends import present_backend
from gradaudit.records import StepRecord, StepSpec

_EACH = 2
"""Steps under way for each worker: one that it judges, and one that waits for it."""

_MOST_STARTS = 2
"""How often a step is given to a worker: one that ends twice is given up."""

_SHARED = Path("/dev/shm")
"""Shared memory as files, on Linux."""


@dataclass
class _Step:
    path: Path
    record: StepRecord
    spec: StepSpec
    worker: "_Worker"
    starts: int = 1


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
        self._folder: Path | None = None
        self._workers: list[_Worker] = []
        self._steps: deque[_Step] = deque()
        self._count = 0

    def submit(self, record: StepRecord, spec: StepSpec) -> None:
        """Give a step to the worker whose turn it is.

        Raises:
            DataError: no file holds the step.
        """
        if self._folder is None:
            self._folder = _shared_folder(record, self.most + 1)
            asked = replace(self._settings, background=0, record_steps=())
            workers = range(self._settings.background)
            self._workers = [_Worker(self._folder, asked) for _ in workers]
        path = self._folder / f"{self._count}.step"
        present_backend().write_step(path, record, spec)
        worker = self._workers[self._count % len(self._workers)]
        self._count += 1
        self._steps.append(_Step(path, record, spec, worker))
        worker.ask(path)

    def has_more(self, than: int) -> bool:
        """Return whether more steps are under way, or the first of them has its verdicts."""
        steps = self._steps
        return len(steps) > than or bool(steps and steps[0].worker.has_answered())

    def first(self) -> tuple[StepRecord, StepSpec, Judged | Exception]:
        """Wait for the verdicts on the first step under way, and return them.

        An exception in their place is a fault of the auditor.
        """
        step = self._steps[0]
        answer = step.worker.answer()
        while answer is None:
            code = step.worker.end()
            if step.starts >= _MOST_STARTS:
                answer = RuntimeError(
                    f"the process that judged it ended twice, with the code {code}; it may lack "
                    f"memory. It wrote: {step.worker.wrote() or 'nothing'}"
                )
            step.starts += 1
            step.worker.start()
            for other in self._steps:
                if other.worker is step.worker and not (other is step and answer is not None):
                    step.worker.ask(other.path)
            answer = answer or step.worker.answer()
        self._steps.popleft()
        step.path.unlink()
        return step.record, step.spec, answer

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # a worker may have removed it
        self._folder, self._workers = None, []


class _Worker:
    """One worker process, which judges what it is asked to, in this order.

    folder: where the steps are, and where it writes what its libraries print. settings: of the
    audit.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._settings = settings
        handle, name = tempfile.mkstemp(suffix=".txt", dir=folder)
        os.close(handle)
        self._printed = Path(name)
        self.start()

    def start(self) -> None:
        """Start the process. It ends when its stdin is closed, or this process has gone."""
        with open(self._printed, "wb") as printed:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gradaudit.audit.worker", str(self._printed.parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env=_environment(),
                start_new_session=True,  # Ctrl-C on the terminal is for the training
            )
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        args = (self._process.stdout, self._answers)
        self._reader = threading.Thread(target=_read, args=args, daemon=True)
        self._reader.start()
        self._send(self._settings)

    def ask(self, path: Path) -> None:
        """Let it judge a file."""
        self._send(str(path))

    def _send(self, what: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` tells that it has ended
            pickle.dump(what, self._process.stdin)
            self._process.stdin.flush()

    def has_answered(self) -> bool:
        """Return whether `answer` returns at once."""
        return not self._answers.empty()

    def answer(self) -> Judged | Exception | None:
        """Wait for the next answer; None where the process has ended."""
        return self._answers.get()

    def end(self) -> int:
        """End the process; return its exit code, that of a signal below 0."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        code = self._process.wait()
        self._reader.join()
        return code

    def wrote(self) -> str:
        """Return the end of what its libraries have printed."""
        return self._printed.read_text(errors="replace")[-500:].strip()


def _read(pipe: Any, answers: "queue.SimpleQueue[Any]") -> None:
    """Hand on what comes out of a pipe, and None at its end."""
    with pipe:
        while True:
            try:
                answers.put(pickle.load(pipe))
            except (EOFError, pickle.UnpicklingError):
                answers.put(None)
                return


def _environment() -> dict[str, str]:
    """Return the environment of a worker: it finds the same packages, and one core is its own."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _shared_folder(record: StepRecord, steps: int) -> Path:
    """Return a new folder on shared memory, or on the disk where that is too small."""
    held = (record.variables, record.optimizer_variables, record.gradients)
    size = sum(array.nbytes for part in held for array in part.values() if array is not None)
    is_large = _SHARED.is_dir() and shutil.disk_usage(_SHARED).free > 4 * steps * size
    return Path(tempfile.mkdtemp(prefix="gradaudit-", dir=_SHARED if is_large else None))
