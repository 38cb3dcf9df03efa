"""Recorded steps in files, judged one by one, in this process or in any other.

A file holds all that a judgement depends on, see `backends.tensorflow.step_file`. So the verdicts
are those of the process that trained, and a step may be judged on another machine.
"""

import functools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradaudit.audit.judge import Judge
from gradaudit.audit.results import Results
from gradaudit.audit.settings import Settings
from gradaudit.audit.sigma import When
from gradaudit.backends import present_backend
from gradaudit.errors import DataError, GapCode, TrainingError, UsageError
from gradaudit.nets import import_build
from gradaudit.records import Comparison, StepRecord, StepSpec, WeightRows
from gradaudit.report import Ended, InMemory

_ONE_AT_A_TIME = threading.Lock()  # tracing code puts Python values back: for a moment, others


@dataclass(frozen=True)
class Judged:
    """The verdicts on a step, as one process sends them to another.

    rows: of single weights. stale: see `StepRecord`.
    """

    comparison: Comparison
    rows: tuple[WeightRows, ...]
    stale: tuple[str, ...]

    @property
    def needs_code(self) -> bool:
        """Whether a part of the step could be judged with the model's code only."""
        return any(GapCode.UNTRACEABLE in tensor.gaps for tensor in self.comparison.tensors)


class FileJudge:
    """Judges recorded steps of one model, with what earlier ones have shown of σ.

    Args:
        settings: of the audit.
    """

    def __init__(self, settings: Settings) -> None:
        self._rows = InMemory()
        self._paths: list[str] = []
        self._judge = Judge(
            lambda: self._paths,
            settings.policy(),
            settings.threshold,
            settings.rows_per_tensor,
            self._rows,
            settings.sigma,
        )

    def judge(self, record: StepRecord, spec: StepSpec) -> Judged:
        """Return the verdicts on a step."""
        self._paths = [v.path for v in spec.model.trainable_variables]
        self._rows.begin()
        comparison = self._judge.judge(record, spec)
        return Judged(comparison, tuple(self._rows.rows), record.stale)


_Answer = tuple[Judged, dict[str, Any]]
"""What `judge_file` returns."""

_WORKERS_WITHIN_S = 60
"""How long a Dask scheduler may take to have a worker."""


def judge_file(path: str, settings: Settings, build: str | None = None) -> "_Answer":
    """Judge a recorded step by itself, by σ: whatever was judged before makes no difference.

    path: of the file. build: `package.module:build`, which makes the model that took the step, for
    code that has no derived rule; None without it.

    Returns:
        The verdicts, and what run.json says of the model and the step's environment.

    Raises:
        DataError: the file is not a recorded step, or one of another model.
        UsageError: the model cannot be built.
    """
    with _ONE_AT_A_TIME:
        model = None if build is None else _built(build)
        record, spec = present_backend().read_step(path, model)
        judged = FileJudge(replace(settings, sigma=When.ALWAYS)).judge(record, spec)
    return judged, _environment(record, spec)


def _environment(record: StepRecord, spec: StepSpec) -> dict[str, Any]:
    found = present_backend().environment(spec.model)
    found["precision"]["floatx"] = spec.config.floatx
    del found["seed"], found["device"]  # those of this process
    if spec.optimizer is not None:  # its variables have no values here
        name, rates = type(spec.optimizer).__name__, record.learning_rates
        found["optimizer"] = {"class": name, "learning_rate": rates[0] if rates else None}
    versions = {"versions": dict(spec.versions), "versions_of_the_judge": found["versions"]}
    return {**found, **versions, "jit": record.jit, "replicas": record.replicas}


@functools.cache
def _built(build: str) -> Any:
    return import_build(build)()


def judge_files(
    paths: Sequence[Path],
    settings: Settings,
    results: Results,
    build: str | None = None,
    scheduler: str | None = None,
) -> None:
    """Judge recorded steps, in their order, and write a report of all.

    results: takes the verdicts. build: see `judge_file`. scheduler: address of a Dask scheduler,
    whose workers judge, and read the files by the same paths; None to judge in this process.

    Raises:
        DataError: a file is not a recorded step, or one of another model; or a step comes twice.
        UsageError: there is no such scheduler, or Dask is not installed.
        TrainingError: Dask's scheduler has gone, or workers ended while they judged a step.
    """
    names = [str(path.absolute()) for path in paths]
    if scheduler is None:
        _judge_all(zip(names, _here(names, settings, build), strict=True), results)
        return
    with _client(scheduler) as client:
        answers = _by_dask(names, settings, build, client)
        _judge_all(zip(names, answers, strict=True), results)


def _judge_all(judged: Iterable[tuple[str, _Answer]], results: Results) -> None:
    ended, environment = Ended.ABORTED, None
    seen: set[tuple[int, int]] = set()
    told: set[int] = set()
    try:
        for path, (each, about) in judged:
            step = each.comparison.step, each.comparison.replica
            if step in seen:
                raise DataError(
                    f"{path} is step {step[0]}, as a file before it. Expected each step once, of "
                    "one training."
                )
            if environment is not None and about["model"] != environment["model"]:
                raise DataError(
                    f"{path} is a step of another model than the files before it. Expected steps "
                    "of one training."
                )
            seen.add(step)
            environment = about
            if each.stale and step[0] not in told:
                told.add(step[0])
                results.stale(step[0], each.stale)
            results.add(each.comparison, each.stale, each.rows)
        ended = Ended.FINISHED
    except KeyboardInterrupt:
        ended = Ended.INTERRUPTED
        raise
    finally:
        if environment is not None:  # else nothing was judged, and what lies there stays
            more = {"left_out": results.left_out(), **environment}
            results.close(ended, [], lambda: more)


def _here(paths: Sequence[str], settings: Settings, build: str | None) -> Iterator[_Answer]:
    return (judge_file(path, settings, build) for path in paths)


def _client(scheduler: str) -> Any:
    """Return a client of a Dask scheduler that has workers."""
    try:
        import distributed
    except ImportError as error:
        raise UsageError(
            "--scheduler needs Dask, which is not installed. Install it: pip install "
            "'gradaudit[dask]'."
        ) from error
    try:
        client = distributed.Client(scheduler, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--scheduler is {scheduler!r}, and no Dask scheduler answers there ({error}). "
            "Expected the address that `dask scheduler` prints, such as tcp://10.0.0.5:8786."
        ) from error
    try:
        client.wait_for_workers(1, timeout=_WORKERS_WITHIN_S)
    except TimeoutError as error:
        client.close()
        raise UsageError(
            f"the Dask scheduler {scheduler} has no workers. Start some: dask worker {scheduler}."
        ) from error
    return client


def _by_dask(
    paths: Sequence[str], settings: Settings, build: str | None, client: Any
) -> Iterator[_Answer]:
    """Yield the verdicts on files, in their order; a few more than the workers have at a time."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    waiting, asked = deque(paths), deque[tuple[str, Any]]()
    while waiting or asked:
        most = 2 * max(1, sum(client.nthreads().values()))
        while waiting and len(asked) < most:
            path = waiting.popleft()
            asked.append((path, client.submit(judge_file, path, settings, build, pure=False)))
        path, future = asked.popleft()
        try:
            yield future.result()
        except KilledWorker as error:
            raise TrainingError(
                f"Dask's workers ended again and again while they judged {path} ({error}). Look at "
                "their logs: they may lack memory."
            ) from error
        except (FutureCancelledError, CommClosedError) as error:
            raise TrainingError(
                f"Dask's scheduler has gone while {path} was judged ({error}). What was judged "
                "before is in the report; start it again, and judge the rest."
            ) from error
