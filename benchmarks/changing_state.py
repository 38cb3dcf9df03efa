"""Fits whose Python state changes on the way, with and without an audit: the weights, bit for bit.

    python benchmarks/changing_state.py [COUNT] [FIRST]

Each case is made from its number: a model whose layers and loss read flags, floats, lists and
random numbers of Python while they are traced; one to three calls of `fit` on data of changing
shapes; callbacks that change the state between fits, epochs and steps, freeze layers, or compile
again with other metrics; and an audit of all, some or late steps, in all of the fits or in some.
Prints how many left the same weights, optimizer variables and history as without the audit, and in
how many a step was told stale.
"""

import random
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from gradaudit import GradientAudit, load

OUTSIDE = {"margin": 0.1}
"""A global that a loss reads."""
AUDITS = (
    {},
    {"every": 2},
    {"every": "epoch"},
    {"first": 1},
    {"first": 2},
    {"steps": (1,)},
    {"steps": (3,)},
    {"steps": (2, 5)},
    {"steps": (4, 5, 6)},
)


class Stateful(keras.layers.Layer):
    """Reads its Python attributes in `call`: a trace makes constants of them."""

    slope = 1.0  # of the class

    def __init__(self, **options):
        super().__init__(**options)
        self.scale, self.is_curved, self.shifts, self.beta = 1.0, False, [0.5], 0.0
        self.noisy, self.generator, self.draws, self.traces = False, np.random.default_rng(7), 0, 0

    def call(self, x):
        y = self.slope * self.scale * x
        for shift in self.shifts:
            y = y + shift
        if self.is_curved:
            y = tf.tanh(y)
        if self.noisy:
            y = y + np.float32(np.random.normal())  # noqa: NPY002 - what users do
        if self.draws:
            y = y + np.float32(self.generator.normal())
        if self.beta:
            self.add_loss(self.beta * tf.reduce_mean(tf.square(y)))
        return y


class Streaming(keras.layers.Layer):
    """Draws from TensorFlow's stateful generator."""

    def call(self, x):
        return x + 0.1 * tf.random.normal(tf.shape(x))


class Subclassed(keras.Model):
    """Its own code, with or without an argument `training`."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


class InTraining(Subclassed):
    """Its own code, with an argument `training`."""

    def call(self, x, training=None):
        return super().call(x)


class OwnStep(keras.Sequential):
    """A training step of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


@dataclass
class Case:
    """One case, made from its number. Its changes: (fit, epoch, batch, what is changed, to what).

    Of a change between fits, the epoch and the batch are None.
    """

    number: int

    def __post_init__(self):
        rng = random.Random(self.number)
        self.form = rng.choice(("built", "built", "unbuilt", "own step", "in training", "no mode"))
        self.optimizer = rng.choice(("sgd", "adam"))
        self.mode = rng.choice(("graph",) * 12 + ("executions",) * 3 + ("jit", "eager"))
        self.parts = rng.choice((("dropout",), ("norm",), ("streaming",), (), ()))
        if self.mode == "jit" and self.parts == ("streaming",):
            self.parts = ()  # XLA's own generator is of the process: no two trainings are alike
        self.plain_loss = rng.random() < 0.3
        self.noisy, self.draws = rng.random() < 0.15, rng.random() < 0.1
        self.fits = [
            (rng.choice((8, 10, 13)), rng.choice((4, 5)), rng.choice((4, 4, 6)), rng.choice((1, 2)))
            for _ in range(rng.choice((1, 2, 2, 3)))
        ]
        self.changes = []
        for fit in range(len(self.fits)):
            for _ in range(rng.choice((0, 1, 1, 2))):
                name = rng.choice(tuple(CHANGES))
                epoch, batch = rng.choice((None, 0, 1)), rng.choice((None, None, 0, 1, 2))
                if epoch is None or name == "metrics":  # Keras can compile between fits alone
                    epoch = batch = None
                self.changes.append((fit, epoch, batch, name, rng.random()))
        self.audit = rng.choice(AUDITS)
        self.audited = {rng.randrange(len(self.fits))} if rng.random() < 0.3 else None

    def model(self):
        layers = [
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(4, name="first"),
            Stateful(name="stateful"),
            *(LAYERS[part]() for part in self.parts),
            keras.layers.Dense(1, name="last"),
        ]
        layers[2].noisy, layers[2].draws = self.noisy, self.draws
        if self.form in ("in training", "no mode"):
            return (InTraining if self.form == "in training" else Subclassed)(layers)
        kind = OwnStep if self.form == "own step" else keras.Sequential
        return kind(layers if self.form == "unbuilt" else [keras.Input((None, 3)), *layers])

    def compile(self, model, metrics=None):
        def loss(y, y_pred):
            return tf.reduce_mean(tf.nn.relu(tf.abs(y - y_pred) - OUTSIDE["margin"]))

        model.compile(
            getattr(model, "optimizer", None) or self.optimizer,
            "mse" if self.plain_loss else loss,
            metrics=None if self.form == "own step" else metrics,
            jit_compile=self.mode == "jit",
            run_eagerly=self.mode == "eager",
            steps_per_execution=2 if self.mode == "executions" else 1,
        )

    def train(self, audit=None):
        """Train; return all that must not depend on an audit."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(self.number)
        OUTSIDE["margin"], Stateful.slope = 0.1, 1.0
        model, rng, left = self.model(), np.random.default_rng(self.number), []
        self.compile(model)
        for number, (rows, size, length, epochs) in enumerate(self.fits):
            x = rng.normal(size=(rows, length, 3)).astype("float32")
            y = rng.normal(size=(rows, 1)).astype("float32")
            changing = Changing(self, number)
            changing.do(model, None, None)
            is_audited = audit and (self.audited is None or number in self.audited)
            # After the changes, so that the audit meets what Keras's function would meet.
            callbacks = [changing, audit] if is_audited else [changing]
            try:
                history = model.fit(
                    x, y, size, epochs, verbose=0, callbacks=callbacks, shuffle=number % 2 == 0
                )
            except ValueError as error:  # Keras's own, of weights that its optimizer does not know
                left.append({"error": str(error)})
                break
            left.append(history.history)
        variables = [*model.variables, *model.optimizer.variables]
        return [*left, *(np.array(v.value.numpy()) for v in variables)]


class Changing(keras.callbacks.Callback):
    """Changes the state at its time."""

    def __init__(self, case, fit):
        super().__init__()
        self._case, self._fit, self._epoch = case, fit, 0

    def do(self, model, epoch, batch):
        for fit, at_epoch, at_batch, name, value in self._case.changes:
            if (fit, at_epoch, at_batch) == (self._fit, epoch, batch):
                CHANGES[name](self._case, model, value)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        self.do(self.model, epoch, None)

    def on_train_batch_begin(self, batch, logs=None):
        self.do(self.model, self._epoch, batch)


def stateful(model):
    """Return the layer with the state."""
    return next(x for x in model._flatten_layers() if isinstance(x, Stateful))


def first_dense(model):
    """Return the layer that is frozen."""
    return next(x for x in model._flatten_layers() if x.name == "first")


CHANGES = {
    "scale": lambda case, model, value: setattr(stateful(model), "scale", 0.5 + value),
    "slope": lambda case, model, value: setattr(Stateful, "slope", 1.5 - value),
    "flag": lambda case, model, value: setattr(stateful(model), "is_curved", value < 0.7),
    "list": lambda case, model, value: stateful(model).shifts.append(value),
    "beta": lambda case, model, value: setattr(stateful(model), "beta", value),
    "margin": lambda case, model, value: OUTSIDE.update(margin=value / 4),
    "freeze": lambda case, model, value: setattr(first_dense(model), "trainable", False),
    "thaw": lambda case, model, value: setattr(first_dense(model), "trainable", True),
    "unused": lambda case, model, value: setattr(model, "note", value),
    "metrics": lambda case, model, value: case.compile(model, ["mae"] if value < 0.5 else ["mse"]),
}
LAYERS = {
    "dropout": lambda: keras.layers.Dropout(0.3),
    "norm": keras.layers.BatchNormalization,
    "streaming": Streaming,
}


def is_equal(some, others):
    """Return whether two trainings left the same, to the bit."""
    if len(some) != len(others):
        return False
    alike = zip(some, others, strict=True)
    return all(a == b if isinstance(a, dict) else np.array_equal(a, b) for a, b in alike)


def outcome(number):
    """Return whether a case left the same with an audit, and the report; None if none was made."""
    case = Case(number)
    alone = case.train()
    with tempfile.TemporaryDirectory() as folder:
        audit = GradientAudit(f"{folder}/run", verbose=0, **case.audit)
        found = case.train(audit)
        return is_equal(alone, found), load(f"{folder}/run")


def main(count, first):
    """Run cases, print those that are not as they should be, and count them all."""
    counts = Counter()
    for number in range(first, first + count):
        equal, run = outcome(number)
        stale = run.run["stale"]
        counts["equal"] += equal
        counts["stale"] += bool(stale)
        counts[run.verdict] += 1
        counts["faults"] += run.run["faults"]["count"]
        if not equal or run.run["faults"]["count"] or (run.verdict == "fail" and not stale):
            case = Case(number)
            print(number, "equal" if equal else "DIFFERS", run.verdict, vars(case))
            print("   ", stale, run.run["failures"][:2], run.run["faults"]["tracebacks"][-1:])
    print(f"{count} cases: {dict(counts)}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(*map(int, (sys.argv[1:] + ["200", "0"][len(sys.argv) - 1 :])))
