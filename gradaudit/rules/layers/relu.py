"""ReLU, LeakyReLU and ELU."""

import functools

from keras import activations, layers

from gradaudit.rules.calls import apply_activation
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/activations/{}.py"
_OPTIONS = {
    layers.ReLU: (activations.relu, ("negative_slope", "max_value", "threshold")),
    layers.LeakyReLU: (activations.leaky_relu, ("negative_slope",)),
    layers.ELU: (activations.elu, ("alpha",)),
}


def _cases(layer, *chosen, kinks=(0.0,)):
    return [
        Case(
            ", ".join(f"{name}={value}" for name, value in options.items()) or "default",
            functools.partial(layer, **options),
            (3, 5),
            (*kinks, *map(float, options.values())),
        )
        for options in chosen
    ]


@rule(
    layers.ReLU,
    cases=_cases(
        layers.ReLU,
        {},
        {"max_value": 6},
        {"max_value": 1.5},
        {"negative_slope": 0.1},
        {"threshold": 0.5},
        {"negative_slope": 0.1, "threshold": 0.5},
        {"max_value": 1.5, "threshold": 0.5},
        {"max_value": 6, "threshold": 0.5},
        {"max_value": 6, "negative_slope": 0.1},
        {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.5},
    ),
    source=_SOURCE.format("relu"),
)
@rule(
    layers.LeakyReLU,
    cases=_cases(layers.LeakyReLU, {}, {"negative_slope": 0.1}, {"negative_slope": 0}),
    source=_SOURCE.format("leaky_relu"),
)
@rule(
    layers.ELU,
    cases=_cases(layers.ELU, {}, {"alpha": 0.5}),
    source=_SOURCE.format("elu"),
)
def relu(call, x):
    """Apply y = f(x), f the activation of that name with the layer's options.

    Shapes: x and y alike.
    VJP:    dx = f'(x) dy.
    Kinks:  those of the activation.
    """
    activation, names = _OPTIONS[type(call.layer)]
    options = {name: getattr(call.layer, name) for name in names}
    y, vjp = apply_activation(functools.partial(activation, **options), x)
    return y, lambda dy: (vjp(dy), {})
