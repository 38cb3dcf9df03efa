"""One of two workers that train together, for test_workers.py: [folder of the report]."""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import trainer

from gradaudit import GradientAudit
from gradaudit.errors import UsageError

strategy = tf.distribute.MultiWorkerMirroredStrategy()
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x, y = rng.standard_normal((32, 4)).astype("float32"), rng.integers(0, 3, 32)
with strategy.scope():
    hidden = keras.layers.Dense(5, "tanh", kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, "softmax")])
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy")


def build(iterator=None, data_batch=None):
    with strategy.scope():
        model._symbolic_build(data_batch=(x[:4], y[:4]))


# Keras 3.15 cannot fit under this strategy (github.com/keras-team/keras/issues/20585): it reduces
# the first batch as if it were one tensor, and its logs along an axis that they do not have.
model._maybe_symbolic_build = build
trainer._collective_all_reduce_multi_worker = lambda strategy: False

callbacks = [GradientAudit(sys.argv[1], steps=(0, 1, 5))] if len(sys.argv) > 1 else []
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
history = model.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=callbacks).history
variables = [*model.variables, *model.optimizer.variables]
print(json.dumps([history, [v.value.numpy().tolist() for v in variables]]))

for options in ({"budget": 0.05}, {"on_fail": "stop"}) if callbacks else ():
    try:
        refused = [GradientAudit(sys.argv[1] + "-2", **options)]
        model.fit(data, verbose=0, shuffle=False, callbacks=refused)
    except UsageError as error:
        print(error)
