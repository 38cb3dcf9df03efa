"""Recorded steps of several nets, and their verdicts as tables; also run as a program.

`python recorded_steps.py FILE ...` judges each file and prints its table: with the model's code,
and once more without it where derived rules cover the net.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import read_step, write_step
from gradaudit.records import Oracle
from gradaudit.reference import Policy, derive
from gradaudit.report import InMemory
from gradaudit.scoring import compare

ROWS = 6


class Squashed(layers.Layer):
    """A layer without a derived rule: it is traced."""

    def call(self, x):
        return x / (1 + ops.abs(x))


def dense():
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "tanh", name="part_0"),
        layers.Dense(3, name="part_1"),
    ]
    return keras.Sequential(stack, name="dense"), {"optimizer": "adam"}


def images():
    stack = [
        keras.Input((6, 6, 2)),
        layers.Conv2D(3, 3, name="part_0"),
        layers.BatchNormalization(name="part_1"),
        layers.ReLU(name="part_2"),
        layers.Flatten(name="part_3"),
        layers.Dropout(0.4, seed=3, name="part_4"),
        layers.Dense(3, name="part_5"),
    ]
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01)
    return keras.Sequential(stack, name="images"), {"optimizer": optimizer}


def words():
    stack = [
        keras.Input((5,), dtype="int32"),
        layers.Embedding(ROWS * 5, 4, mask_zero=True, name="part_0"),
        layers.LSTM(4, name="part_1"),
        layers.Dense(3, name="part_2"),
    ]
    return keras.Sequential(stack, name="words"), {
        "optimizer": keras.optimizers.RMSprop(0.01, clipnorm=0.5)
    }


def compiled_by_xla():
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "gelu", kernel_regularizer="l2", name="part_0"),
        layers.Dense(3, name="part_1"),
    ]
    return keras.Sequential(stack, name="compiled_by_xla"), {
        "optimizer": "adamw",
        "jit_compile": True,
    }


def with_code():
    stack = [
        keras.Input((4,)),
        layers.Dense(5, name="part_0"),
        Squashed(name="part_1"),
        layers.Dense(3, name="part_2"),
    ]
    return keras.Sequential(stack, name="with_code"), {"optimizer": "nadam"}


def odd():
    """Its second step has three targets for one prediction, which the derived rule refuses."""
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "sigmoid", name="part_0"),
        layers.Dense(1, name="part_1"),
    ]
    return keras.Sequential(stack, name="odd"), {"optimizer": "sgd"}


def graph():
    """A functional net with a nested one, a shared layer, operations and slices."""
    x = keras.Input((6,))
    stack = [keras.Input((6,)), layers.Dense(5, "tanh", name="in_0"), layers.Dense(6, name="in_1")]
    nested = keras.Sequential(stack, name="part_0")
    shared = layers.Dense(6, "gelu", name="part_1")
    h = shared(shared(nested(x) * 1.5))
    h = ops.reshape(ops.concatenate([h[:, 1:4], x[:, ::2]], axis=1), (-1, 2, 3))
    h = ops.mean(h, axis=1) + ops.exp(-ops.max(h, axis=1))
    h = layers.Dense(3, name="part_2")(h)
    return keras.Model(x, h, name="graph"), {"optimizer": "rmsprop"}


def attention():
    x = keras.Input((5, 4))
    h = layers.MultiHeadAttention(2, 3, dropout=0.1, seed=3, name="part_0")(x, x)
    h = layers.LayerNormalization(name="part_1")(h + x)
    h = layers.GlobalAveragePooling1D(name="part_2")(h)
    h = layers.Dense(3, name="part_3")(h)
    return keras.Model(x, h, name="attention"), {"optimizer": "adamw"}


def both_ways():
    """A bidirectional LSTM with a mask."""
    x = keras.Input((5,), dtype="int32")
    h = layers.Embedding(ROWS * 5, 4, mask_zero=True, name="part_0")(x)
    h = layers.Bidirectional(layers.LSTM(3, name="lstm"), name="part_1")(h)
    h = layers.Dense(3, name="part_2")(h)
    return keras.Model(x, h, name="both_ways"), {"optimizer": "nadam"}


def two_outputs():
    """Two outputs with two losses; that of the second one uses `keras.config.epsilon()`."""
    x = keras.Input((4,))
    h = layers.Dense(4, "tanh", name="part_0")(x)
    outputs = {"a": layers.Dense(3, name="a")(h), "b": layers.Dense(3, "softplus", name="b")(h)}
    model = keras.Model(x, outputs, name="two_outputs")
    losses, weights = {"a": "mse", "b": "poisson"}, {"a": 0.3, "b": 2.0}
    return model, {"optimizer": "adam", "loss": losses, "loss_weights": weights}


def half_precision():
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "relu", dtype="mixed_float16", name="part_0"),
        layers.Dense(3, dtype="float32", name="part_1"),
    ]
    inner = keras.optimizers.Adam(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    return keras.Sequential(stack, name="half_precision"), {"optimizer": optimizer}


def accumulating():
    """Gradients of two steps are accumulated; weights are averaged, and one is constrained."""
    constraint = keras.constraints.MaxNorm(0.3)
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "relu", kernel_constraint=constraint, name="part_0"),
        layers.Dense(3, name="part_1"),
    ]
    optimizer = keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.9
    )
    return keras.Sequential(stack, name="accumulating"), {"optimizer": optimizer}


NETS = {
    make.__name__: make
    for make in (
        dense,
        images,
        words,
        compiled_by_xla,
        with_code,
        odd,
        graph,
        attention,
        both_ways,
        two_outputs,
        half_precision,
        accumulating,
    )
}
TRACED = {"with_code", "odd"}
"""Nets with a part, or a step, that no derived rule covers."""


def built(name):
    keras.utils.set_random_seed(2)
    model, options = NETS[name]()
    model.compile(**{"loss": "huber", **options})
    return model


def batches(model, steps):
    """Yield x and y of each step."""
    rng = np.random.default_rng(3)

    def drawn(tensor, width=None):
        shape = ROWS, *tensor.shape[1:-1], width or tensor.shape[-1]
        if tensor.dtype == "int32":
            # Each word once, the padding 0 too: updates by a repeated one are not all derived.
            return rng.permutation(ROWS * 5).reshape(shape)
        return rng.standard_normal(shape).astype(np.float32)

    outputs = model.outputs[0] if len(model.outputs) == 1 else model.output
    for step in range(steps):
        width = 3 if model.name == "odd" and step == 1 else None
        x = drawn(model.inputs[0])
        yield x, keras.tree.map_structure(lambda out, width=width: drawn(out, width), outputs)


def record(folder, name, steps):
    """Train a net for some steps and write each to a file; return the files and what they hold."""
    model, found = built(name), []
    for step, (x, y) in enumerate(batches(model, steps)):
        path = folder / f"{name}-{step}.step"
        found.append((path, recorded(model, x, y)))
        write_step(path, *found[-1][1])
        model.train_on_batch(x, y)
    return found


def table(step_record, spec, oracle=Oracle.DERIVED):
    """Return the verdicts on a step as text."""
    reference = derive(step_record, spec, Policy(oracle=oracle))
    rows = InMemory()
    run = rows.report(compare(step_record, reference, 8.0, sink=rows), {})
    return "\n".join(table.to_csv() for table in (run.tensors, run.weights))


def tables(path):
    """Return the tables of a file, judged with the model's code, and without it where it can be."""
    name = path.name.partition("-")[0]
    found = [table(*read_step(path, built(name)))]
    return found if name in TRACED else [*found, table(*read_step(path))]


if __name__ == "__main__":
    import recorded_steps  # files name the classes of this module, not those of __main__

    for file in sys.argv[1:]:
        for each in recorded_steps.tables(Path(file)):
            print(each)
