"""The headline of a run, wherever its verdict stands: on the console, in a page, in a test."""

from collections.abc import Collection, Mapping
from typing import Any

from gradaudit.records import DEFAULT_THRESHOLD, FAILURES, Oracle, Stage, Verdict


def headline(run: Mapping[str, Any]) -> str:
    """Return the verdict of a run, what was waived for it, and how many steps it is of; how many of
    them were compiled when the model's code was another; how many were recorded and none judged.

    A run that did not fail, and of which more than half of the gradient weights were not resolved
    or not judged, begins with that.

    run: what run.json says.
    """
    verdict, mostly = run["verdict"], ""
    if verdict not in FAILURES:
        mostly = _mostly(run)
    words = [verdict.upper()]
    if mostly and mostly != verdict:
        words = [f"MOSTLY {mostly.upper()} (verdict: {verdict})"]
    steps = run.get("coverage", {}).get("steps_audited")
    counted = [] if steps is None else [f"{steps} step{'s' * (steps != 1)} audited"]
    recorded = run.get("coverage", {}).get("steps_recorded")
    if recorded and run.get("options", {}).get("mode") == "record":
        counted.append(f"{recorded} step{'s' * (recorded != 1)} recorded")
    stale = run.get("stale_steps", 0)
    counted += [f"{stale} of them stale"] if stale else []
    return ", ".join([*words, *waived(run), *counted])


def waived(run: Mapping[str, Any]) -> list[str]:
    """Return what a verdict leaves out or takes as given, in words: what was asked for, and shares.

    run: what run.json says; what an older one does not say is left out.
    """
    options, words = run.get("options", {}), []
    expected = run.get("expected", [])
    names = options.get("expect", {})
    used = [name for name in names if any(_is_meant(name, each) for each in expected)]
    if used:
        count = len({each["function"] for each in expected})
        words.append(
            f"{count} custom gradient{'s' * (count != 1)} waived (expect: {_listed(used)})"
        )
    unused = [name for name in names if name not in used]
    unjudged, total = _gradients(run, Verdict.UNJUDGED)
    if unused and unjudged < total:
        words.append(f"expect: {_listed(unused)} matched no custom gradient")
    if options.get("layers") is not None:
        words.append(f"only layers {options['layers']!r} were asked for")
    threshold = run.get("threshold", DEFAULT_THRESHOLD)
    if threshold != DEFAULT_THRESHOLD:
        words.append(f"threshold {threshold:g} (default {DEFAULT_THRESHOLD:g})")
    oracle = options.get("oracle", Oracle.DERIVED)
    if oracle != Oracle.DERIVED:
        words.append(f"oracle {oracle!r}")
    for verdict, what in (
        (Verdict.UNRESOLVED, "could not be resolved"),
        (Verdict.UNJUDGED, "were not judged"),
    ):
        count, total = _gradients(run, verdict)
        if count:
            words.append(f"{_percent(count, total)} of the gradient weights {what}")
    return words


def _mostly(run: Mapping[str, Any]) -> str:
    """Return "unresolved" or "unjudged" if more than half of the gradient weights are one of the
    two, else "".
    """
    (unresolved, total), (unjudged, _) = (
        _gradients(run, verdict) for verdict in (Verdict.UNRESOLVED, Verdict.UNJUDGED)
    )
    if 2 * (unresolved + unjudged) <= total:
        return ""
    return str(Verdict.UNRESOLVED if unresolved >= unjudged else Verdict.UNJUDGED)


def _gradients(run: Mapping[str, Any], verdict: Verdict) -> tuple[int, int]:
    """Return how many weights have a verdict on their gradient, over all steps, and of how many."""
    counts = run.get("counts", {}).get(Stage.GRADIENT, {})
    return counts.get(verdict, 0), sum(counts.values())


def _percent(count: int, total: int) -> str:
    """Return a share of more than nothing in percent; 100 % is all."""
    percent = 100 * count / total
    if percent < 0.1:
        return "less than 0.1 %"
    if percent < 10:
        return f"{percent:.1f} %"
    return f"{100 if count == total else min(round(percent), 99)} %"


def _is_meant(name: str, gradient: Mapping[str, str]) -> bool:
    return name == gradient["function"] or name in gradient["layer"].split("/")


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
