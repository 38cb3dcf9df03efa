"""A process that judges recorded steps, for `background.py`, which starts it.

`python -m gradaudit.audit.worker FOLDER` reads pickles from stdin: the settings, and then the paths
of steps. It writes the verdicts, or the exception that they ended in, to stdout. At the end of
stdin it ends, and removes the folder: whoever made it may have been killed.
"""

import os
import pickle
import shutil
import sys
import traceback
from typing import Any

from gradaudit.audit.step_files import FileJudge
from gradaudit.backends import present_backend


def main() -> None:
    """Judge step after step until stdin ends."""
    asked = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what libraries print must not get among the answers
        judge = FileJudge(pickle.load(asked))
        while True:
            try:
                path = pickle.load(asked)
            except EOFError:
                shutil.rmtree(sys.argv[1], ignore_errors=True)
                return
            answers.write(_answer(judge, path))
            answers.flush()


def _answer(judge: FileJudge, path: str) -> bytes:
    try:
        found: Any = judge.judge(*present_backend().read_step(path))
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        try:
            return pickle.dumps(error)
        except Exception:  # it holds what no pickle holds
            found = RuntimeError(traceback.format_exc())
    return pickle.dumps(found, pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    main()
