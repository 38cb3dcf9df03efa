"""Repeats a random draw of a training step, from the state that its seed generator had."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Replay:
    """Draws with `keras.random` from given seed states, compiled as the step was.

    jit: whether the step is compiled by XLA, whose generators may differ.
    """

    def __init__(self, jit: bool) -> None:
        self._jit = jit
        self._seed = keras.random.SeedGenerator(0)
        self._compiled = functools.lru_cache(maxsize=64)(self._compile)
        self._drawn = functools.lru_cache(maxsize=64)(self._run)

    def __call__(
        self, name: str, state: np.ndarray, shape: tuple[int, ...], dtype: str, **options: Any
    ) -> np.ndarray:
        """Return what `keras.random.<name>` draws at a seed state.

        "dropout" is drawn for ones of the shape; another function takes the shape itself.
        """
        key = (name, tuple(shape), dtype, tuple(sorted(options.items())))
        return self._drawn(key, tuple(int(part) for part in state))

    def _run(self, key: tuple, state: tuple[int, ...]) -> np.ndarray:
        self._seed.state.assign(np.array(state, self._seed.state.dtype))
        return np.asarray(self._compiled(*key)(), np.float64)

    def _compile(self, name: str, shape: tuple[int, ...], dtype: str, options: tuple) -> Any:
        def draw() -> tf.Tensor:
            function = getattr(keras.random, name)
            if name == "dropout":
                return function(tf.ones(shape, dtype), **dict(options), seed=self._seed)
            return function(shape, dtype=dtype, **dict(options), seed=self._seed)

        # A concrete function: TensorFlow takes one more tf.function for each audit for retracing.
        return tf.function(draw, jit_compile=self._jit).get_concrete_function()
