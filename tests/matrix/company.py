"""Other callbacks, before and after the audit in the list."""

import tempfile
from pathlib import Path

from keras import callbacks, optimizers

from matrix.cell import Cell, classifier, fitted


def _folder():
    return Path(tempfile.mkdtemp())


class Notes(callbacks.Callback):
    """Notes everything that Keras tells it."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def on_train_batch_end(self, batch, logs=None):
        self.notes.append((batch, dict(logs), type(self.model.train_function).__name__))

    def on_epoch_end(self, epoch, logs=None):
        self.notes.append((epoch, dict(logs)))


def among(make, before, **options):
    """Return a training with the callbacks of `make()` before or after those that are given."""
    options = {"validation_split": 0.2, "epochs": 3, **options}

    def train(model, given):
        others = make()
        history = fitted(**options)(model, [*others, *given] if before else [*given, *others])
        notes = [other.notes for other in others if isinstance(other, Notes)]
        return [history, notes, model.stop_training]

    return train


COMPANY = {
    "EarlyStopping": lambda: [
        callbacks.EarlyStopping("loss", min_delta=10.0, patience=0, restore_best_weights=True)
    ],
    "ModelCheckpoint": lambda: [callbacks.ModelCheckpoint(str(_folder() / "model.keras"))],
    "ModelCheckpoint of the weights, every 2 steps": lambda: [
        callbacks.ModelCheckpoint(
            str(_folder() / "{batch}.weights.h5"), save_weights_only=True, save_freq=2
        )
    ],
    "TensorBoard": lambda: [
        callbacks.TensorBoard(_folder(), histogram_freq=1, update_freq="batch")
    ],
    "CSVLogger": lambda: [callbacks.CSVLogger(str(_folder() / "log.csv"))],
    "BackupAndRestore": lambda: [callbacks.BackupAndRestore(_folder(), save_freq=2)],
    "TerminateOnNaN": lambda: [callbacks.TerminateOnNaN()],
    "ReduceLROnPlateau": lambda: [
        callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=10.0, factor=0.5)
    ],
    "LearningRateScheduler": lambda: [callbacks.LearningRateScheduler(lambda e: 0.1 / (1 + e))],
    "LambdaCallback": lambda: [callbacks.LambdaCallback(on_train_batch_begin=lambda b, logs: None)],
    "a callback that notes all logs": lambda: [Notes()],
    "all of these": lambda: [
        Notes(),
        callbacks.TensorBoard(_folder()),
        callbacks.EarlyStopping("loss"),
        callbacks.CSVLogger(str(_folder() / "log.csv")),
        callbacks.ReduceLROnPlateau("loss"),
    ],
}


def averaging():
    return classifier(optimizer=optimizers.SGD(0.1, use_ema=True))


CELLS = (
    *(
        Cell(f"{name}, {'before' if before else 'after'} the audit", classifier,
             among(make, before))
        for name, make in COMPANY.items()
        for before in (True, False)
    ),
    Cell("SwapEMAWeights", averaging,
         among(lambda: [callbacks.SwapEMAWeights(swap_on_epoch=True)], True)),
    Cell("the progress bar", classifier,
         fitted(verbose=2)),
)  # fmt: skip
