"""Recorded steps of several nets, and their verdicts as tables; also run as a program.

`python recorded_steps.py FILE ...` judges each file and prints its table.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import read_step, write_step
from gradaudit.records import Oracle
from gradaudit.reference import Policy, derive
from gradaudit.report.tables import tensor_rows, weight_rows
from gradaudit.scoring import compare

ROWS = 6


class Squashed(layers.Layer):
    """A layer without a derived rule: it is traced."""

    def call(self, x):
        return x / (1 + keras.ops.abs(x))


def dense():
    return (
        [keras.Input((4,)), layers.Dense(5, "tanh", name="part_0"), layers.Dense(3, name="part_1")],
        "adam",
        {},
    )


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
    return stack, keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01), {}


def words():
    stack = [
        keras.Input((5,), dtype="int32"),
        layers.Embedding(7, 4, mask_zero=True, name="part_0"),
        layers.LSTM(4, name="part_1"),
        layers.Dense(3, name="part_2"),
    ]
    return stack, keras.optimizers.RMSprop(0.01, clipnorm=0.5), {}


def compiled_by_xla():
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "gelu", kernel_regularizer="l2", name="part_0"),
        layers.Dense(3, name="part_1"),
    ]
    return stack, "adamw", {"jit_compile": True}


def with_code():
    return (
        [
            keras.Input((4,)),
            layers.Dense(5, name="part_0"),
            Squashed(name="part_1"),
            layers.Dense(3, name="part_2"),
        ],
        "nadam",
        {},
    )


def odd():
    """Its second step has three targets for one prediction, which the derived rule refuses."""
    stack = [
        keras.Input((4,)),
        layers.Dense(5, "sigmoid", name="part_0"),
        layers.Dense(1, name="part_1"),
    ]
    return stack, "sgd", {}


NETS = {make.__name__: make for make in (dense, images, words, compiled_by_xla, with_code, odd)}


def built(name):
    keras.utils.set_random_seed(2)
    stack, optimizer, options = NETS[name]()
    model = keras.Sequential(stack, name=name)
    model.compile(optimizer, "huber", **options)
    return model


def batches(name, steps):
    """Yield x and y of each step."""
    rng = np.random.default_rng(3)
    shape = {"images": (6, 6, 2), "words": (5,)}.get(name, (4,))
    for step in range(steps):
        x = rng.standard_normal((ROWS, *shape)).astype(np.float32)
        x = rng.integers(0, 7, (ROWS, *shape)) if name == "words" else x
        width = 1 if name == "odd" and step != 1 else 3
        yield x, rng.standard_normal((ROWS, width)).astype(np.float32)


def record(folder, name, steps):
    """Train a net for some steps and write each to a file; return the files and what they hold."""
    model, found = built(name), []
    for step, (x, y) in enumerate(batches(name, steps)):
        path = folder / f"{name}-{step}.step"
        found.append((path, recorded(model, x, y)))
        write_step(path, *found[-1][1])
        model.train_on_batch(x, y)
    return found


def table(step_record, spec, oracle=Oracle.DERIVED):
    """Return the verdicts on a step as text."""
    reference = derive(step_record, spec, Policy(oracle=oracle))
    comparison = compare(step_record, reference, 8.0)
    return "\n".join(rows(comparison).to_csv() for rows in (tensor_rows, weight_rows))


if __name__ == "__main__":
    for file in sys.argv[1:]:
        print(table(*read_step(file, built(Path(file).name.partition("-")[0]))))
