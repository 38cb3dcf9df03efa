"""ZeroPadding1D, ZeroPadding2D and ZeroPadding3D."""

from keras import layers

from gradaudit.rules.layers.families.spatial import FIRST, margins
from gradaudit.rules.primitives.margins import pad
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/reshaping/zero_padding{}d.py"


def _case(name, layer, shape, padding, **options):
    return Case(name, lambda: layer(padding, **options), shape)


@rule(
    layers.ZeroPadding1D,
    cases=[
        _case("both ends alike", layers.ZeroPadding1D, (2, 3, 2), 1),
        _case("one end", layers.ZeroPadding1D, (2, 3, 2), (0, 2)),
        _case("channels first", layers.ZeroPadding1D, (2, 2, 3), (2, 1), **FIRST),
    ],
    source=_SOURCE.format(1),
    integers=True,
)
@rule(
    layers.ZeroPadding2D,
    cases=[
        _case("alike", layers.ZeroPadding2D, (2, 2, 3, 2), 1),
        _case("by axis", layers.ZeroPadding2D, (2, 2, 3, 2), (0, 2)),
        _case("by side", layers.ZeroPadding2D, (2, 2, 3, 2), ((1, 0), (0, 3))),
        _case("channels first", layers.ZeroPadding2D, (2, 2, 2, 3), ((1, 0), (1, 2)), **FIRST),
    ],
    source=_SOURCE.format(2),
    integers=True,
)
@rule(
    layers.ZeroPadding3D,
    cases=[
        _case("alike", layers.ZeroPadding3D, (2, 2, 1, 2, 2), 1),
        _case("by side", layers.ZeroPadding3D, (2, 2, 1, 2, 2), ((1, 0), (0, 2), (0, 0))),
        _case("channels first", layers.ZeroPadding3D, (2, 2, 2, 1, 2), (1, 1, 0), **FIRST),
    ],
    source=_SOURCE.format(3),
    integers=True,
)
def zero_padding(call, x):
    """Add padding[i] = (before, after) zeros to spatial axis i.

    Shapes: x (N, ..., C), or (N, C, ...) with channels first; y larger by before + after.
    VJP:    dx is dy without the margins.
    Kinks:  none.
    """
    y, vjp = pad(x, margins(call.layer, call.layer.padding, x.ndim))
    return y, lambda dy: (vjp(dy), {})
