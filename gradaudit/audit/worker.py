"""A process that judges recorded steps, for `background.py`, which starts it.

`python -m gradaudit.audit.worker FOLDER ...` reads pickles from stdin: the settings, then the paths
of steps, and None at the end. It writes the verdicts, or the exception that they ended in, to
stdout, each a pickle after its size. Where whoever started it has gone, it removes the folders.
"""

import os
import pickle
import shutil
import sys
import traceback
from typing import Any

from gradaudit.audit.background import SIZE
from gradaudit.audit.step_files import FileJudge
from gradaudit.backends import present_backend


def main() -> None:
    """Judge step after step until it is told to end."""
    asked, answers = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # what libraries print must not get among the answers
    try:
        judge = FileJudge(pickle.load(asked))
        while (path := pickle.load(asked)) is not None:
            answer = _answer(judge, path)
            _write(answers, SIZE.pack(len(answer)))
            _write(answers, answer)
    except (EOFError, BrokenPipeError):  # the training was killed
        for folder in sys.argv[1:]:
            shutil.rmtree(folder, ignore_errors=True)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _answer(judge: FileJudge, path: str) -> bytes:
    try:
        found: Any = judge.judge(*present_backend().read_step(path))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            answer = pickle.dumps(error)
            pickle.loads(answer)
            return answer
        except Exception:  # it takes other arguments than its words, or holds what no pickle holds
            found = RuntimeError(traceback.format_exc())
    return pickle.dumps(found, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
