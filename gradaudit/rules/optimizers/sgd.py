"""SGD, with momentum and Nesterov's momentum."""

from keras import optimizers

from gradaudit.rules.registry import Case, rule


@rule(
    optimizers.SGD,
    cases=[
        Case("plain", lambda: optimizers.SGD(0.1), (3, 4)),
        Case("momentum", lambda: optimizers.SGD(0.1, momentum=0.9), (3, 4)),
        Case("nesterov", lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True), (3, 4)),
    ],
    source="keras/src/optimizers/sgd.py",
    slots=(("momentum", "momentums"),),
    elementwise=True,
)
def sgd(call, weight, gradient, slots):
    """Apply one step of stochastic gradient descent with learning rate η and momentum μ.

    Shapes: weight, gradient and momentum m alike.
    Update: plain: w − η g. Momentum: m' = μ m − η g; w + m'. Nesterov: w + μ m' − η g.
    """
    step = gradient * call.learning_rate
    if call.optimizer.momentum == 0:
        return weight - step, {}
    momentum = call.number(call.optimizer.momentum)
    m = slots["momentum"] * momentum - step
    moved = m * momentum - step if call.optimizer.nesterov else m
    return weight + moved, {"momentum": m}
