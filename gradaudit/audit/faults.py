"""Faults of the auditor itself."""

import traceback
from typing import Any

_MOST_TRACEBACKS = 20


class Faults:
    """Counts exceptions of the auditor, and keeps the first tracebacks that differ."""

    def __init__(self) -> None:
        self.count = 0
        self._tracebacks: list[str] = []

    def add(self, error: Exception, doing: str) -> str:
        """Keep an exception; return it in words. doing: what failed, as "judging step 3"."""
        self.count += 1
        text = "".join(traceback.format_exception(error))
        if text not in self._tracebacks and len(self._tracebacks) < _MOST_TRACEBACKS:
            self._tracebacks.append(text)
        return f"the auditor failed in {doing}: {type(error).__name__}: {error}"

    def summary(self) -> dict[str, Any]:
        """Return what run.json says of them."""
        return {"count": self.count, "tracebacks": self._tracebacks}
