"""Cropping1D, Cropping2D and Cropping3D."""

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, margins
from gradaudit.rules.primitives.margins import crop
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/reshaping/cropping{}d.py"


def _case(name, layer, shape, cropping, **options):
    return Case(name, lambda: layer(cropping, **options), shape)


@rule(
    layers.Cropping1D,
    cases=[
        _case("both ends alike", layers.Cropping1D, (2, 5, 3), 1),
        _case("one end", layers.Cropping1D, (2, 5, 3), (2, 0)),
    ],
    source=_SOURCE.format(1),
    integers=True,
)
@rule(
    layers.Cropping2D,
    cases=[
        _case("alike", layers.Cropping2D, (2, 4, 5, 3), 1),
        _case("by axis", layers.Cropping2D, (2, 4, 5, 3), (0, 2)),
        _case("by side", layers.Cropping2D, (2, 4, 5, 3), ((1, 0), (0, 3))),
        _case("channels first", layers.Cropping2D, (2, 3, 4, 5), ((1, 0), (1, 2)), **FIRST),
    ],
    source=_SOURCE.format(2),
    integers=True,
)
@rule(
    layers.Cropping3D,
    cases=[
        _case("alike", layers.Cropping3D, (2, 3, 4, 3, 2), 1),
        _case("by side", layers.Cropping3D, (2, 3, 4, 3, 2), ((1, 0), (0, 2), (0, 0))),
        _case("channels first", layers.Cropping3D, (2, 2, 3, 4, 3), (1, 1, 0), **FIRST),
    ],
    source=_SOURCE.format(3),
    integers=True,
)
def cropping(call, x):
    """Cut cropping[i] = (before, after) off spatial axis i.

    Shapes: x (N, ..., C), or (N, C, ...) with channels first; y smaller by before + after.
    VJP:    dx is dy between zeros.
    Kinks:  none.
    """
    y, vjp = crop(x, margins(call.layer, call.layer.cropping, x.ndim))
    return y, lambda dy: (vjp(dy), {})
