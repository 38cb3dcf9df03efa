"""Add, Subtract and Average."""

from keras import layers

from gradaudit.rules.layers.families.merging import either, narrowed, of_one_rank
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/merging/{}.py"
_PAIR = ((3, 4), (3, 4))
_BROADCAST = ((2, 3, 4), (2, 1, 4))
_RANKS = ((2, 3, 4), (2, 4), (2, 1, 1))


@rule(
    layers.Add,
    cases=[
        Case("two", layers.Add, _PAIR),
        Case("four", layers.Add, _PAIR * 2),
        Case("one", layers.Add, _PAIR[:1], apply=lambda layer, x, **options: layer([x], **options)),
        Case("broadcast", layers.Add, _BROADCAST),
        Case("ranks", layers.Add, _RANKS),
    ],
    source=_SOURCE.format("add"),
    mask=either,
)
@rule(
    layers.Average,
    cases=[
        Case("two", layers.Average, _PAIR),
        Case("three", layers.Average, (*_PAIR, (3, 4))),
        Case("ranks", layers.Average, _RANKS),
    ],
    source=_SOURCE.format("average"),
    mask=either,
)
def add(call, x):
    """Apply y = x₁ + x₂ + …, or y = (x₁ + x₂ + …) / n.

    Shapes: the xᵢ broadcast to y, after axes of length 1 behind the batch's give them one rank.
    VJP:    dxᵢ = dy, or dy / n, summed over the axes along which xᵢ was broadcast.
    Kinks:  none.
    """
    first, *others = of_one_rank(x)
    y, count, mean = first, 1 + len(others), isinstance(call.layer, layers.Average)
    for other in others:
        y = y + other

    def vjp(dy):
        dx = dy / count if mean else dy
        return narrowed([dx] * count, x), {}

    return y / count if mean else y, vjp


@rule(
    layers.Subtract,
    cases=[
        Case("two", layers.Subtract, _PAIR),
        Case("broadcast", layers.Subtract, _BROADCAST[::-1]),
        Case("ranks", layers.Subtract, _RANKS[:2]),
    ],
    source=_SOURCE.format("subtract"),
    mask=either,
)
def subtract(call, x):
    """Apply y = x₁ − x₂.

    Shapes: those of Add.
    VJP:    dx₁ = dy and dx₂ = −dy, summed over the axes along which they were broadcast.
    Kinks:  none.
    """
    a, b = of_one_rank(x)
    return a - b, lambda dy: (narrowed([dy, -dy], x), {})
