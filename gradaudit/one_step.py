"""One audited step outside of `fit`: `check` and `audit_gradients`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from gradaudit import keras_compat
from gradaudit.audit.selection import Selection
from gradaudit.audit.settings import OnFail, Settings
from gradaudit.audit.single_step import check_compiled, check_rows, judged, recorded
from gradaudit.backends import backend_of
from gradaudit.errors import UsageError
from gradaudit.records import DEFAULT_THRESHOLD, Stage
from gradaudit.reference import Policy, graph_of, is_graph
from gradaudit.report import Run
from gradaudit.rules import variable_keys


def check(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    layers: str | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    oracle: Literal["derived", "traced", "both"] = "derived",
    expect: Mapping[str, str] = MappingProxyType({}),
    rows_per_tensor: int | Literal["all"] | None = None,
) -> Run:
    """Audit one step of a compiled model on one batch, without training it.

    The model's own train step runs once, compiled as in `fit`. Then every variable of the model and
    its optimizer gets its value back. A model or an optimizer that is not built yet is built.

    Args:
        model: a compiled Keras model with one replica.
        x: the inputs of one batch, as `train_on_batch` takes them.
        y: its targets.
        sample_weight: its weights, one for each sample.
        layers: regular expression; audit the weights of layers in whose path it is found.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        oracle: "derived" rules, with traces of code that has none; "traced" alone; or "both".
            See GradientAudit.
        expect: custom gradients to accept. See GradientAudit.
        rows_per_tensor: which weights of a tensor are in `.weights`. See GradientAudit.

    Returns:
        The report: `.verdict`, `.steps`, `.tensors`, `.weights`, `.run`, `.raise_for_failure()`.

    Raises:
        UsageError: the model is not compiled, or is distributed over several replicas; x is no
            batch, or has no rows; no trainable weight is asked for; the threshold is not above 0.

    Example:
        >>> import gradaudit, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.random.default_rng(0).random((8, 2)), np.ones((8, 1))
        >>> gradaudit.check(model, x, y)
        <gradaudit.Run: pass, 1 step audited>
        >>> gradaudit.check(model, x, y).raise_for_failure()  # in a test: nothing is raised
    """
    check_compiled(model)
    settings = Settings(
        selection=Selection(layers=layers),
        threshold=threshold,
        oracle=oracle,
        expect=expect,
        rows_per_tensor=rows_per_tensor,
        on_fail=OnFail.RAISE,
    )
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise UsageError(
            f"the model {model.name!r} is distributed over several replicas. Expected one replica. "
            "Audit it in fit, with GradientAudit."
        )
    if isinstance(x, tf.data.Dataset):
        raise UsageError(
            "x is a tf.data.Dataset. Expected one batch of arrays or tensors, such as those of "
            "next(iter(dataset))."
        )
    wanted = settings.selection.weight
    keys = variable_keys(model)
    paths = [keys[id(v)] for v in model.trainable_variables]
    if model.built and not any(map(wanted, paths)):
        raise UsageError(
            f"no weight is asked for by layers={layers!r}. Expected an expression that is found in "
            f"the layer of one of the model's trainable weights: {', '.join(paths) or 'none'}."
        )
    return judged(model, *recorded(model, x, y, sample_weight), settings)


def audit_gradients(
    loss_fn: Any,
    variables: Sequence[keras.Variable],
    gradients: Sequence[tf.Tensor | None],
    *,
    model: keras.Model,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    loss_scale: float = 1.0,
    threshold: float = DEFAULT_THRESHOLD,
    rows_per_tensor: int | Literal["all"] | None = None,
) -> Run:
    """Audit the gradients that a tape returned in your own training loop.

    Call it after `tape.gradient` and before the optimizer changes the weights. The gradients must
    be those of `loss_fn(y, model(x, training=True), sample_weight)` plus the regularization losses
    of the model.

    Args:
        loss_fn: a Keras loss, or anything that `compile` accepts as one.
        variables: trainable variables of the model, as given to `tape.gradient`.
        gradients: what it returned; None for no gradient.
        model: the Keras model that was called.
        x: the inputs of the batch that the tape saw.
        y: its targets.
        sample_weight: what `loss_fn` was given besides, if anything.
        loss_scale: by how much the loss was scaled, as by `optimizer.scale_loss`.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        rows_per_tensor: which weights of a tensor are in `.weights`. See GradientAudit.

    Returns:
        The report: `.verdict`, `.steps`, `.tensors`, `.weights`, `.run`, `.raise_for_failure()`.
        It has no stage `update`.

    Raises:
        UsageError: the numbers of gradients and variables differ, a gradient does not have its
            variable's shape, a variable is not a trainable one of the model, x and y have no rows
            or different numbers of rows, or it was called within a tf.function.

    Example:
        >>> import gradaudit, keras, numpy as np, tensorflow as tf
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> loss_fn, weights = keras.losses.MeanSquaredError(), model.trainable_variables
        >>> x, y = np.random.default_rng(0).random((8, 2)), np.ones((8, 1))
        >>> with tf.GradientTape() as tape:
        ...     loss = loss_fn(y, model(x, training=True))
        >>> gradients = tape.gradient(loss, weights)
        >>> gradaudit.audit_gradients(loss_fn, weights, gradients, model=model, x=x, y=y)
        <gradaudit.Run: pass, 1 step audited>
        >>> wrong = [2 * g for g in gradients]
        >>> run = gradaudit.audit_gradients(loss_fn, weights, wrong, model=model, x=x, y=y)
        >>> list(run.tensors["cause"])
        ['twice too large', 'twice too large']
    """
    settings = Settings(threshold=threshold, rows_per_tensor=rows_per_tensor, on_fail=OnFail.RAISE)
    if any(tf.is_symbolic_tensor(g) for g in gradients if g is not None):
        raise UsageError(
            "the gradients are symbolic: audit_gradients was called within a tf.function. Expected "
            "numbers. Return the gradients from the function, and audit them outside of it."
        )
    keys = variable_keys(model)
    known = {id(v): keys[id(v)] for v in model.trainable_variables}
    if len(variables) != len(gradients):
        raise UsageError(
            f"there are {len(gradients)} gradients for {len(variables)} variables. Expected one "
            "for each, as tape.gradient(loss, variables) returns them."
        )
    strangers = [getattr(v, "path", v) for v in variables if id(v) not in known]
    if strangers:
        raise UsageError(
            f"{', '.join(map(str, strangers))}: no trainable variable of the model {model.name!r}. "
            "Expected model.trainable_variables, or some of them."
        )
    for v, g in zip(variables, gradients, strict=True):
        if g is not None and tuple(g.shape) != tuple(v.shape):
            raise UsageError(
                f"the gradient for {known[id(v)]} has the shape {tuple(g.shape)}. Expected "
                f"{tuple(v.shape)}, that of the variable: are the gradients in another order?"
            )
    check_rows(x, y, sample_weight)
    rows = [np.shape(part)[0] for part in tree.flatten((x, y)) if np.ndim(part)]
    if len(set(rows)) > 1:
        raise UsageError(
            f"x and y have {' and '.join(map(str, rows))} rows. Expected one batch, the one that "
            "the tape saw."
        )
    given = {known[id(v)]: g for v, g in zip(variables, gradients, strict=True)}
    backend = backend_of(model)
    seen = backend.to_numpy({"x": x, "y": y, "sample_weight": sample_weight, "gradients": given})
    before = backend.uncaptured(model, step=0, epoch=0)
    record = replace(before, **seen, loss_scale=float(loss_scale))
    subject = _compiled_with(loss_fn, model, (x, y, sample_weight))
    spec = backend.specified(subject, backend.Replay(jit=False))
    policy = Policy(given.__contains__, (Stage.GRADIENT,))
    return judged(model, record, spec, settings, policy, has_drawn=True)


class _Called(keras.Model):
    """Calls a model that has its own code, so that it can be compiled with another loss."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name=model.name, dtype=model.dtype_policy)
        self.model = model

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.model(x, training=training)


def _compiled_with(loss_fn: Any, model: keras.Model, batch: tuple[Any, ...]) -> keras.Model:
    """Return a model of the same layers, compiled with a loss and without an optimizer."""
    if is_graph(model):
        subject = keras.Model(*keras_compat.structures(graph_of(model)), name=model.name)
        subject.dtype_policy = model.dtype_policy
    else:
        subject = _Called(model)
    subject.compile(optimizer=None, loss=loss_fn)
    keras_compat.build(subject, batch)
    return subject
