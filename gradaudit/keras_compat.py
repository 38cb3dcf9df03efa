"""Every private name of Keras and TensorFlow that gradaudit reads, and why it is needed.

Private names may change between versions. They are read here and nowhere else, so that a new
version of Keras is met in one file. For that reason the file is longer than 300 lines.

Rules import this module, and a rule must not import TensorFlow: functions that need TensorFlow
import it themselves. Models and optimizers may be the copies that a `StepSpec` holds, which have
attributes and cannot be run. Functions on them only read, except where their docstring says so.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType
from typing import Any, NamedTuple

import keras
from keras.src import activations as _activations
from keras.src import backend as _backend
from keras.src import ops as _ops
from keras.src.backend.common import global_state
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.layers.layer import CallContext
from keras.src.layers.merging.base_merge import Merge
from keras.src.models import functional as _functional
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation
from keras.src.ops.symbolic_arguments import SymbolicArguments
from keras.src.trainers.compile_utils import CompileLoss
from keras.src.trainers.epoch_iterator import EpochIterator
from keras.src.utils import rng_utils

# The structure of a model, as plain data


class Identity:
    """Stands for TensorFlow's variable: by which name and id optimizers know it, but no value."""

    def __init__(self, name: str, unique_id: str) -> None:
        self.name = name
        self._unique_id = unique_id


STRUCTURAL = (
    Operation,  # layers and models are operations, too
    KerasTensor,
    Node,
    SymbolicArguments,
    CompileLoss,
    Identity,
    keras.Variable,
    keras.dtype_policies.DTypePolicy,
    keras.losses.Loss,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.random.SeedGenerator,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
)
"""The classes that make up a model. Those that are not exported are needed for its graph."""

QUALIFIED = {CompileLoss.Loss: (CompileLoss.__module__, "CompileLoss.Loss")}
"""Module and name of classes that do not say so themselves: here a named tuple in a class."""

_OF_VARIABLE = (
    "_name",
    "_path",
    "_shape",
    "_dtype",
    "_trainable",
    "_autocast",
    "_regularizer",
    "_constraint",
    "_overwrite_with_gradient",
    "_ndim",
)
"""What is copied of a variable."""
_NO_STRUCTURE = frozenset(
    {
        "_tracker",  # tracks attributes as they are set
        "history",  # of the last fit, with the callbacks
        "train_function",
        "test_function",
        "predict_function",
        "_compile_metrics",
        "_loss_tracker",
        "_metrics",
        "_distribution_strategy",
    }
)
_OF_CHECKPOINTS = ("_self_", "_unconditional_")
"""Attributes of TensorFlow's checkpoints begin like this."""


def attributes(instance: Any) -> Mapping[str, Any]:
    """Return the attributes of an object of `STRUCTURAL` that say what it computes.

    A variable is copied without its value: `exclude_from_weight_decay` goes by the name of
    TensorFlow's variable, and optimizers key their slots by its id.
    """
    held = vars(instance)
    if isinstance(instance, keras.Variable):
        value = instance._value
        known = {name: held[name] for name in _OF_VARIABLE if name in held}
        return {**known, "_value": Identity(value.name, value._unique_id)}
    held = {
        name: x
        for name, x in held.items()
        if name not in _NO_STRUCTURE and not name.startswith(_OF_CHECKPOINTS)
    }
    if isinstance(instance, keras.Layer):
        # add_loss notes tensors of the running trace: that there are any is what counts.
        held["_losses"] = [None] * len(held.get("_losses", ()))
    return held


_OF_CALLS = frozenset({"_losses", "_inbound_nodes", "_outbound_nodes", "_nodes"})
"""Attributes that each call of a layer writes to."""


def is_structural(instance: Any) -> bool:
    """Return whether an object is a part of a model that has options; a call of a layer has none.

    `STRUCTURAL` has the private classes.
    """
    return isinstance(instance, STRUCTURAL) and not isinstance(
        instance, (KerasTensor, Node, SymbolicArguments, Identity)
    )


def plain_attributes(instance: Any) -> dict[str, Any]:
    """Return the attributes of an object that code may read: no variables' values, no bookkeeping.

    Keras keeps calls, functions and callbacks in private attributes.
    """
    held = getattr(instance, "__dict__", {})
    if isinstance(instance, keras.Variable):
        return {name: held[name] for name in _OF_VARIABLE if name in held}
    return {
        name: x
        for name, x in held.items()
        if not (name in _NO_STRUCTURE or name in _OF_CALLS or name.startswith(_OF_CHECKPOINTS))
    }


def parts(model: keras.Model) -> list[Any]:
    """Return the layers of a model, nested ones too, and the operations of their graphs.

    A Sequential model keeps its graph as a model of its own, `_functional`.
    """
    layers = all_layers(model)
    graphs = [getattr(layer, "_functional", layer) for layer in layers]
    found = {
        id(operation): operation
        for graph in graphs
        for operation in getattr(graph, "operations", ())
        if not isinstance(operation, keras.Layer)
    }
    return [*layers, *found.values()]


# The graph of a model

Functional = _functional.Functional
"""Models with a graph are instances of it, and run that graph unless they override its `call`."""

numpy_operations = _ops.numpy
"""x + y, x[:, 1] or keras.ops.sum(x) of Keras tensors make instances of its Add, GetItem, Sum."""
nn_operations = _ops.nn
"""keras.ops.relu(x) of a Keras tensor makes an instance of its Relu."""
math_operations = _ops.math
"""keras.ops.rsqrt(x) of a Keras tensor makes an instance of its Rsqrt."""
core_operations = _ops.core
"""keras.ops.cast(x, dtype) of a Keras tensor makes an instance of its Cast."""
activation_operations = _activations.activations
"""keras.activations.relu with options makes an instance of its ReLU of a Keras tensor."""


def functional(model: keras.Sequential) -> Any:
    """Return the functional model that a Sequential one runs; None until it is built."""
    return model._functional


def nodes_by_depth(graph: Any) -> Mapping[int, Sequence[Any]]:
    """Return the calls of a functional model by their depth, the outputs at 0.

    `graph.operations` has each layer once, in no order of its calls.
    """
    return graph._nodes_by_depth


def calls(layer: Any) -> list[Any]:
    """Return the nodes of a layer's calls in graphs: what rules must know of its inputs' shapes."""
    return layer._inbound_nodes


def origin(tensor: Any) -> Any:
    """Return the operation that made a Keras tensor: an InputLayer says whether it is optional."""
    return tensor._keras_history.operation


def structures(graph: Any) -> tuple[Any, Any]:
    """Return the inputs and the outputs of a graph as the model takes and returns them.

    `graph.input` loses the structure of a dict, or of a list of one.
    """
    return graph._inputs_struct, graph._outputs_struct


def build(model: keras.Model, batch: Any) -> None:
    """Build a model with its losses, metrics and optimizer, as `fit` does for its first batch."""
    model._symbolic_build(data_batch=batch)


def is_built(model: keras.Model) -> bool:
    """Return whether a model has all that its first step makes: losses and metrics build late."""
    made = (model.optimizer, model._compile_loss, model._compile_metrics)
    return all(part.built for part in (*all_layers(model), *(x for x in made if x is not None)))


# Layers and their parts


def all_layers(layer: Any) -> list[Any]:
    """Return a layer and all that are in it, however deep: `model.layers` has the outer ones."""
    return list(layer._flatten_layers())


def sublayers(layer: Any) -> list[Any]:
    """Return the layers that are attributes of a layer: only models have a public list."""
    return layer._layers


def own_variables(layer: Any) -> tuple[list[Any], list[Any]]:
    """Return a layer's variables without those of its parts: trainable ones, and others.

    Its public lists have those of its parts, too. An operation has none.
    """
    trainable = getattr(layer, "_trainable_variables", [])
    return trainable, getattr(layer, "_non_trainable_variables", [])


def state_of(layer: Any) -> list[Any]:
    """Return all variables of a layer without those of its parts, the states of seeds among them.

    An operation has none.
    """
    seeds = getattr(layer, "_seed_generators", [])
    return [v for own in own_variables(layer) for v in own] + [seed.state for seed in seeds]


def seed_generators(layer: Any) -> list[Any]:
    """Return the seed generators of a layer: they are no public attribute of all that have one."""
    return layer._seed_generators


def takes_mask(layer: Any) -> bool:
    """Return whether Keras hands masks to a layer's `call`: it has looked at the signature."""
    return layer._call_has_mask_arg


def is_autocast(variable: Any) -> bool:
    """Return whether a layer reads a variable in its compute dtype: there is no public property."""
    return variable._autocast


def set_path(variable: Any, path: str) -> None:
    """Give a copy of a variable another path; `path` has no setter."""
    variable._path = path


class AttentionParts(NamedTuple):
    """The layers in MultiHeadAttention and in GroupQueryAttention; gate is None without one."""

    query: Any
    key: Any
    value: Any
    gate: Any
    output: Any
    softmax: Any
    dropout: Any


def attention_parts(layer: Any) -> AttentionParts:
    """Return the layers in an attention layer that was built: none has a public name in both."""
    return AttentionParts(
        layer._query_dense,
        layer._key_dense,
        layer._value_dense,
        getattr(layer, "_gate_dense", None),
        layer._output_dense,
        layer._softmax,
        layer._dropout_layer,
    )


class MultiHeadOptions(NamedTuple):
    """Options of a MultiHeadAttention: window and rate as its `sliding_window` and `dropout`.

    scores, combine: the equations of keyᵀ query and of weights · value. axes: over which it goes.
    """

    scores: str
    combine: str
    axes: Sequence[int]
    window: int | None
    rate: float
    scale: float


def multi_head_options(layer: Any) -> MultiHeadOptions:
    """Return options of a MultiHeadAttention that was built: equations and axes stand nowhere else.

    The scale is 1/√H as Keras has rounded it.
    """
    return MultiHeadOptions(
        layer._dot_product_equation,
        layer._combine_equation,
        layer._attention_axes,
        layer._sliding_window,
        layer._dropout,
        layer._inverse_sqrt_key_dim,
    )


def group_query_scale(layer: Any) -> float:
    """Return 1/√H of a GroupQueryAttention, as Keras has rounded it."""
    return layer._inverse_sqrt_head_dim


# Losses


def compiled_losses(model: keras.Model) -> list[tuple[Any, Any, Any, str]]:
    """Return (path, loss, weight, output) of each loss that a model was compiled with.

    Keras makes them of what `compile` was given when it computes the loss of the first batch;
    before, there are none. `model.loss` has what `compile` was given.
    """
    compiled = model._compile_loss
    return [] if compiled is None else list(compiled._flat_losses or [])


def loss_options(loss: Any) -> dict[str, Any]:
    """Return the keyword arguments that a loss binds to its function; they are public nowhere."""
    return getattr(loss, "_fn_kwargs", {})


def loss_dtype(model: keras.Model) -> str | None:
    """Return the dtype in which Keras adds the losses; None where the model has none."""
    return getattr(model._compile_loss, "dtype", None)


def predictions(model: keras.Model) -> Any:
    """Return the structure of predictions for which Keras built the losses."""
    return model._compile_loss._y_pred_build_structure


def given_to_losses(
    model: keras.Model, y: Any, y_pred: Any, sample_weight: Any
) -> list[tuple[Any, Any, Any]]:
    """Return (y_true, y_pred, sample_weight) for each loss: which belong together, Keras decides.

    Keras's own code runs on a copy whose losses do nothing but note their arguments.
    """
    compiled, found = model._compile_loss, list[tuple[Any, Any, Any]]()
    if compiled is None:
        return []

    def note(y_true: Any, y_pred: Any, sample_weight: Any) -> float:
        found.append((y_true, y_pred, sample_weight))
        return 0.0

    noting = object.__new__(type(compiled))
    vars(noting).update(vars(compiled))
    noting._flat_losses = [part._replace(loss=note) for part in compiled._flat_losses]
    noting._metrics = [None] * len(noting._flat_losses)
    noting.call(y, y_pred, sample_weight)
    return found


def adds_losses(layer: Any) -> bool:
    """Return whether a layer has called add_loss: `layer.losses` has those of its parts, too."""
    return bool(layer._losses)


# Optimizers


class Slot(StrEnum):
    """Attributes of Keras's optimizers with a variable for each weight, or, NADAM_PRODUCT, one.

    Their public list, `optimizer.variables`, does not say which variable is which.
    """

    GATHERED_GRADIENTS = "_accumulated_gradients"
    WEIGHT_AVERAGES = "_model_variables_moving_average"
    MOMENTUMS = "_momentums"
    VELOCITIES = "_velocities"
    VELOCITY_HATS = "_velocity_hats"
    NADAM_PRODUCT = "_u_product"
    AVERAGE_GRADIENTS = "_average_gradients"
    ACCUMULATORS = "_accumulators"
    LINEARS = "_linears"
    ADADELTA_GRADIENTS = "_accumulated_grads"
    ADADELTA_DELTAS = "_accumulated_delta_vars"
    ADAMAX_MOMENTUMS = "_m"
    ADAMAX_NORMS = "_u"
    ADAFACTOR_ROWS = "_r"
    ADAFACTOR_COLUMNS = "_c"
    ADAFACTOR_VELOCITIES = "_v"


def slot_variable(optimizer: Any, attribute: str, variable: Any) -> Any:
    """Return what an optimizer holds in an attribute for one weight, or for all; or None."""
    held = getattr(optimizer, attribute, None)
    if not isinstance(held, list):
        return held
    return held[optimizer._get_variable_index(variable)] if held else None


def step_count(optimizer: Any) -> Any:
    """Return the variable that counts steps; `iterations` divides it by those that accumulate."""
    return optimizer._iterations


def schedule_of(optimizer: Any) -> Any:
    """Return an optimizer's learning rate schedule, or None: `learning_rate` is its present value.

    A LossScaleOptimizer has the schedule of the optimizer in it.
    """
    held = getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)
    return held if isinstance(held, keras.optimizers.schedules.LearningRateSchedule) else None


def may_decay(optimizer: Any, variable: Any) -> bool:
    """Return whether `exclude_from_weight_decay` leaves a weight in: it has no public answer."""
    return optimizer._use_weight_decay(variable)


def muon_uses_adam(optimizer: Any, variable: Any) -> bool:
    """Return whether Muon updates a weight by Adam: it then holds a velocity for it."""
    return slot_variable(optimizer, "adam_velocities", variable) is not None


def optimizer_of(optimizer: Any, variable: Any) -> Any:
    """Return which optimizer in a MultiOptimizer updates a weight: it keeps that to itself."""
    return optimizer.optimizers[optimizer._var_to_optimizer_idx[optimizer._var_key(variable)]]


# Masks and logits


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras keeps on a tensor, or None: layers and losses read it there."""
    return _backend.get_keras_mask(tensor)


def set_mask(tensor: Any, mask: Any) -> None:
    """Put a mask on a tensor, as Keras does."""
    _backend.set_keras_mask(tensor, mask)


def logits_of(tensor: Any) -> Any:
    """Return the logits that Keras keeps on a softmax or sigmoid, for its losses; or None."""
    return getattr(tensor, "_keras_logits", None)


def set_logits(tensor: Any, logits: Any) -> None:
    """Put logits on a tensor, as Keras does."""
    tensor._keras_logits = logits


def reads_masks(layer: Any) -> bool:
    """Return whether a layer reads masks off its tensors without a `mask` argument in `call`.

    Add and the other merging layers do. Their base class is not exported.
    """
    return isinstance(layer, Merge)


# Traces of a model's own code


@contextmanager
def whole_call(model: keras.Model) -> Iterator[None]:
    """Let a model be called as a whole; what its layers note by add_loss is put back at the end."""
    held = [(layer, list(layer._losses)) for layer in all_layers(model)]
    try:
        for layer, _ in held:
            layer._losses.clear()
        yield
    finally:
        for layer, losses in held:
            layer._losses[:] = losses


@contextmanager
def training_call(model: keras.Model) -> Iterator[None]:
    """Let layers of a model be called one by one as within a call of the model in training.

    Layers ask the context of the outer call for `training`, and only that call clears what they
    note by add_loss.
    """
    context = CallContext(entry_layer=model)
    context.set_value("training", True)
    before = global_state.get_global_attribute("current_call_ctx")
    with whole_call(model):
        try:
            global_state.set_global_attribute("current_call_ctx", context)
            yield
        finally:
            global_state.set_global_attribute("current_call_ctx", before)


def added_losses(model: keras.Model) -> list[Any]:
    """Return what layers added by add_loss since the outer call began, as the model adds it up."""
    added = [loss for layer in all_layers(model) for loss in layer._losses]
    return [model._aggregate_additional_loss(loss) for loss in added]


def training_loss(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> Any:
    """Return the loss that `train_step` differentiates, with all that it adds up.

    It passes `training` on where the signature of `call` has it: without, the model and all that is
    in it run as in inference, and so they do in the step. It passes `compute_loss` its arguments
    where an older override does not know all of them.
    """
    y_pred = model(x, training=True) if model._call_has_training_arg else model(x)
    return model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)


# The training loop


def train_functions(function: Any) -> tuple[Any, Any] | None:
    """Return the functions that a train function of Keras calls: for an iterator, and for a batch.

    The two are compiled, and each knows its traces. Keras holds them in the closure of
    `model.train_function`, and, since it has optional inputs, the second in a wrapper. None for
    another function than Keras's own, and where nothing is compiled.
    """
    import tensorflow as tf

    held = _closure(function)
    on_iterator, on_data = held.get("multi_step_on_iterator"), held.get("one_step_on_data")
    on_data = _closure(on_data).get("step_func", on_data)
    if isinstance(on_iterator, tf.types.experimental.PolymorphicFunction) and isinstance(
        on_data, tf.types.experimental.PolymorphicFunction
    ):
        return on_iterator, on_data
    return None


STEP_ON_DATA = "one_step_on_data"
"""The name of the function of one step that Keras's train function calls."""


def _closure(function: Any) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    return {
        name: cell.cell_contents
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
    }


def epoch_iterator(model: keras.Model) -> Any:
    """Return the iterator over the training data of the `fit` that is running, or None.

    It knows how many batches an epoch has, and sees every exception of the training loop. Keras
    holds it in a local variable of `fit`, and nowhere else.
    """
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            found = frame.f_locals.get("epoch_iterator")
            if isinstance(found, EpochIterator):
                return found
        frame = frame.f_back
    return None


def logs_of_replicas(logs: Any, strategy: Any) -> Any:
    """Return the logs of a step from those of each replica, as Keras's own train function does."""
    from keras.src.backend.tensorflow.trainer import reduce_per_replica

    return reduce_per_replica(logs, strategy, reduction="auto")


def random_seed() -> int | None:
    """Return the seed of keras.utils.set_random_seed, which can be set and not asked for."""
    return rng_utils.get_random_seed()


# TensorFlow's graphs


def is_function(graph: Any, op_type: str) -> bool:
    """Return whether an op type is a function of the graph: TensorFlow's older kind of calls."""
    return op_type in graph._functions


def function_graph(graph: Any, name: str) -> tuple[Any, int]:
    """Return the graph of a function that a graph calls, and the number of its outputs.

    Differentiated, the graph has further outputs behind those. Functions of TensorFlow's older
    kind, as in its CTC, have no graph of their own; it is made from the definition.
    """
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    called = graph._functions[name]
    definition = called.cached_definition
    found = getattr(called, "graph", None)
    if found is None:
        with graph.as_default():
            found = function_def_to_graph(definition)
    return found, len(definition.signature.output_arg)


def custom_gradient(operation: Any) -> Callable | None:
    """Return the function that tf.custom_gradient registered for an op; None if there is none.

    It registers an IdentityN under a name of its own, which is an attribute of the op.
    """
    from tensorflow.python.framework.ops import get_gradient_function

    attribute = operation.node_def.attr
    kind = attribute["_gradient_op_type"].s.decode() if "_gradient_op_type" in attribute else ""
    known = kind.startswith("CustomGradient") and operation.type == "IdentityN"
    return get_gradient_function(operation) if known else None


def written_gradient(registered: Callable) -> Callable:
    """Return the function of the user that is in a registered gradient: reports name its line."""
    inner = inspect.getclosurevars(registered).nonlocals["tape_grad_fn"]
    return inspect.getclosurevars(inner).nonlocals["grad_fn"]


def python_function(token: str, eager: bool) -> Callable:
    """Return the Python function that tf.py_function (eager) or tf.numpy_function calls.

    The op has a token only. TensorFlow wraps an eager function, and has the function within.
    """
    from tensorflow.python.ops.script_ops import _py_funcs

    function = _py_funcs.get(token)
    return function._func if eager else function
