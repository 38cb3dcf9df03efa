"""SpatialDropout1D, SpatialDropout2D and SpatialDropout3D."""

from keras import layers

from gradaudit.rules.layers.families.dropout import dropped
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/regularization/spatial_dropout.py"


def _cases(layer, shape):
    chosen = {"default": {}, "channels first": {"data_format": "channels_first"}}
    if layer is layers.SpatialDropout1D:
        del chosen["channels first"]
    cases = [
        Case(name, lambda options=options: layer(0.4, seed=3, **options), shape)
        for name, options in chosen.items()
    ]
    cases.append(Case("everything", lambda: layer(1.0), shape))
    cases.append(Case("nothing", lambda: layer(0.0), shape))
    return [*cases, Case("inference", lambda: layer(0.4), shape, training=False)]


@rule(layers.SpatialDropout1D, cases=_cases(layers.SpatialDropout1D, (4, 3, 5)), source=_SOURCE)
@rule(layers.SpatialDropout2D, cases=_cases(layers.SpatialDropout2D, (3, 4, 2, 4)), source=_SOURCE)
@rule(
    layers.SpatialDropout3D, cases=_cases(layers.SpatialDropout3D, (3, 4, 2, 1, 4)), source=_SOURCE
)
def spatial_dropout(call, x):
    """Drop whole channels of a sample: dropout whose mask is shared by all places.

    Shapes: x and y (N, ..., C), or (N, C, ...) with channels first; the mask 1 between.
    VJP:    dropout's.
    Kinks:  none: the mask does not depend on x.
    """
    places = (1,) * (x.ndim - 2)
    if getattr(call.layer, "data_format", "channels_last") == "channels_first":
        return dropped(call, x, call.layer.rate, (*x.shape[:2], *places))
    return dropped(call, x, call.layer.rate, (x.shape[0], *places, x.shape[-1]))
