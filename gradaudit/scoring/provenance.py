"""Provenance in words."""

from collections.abc import Iterable

from gradaudit.records import Passed, Provenance


def described(provenance: Iterable[Provenance]) -> list[str]:
    """Return a phrase for each thing that a cotangent passed, in alphabetical order.

    Code that was traced is told by the oracle of the estimate, and has no phrase.
    """
    return sorted({_phrase(each) for each in provenance if each.kind is not Passed.TRACED})


def _phrase(passed: Provenance) -> str:
    place = f"{passed.file}:{passed.line}" if passed.file else ""
    if passed.source:
        place += f" ({passed.source})"
    if passed.kind in (Passed.CUSTOM, Passed.EXPECTED):
        known = ", as expected," if passed.kind is Passed.EXPECTED else ""
        where = f"{passed.layer} at {place or 'its call'}"
        return f"the custom gradient of {passed.function!r}{known} in {where}"
    op = f"the op {passed.op!r} ({passed.op_type})"
    op += f" of {passed.function}" if passed.function else ""
    op += f" in {passed.layer}" if passed.layer else ""
    op += f" at {place}" if place else ""
    if passed.kind is Passed.NUMERIC:
        return f"the derivative by differences of {op}"
    where = f" {passed.detail}" if passed.detail else ""
    return f"TensorFlow's gradient of {op}, which is not its derivative{where},"
