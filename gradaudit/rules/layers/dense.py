"""Dense."""

from keras import layers

from gradaudit.rules.registry import Case, rule


@rule(
    layers.Dense,
    cases=[
        Case("linear", lambda: layers.Dense(3), (4, 5)),
        Case("tanh", lambda: layers.Dense(3, activation="tanh"), (4, 5)),
        Case("relu", lambda: layers.Dense(3, activation="relu"), (4, 5)),
        Case("softmax", lambda: layers.Dense(3, activation="softmax"), (4, 5)),
        Case("no bias", lambda: layers.Dense(3, use_bias=False), (4, 5)),
        Case("3-D", lambda: layers.Dense(2, activation="sigmoid"), (4, 3, 5)),
        Case("one row", lambda: layers.Dense(2), (1, 3)),
    ],
    source="keras/src/layers/core/dense.py",
    weights=("kernel", "bias"),
    ends_with_activation=True,
)
def dense(call, x):
    """Apply y = f(z), z = x @ kernel + bias.

    Shapes: x (N, ..., I), kernel (I, O), bias (O,), y (N, ..., O).
    VJP:    dz = f'(z) dy; dx = dz kernelᵀ; dkernel = Σₙ xᵀ dz; dbias = Σₙ dz.
    Kinks:  those of the activation.
    Gaps:   quantized and LoRA weights.
    """
    kernel, bias = call.weights["kernel"], call.weights.get("bias")
    z = x @ kernel
    if bias is not None:
        z = z + bias
    y, activation_vjp = call.activate(z)

    def vjp(dy):
        dz = activation_vjp(dy)
        rows, drows = x.reshape(-1, x.shape[-1]), dz.reshape(-1, dz.shape[-1])
        cotangents = {"kernel": rows.T @ drows}
        if bias is not None:
            cotangents["bias"] = drows.sum(axis=0)
        return dz @ kernel.T, cotangents

    return y, vjp
