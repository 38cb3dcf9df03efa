"""The batches of a training: the next one, before Keras's function takes it."""

import itertools
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

ITERATORS = (tf.data.Iterator, tf.distribute.DistributedIterator)


def peeked(iterator: Any) -> tuple[Any, Any]:
    """Return the next batch, or its spec, and an iterator that still gives that batch.

    Raises:
        StopIteration: a Python iterator has ended.
    """
    if isinstance(iterator, ITERATORS):
        return iterator.element_spec, iterator
    data = next(iterator)
    return data, itertools.chain([data], iterator)


def signature(iterator: Any, data: Any) -> Any:
    """Return what decides, with the model, which trace of a function runs on the next batch."""
    if isinstance(iterator, ITERATORS):
        return type(iterator), str(iterator.element_spec)
    return None, str(
        tree.map_structure(lambda x: (np.shape(x), getattr(x, "dtype", type(x))), data)
    )


def once(data: Any, iterator: Any) -> Any:
    """Return an iterator over one batch, for which Keras's function need not be compiled anew."""
    spec = getattr(iterator, "element_spec", None)
    optional = any(isinstance(part, tf.OptionalSpec) for part in tree.flatten(spec))
    if not isinstance(iterator, tf.data.Iterator) or optional:
        return iter([data])
    return iter(tf.data.Dataset.from_generator(lambda: iter([data]), output_signature=spec))


def without_optionals(data: Any) -> Any:
    """Return data, or its spec, with None for what Keras takes as absent."""
    optional = (tf.experimental.Optional, tf.OptionalSpec)
    return tree.map_structure(lambda part: None if isinstance(part, optional) else part, data)
