"""Dot."""

import functools
import string

from keras import layers

from gradaudit.rules.primitives.contraction import contract
from gradaudit.rules.primitives.scaling import inverse_length, scaled_by_squares
from gradaudit.rules.registry import Case, rule


def _case(name, axes, *shapes, kinks=(), **options):
    return Case(name, lambda: layers.Dot(axes, **options), shapes, kinks)


@rule(
    layers.Dot,
    cases=[
        _case("rows", 1, (4, 3), (4, 3)),
        _case("last axes", -1, (2, 3, 4), (2, 5, 4)),
        _case("an axis of each", (2, 1), (2, 3, 4), (2, 4, 5)),
        _case("negative", (-2, -1), (2, 4, 3), (2, 5, 4)),
        _case("row and matrix", (1, 2), (2, 4), (2, 3, 4)),
        _case("matrix and row", (2, 1), (2, 3, 4), (2, 4)),
        _case("four axes", (1, 2), (2, 3, 2, 4), (2, 2, 3, 2)),
        _case("cosine", 1, (4, 3), (4, 3), normalize=True, kinks=(0.0, 1e-9)),
        _case("normalized", (2, 1), (2, 3, 4), (2, 4, 5), normalize=True),
    ],
    source="keras/src/layers/merging/dot.py",
    mask=lambda call, x, mask: None,
)
def dot(call, x):
    """Apply y = Σ a b over an axis of each, within each sample; normalized, a / |a| and b / |b|.

    Shapes: a (N, ...), b (N, ...); y (N, a's other axes, b's other axes), or (N, 1) for none.
    VJP:    da and db are the contractions of dy with the other; then that of the scaling.
    Kinks:  normalized, 1 / |a| does not grow beyond 1 / ε: see `inverse_length`.
    """
    chosen = call.layer.axes
    chosen = (chosen, chosen) if isinstance(chosen, int) else chosen
    axes = [axis % each.ndim for axis, each in zip(chosen, x, strict=True)]
    vjps = [lambda dz: (dz, None)] * 2
    if call.layer.normalize:
        pairs = zip(x, axes, strict=True)
        inverse = functools.partial(inverse_length, epsilon=call.epsilon)
        units = [scaled_by_squares(each, (axis,), 1, inverse) for each, axis in pairs]
        x, vjps = tuple(unit for unit, _ in units), [vjp for _, vjp in units]
    a, b = x
    letters = iter(string.ascii_letters[2:])
    of_a, of_b = (
        ["a", *("b" if i == axis else next(letters) for i in range(1, each.ndim))]
        for each, axis in zip(x, axes, strict=True)
    )
    free = [letter for letter in of_a + of_b if letter not in "ab"]
    y, contraction_vjp = contract(f"{''.join(of_a)},{''.join(of_b)}->a{''.join(free)}", a, b)

    def vjp(dy):
        found = contraction_vjp(dy.reshape(y.shape))
        return tuple(back(each)[0] for back, each in zip(vjps, found, strict=True)), {}

    return y if free else y.reshape(-1, 1), vjp
