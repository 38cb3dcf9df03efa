"""ReLU, LeakyReLU and ELU."""

import functools
import itertools

from keras import activations, layers

from gradaudit.rules.context import apply_activation
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/layers/activations/{}.py"
_OPTIONS = {
    layers.ReLU: (activations.relu, ("negative_slope", "max_value", "threshold")),
    layers.LeakyReLU: (activations.leaky_relu, ("negative_slope",)),
    layers.ELU: (activations.elu, ("alpha",)),
}


def _cases(layer, **values):
    """Return a case for each choice of one value of each option; None leaves it out."""
    cases = []
    for chosen in itertools.product(*values.values()):
        options = {k: v for k, v in zip(values, chosen, strict=True) if v is not None}
        name = ", ".join(f"{k}={v}" for k, v in options.items()) or "default"
        kinks = (0.0, *map(float, options.values()))
        cases.append(Case(name, functools.partial(layer, **options), (3, 5), kinks))
    return cases


@rule(
    layers.ReLU,
    cases=_cases(
        layers.ReLU, negative_slope=(None, 0.1), max_value=(None, 1.5, 6), threshold=(None, 0.5)
    ),
    source=_SOURCE.format("relu"),
)
@rule(
    layers.LeakyReLU,
    cases=_cases(layers.LeakyReLU, negative_slope=(None, 0.1, 0)),
    source=_SOURCE.format("leaky_relu"),
)
@rule(
    layers.ELU,
    cases=_cases(layers.ELU, alpha=(None, 0.5)),
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
    y, vjp = apply_activation(functools.partial(activation, **options), x, call.misleads)
    return y, lambda dy: (vjp(dy), {})
