"""Identity and ActivityRegularization."""

from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Identity,
    cases=[Case("default", lambda: layers.Identity(), (3, 4))],
    source="keras/src/layers/core/identity.py",
    integers=True,
)
@rule(
    layers.ActivityRegularization,
    cases=[
        Case("L1", lambda: layers.ActivityRegularization(l1=0.1), (3, 4)),
        Case("L2", lambda: layers.ActivityRegularization(l2=0.1), (3, 4)),
    ],
    source="keras/src/layers/regularization/activity_regularization.py",
    integers=True,
)
def identity(call, x):
    """Pass x on; the penalty of ActivityRegularization is that of any activity regularizer.

    Shapes: x and y alike.
    VJP:    dx = dy, to which the penalty's gradient is added outside.
    Kinks:  none.
    """
    return x, lambda dy: (dy, {})
