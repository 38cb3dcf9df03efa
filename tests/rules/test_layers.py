"""What the cases of a layer's rule cannot show: data of a kind, and audits of it."""

import dataclasses

import keras
import numpy as np
import pytest

import gradaudit
from gradaudit.rules import Case, find_rule
from gradaudit.testing import CHECKS, check_rule


def test_a_row_of_zeros_passes_through_a_normalized_dot():
    keras.utils.set_random_seed(1)
    a, b = keras.Input((3,)), keras.Input((3,))
    y = keras.layers.Dot(1, normalize=True)([keras.layers.Dense(3)(a), b])
    model = keras.Model([a, b], y)
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    others = x + np.float32(0.3)
    x[1] = 0.0
    assert gradaudit.check(model, [x, others], np.ones((4, 1))).verdict == "pass"


def embedding(tokens):
    layer = keras.layers.SpectralNormalization(keras.layers.Embedding(9, 3))
    model = keras.Sequential([keras.Input((2,), dtype=tokens.dtype.name), layer])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    return gradaudit.check(model, tokens, np.ones((*tokens.shape, 1)))


def test_a_spectrally_normalized_embedding_of_numbers_is_derived():
    layer = keras.layers.SpectralNormalization
    case = Case("numbers", lambda: layer(keras.layers.Embedding(9, 3)), (4, 2), ties=True)
    # Numbers that are cut off to ids have no cotangent, and NaN is no id; and SGD does not add the
    # parts of a sparse gradient: the audit below gives each row once.
    others = ("every_weight_has_a_cotangent", "nan_makes_nan", "audit_passes")
    checks = [name for name in CHECKS if name not in others]
    check_rule(dataclasses.replace(find_rule(layer), cases=(case,)), checks)
    assert embedding(np.float32([[0, 1], [2, 3], [4, 8]])).verdict == "pass"


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
def test_a_spectrally_normalized_embedding_of_integers_has_no_gradient():
    run = embedding(np.int32([[0, 1], [2, 3], [4, 8]]))
    assert run.verdict == "pass"
