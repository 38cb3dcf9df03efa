"""Activation."""

from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Activation,
    cases=[
        Case("tanh", lambda: layers.Activation("tanh"), (3, 4)),
        Case("relu", lambda: layers.Activation("relu"), (3, 4), kinks=(0.0,)),
        Case("softmax", lambda: layers.Activation("softmax"), (3, 4)),
    ],
    source="keras/src/layers/activations/activation.py",
    ends_with_activation=True,
)
def activation(call, x):
    """Apply y = f(x).

    Shapes: those of the activation.
    VJP:    dx = f'(x) dy.
    Kinks:  those of the activation.
    """
    y, vjp = call.activate(x)
    return y, lambda dy: (vjp(dy), {})
