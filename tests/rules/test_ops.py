"""Every entry of the table of ops beside TensorFlow's own forward and tape, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain, Rounding
from gradaudit.rules.ops.table import all_ops
from gradaudit.rules.traced import trace

RAW = tf.raw_ops
REAL, POSITIVE, UNIT = "real", "positive", "unit"
MATRIX = (3, 4)


def _by_name(name, *shapes, of=REAL, **attributes):
    """Return a case of an op by its name: its function, the shapes and the kind of its inputs."""
    function = getattr(RAW, name)
    names = [n for n in function.__signature__.parameters if n not in attributes and n != "name"]
    return (
        lambda *xs: function(**dict(zip(names, xs, strict=False)), **attributes),
        shapes,
        of,
    )


def _loop(x):
    def body(i, y, items):
        return i + 1, y * tf.tanh(x) + y, items.write(i, y)

    items = tf.TensorArray(x.dtype, 3)
    _, y, items = tf.while_loop(lambda i, *_: i < 3, body, (0, x, items))
    return y + tf.reduce_sum(items.stack() * x, 0) + items.read(1)


def _of_unknown_length(x):
    kept = tf.boolean_mask(x, x[:, 0] > -0.5)
    length = tf.cast(tf.shape(kept)[0] * tf.size(kept), x.dtype)
    rows = tf.TensorArray(x.dtype, tf.shape(kept)[0]).unstack(kept)
    return rows.read(0) * length + tf.reduce_sum(kept**2, 0)


def _pushed(x):
    handle = RAW.EmptyTensorList(element_shape=[4], max_num_elements=-1, element_dtype=x.dtype)
    for i in range(3):
        handle = RAW.TensorListPushBack(input_handle=handle, tensor=x[i] * (i + 1.0))
    length = tf.cast(RAW.TensorListLength(input_handle=handle), x.dtype)
    shape = tf.cast(RAW.TensorListElementShape(input_handle=handle, shape_type=tf.int32), x.dtype)
    handle, last = RAW.TensorListPopBack(
        input_handle=handle, element_shape=[4], element_dtype=x.dtype
    )
    rest = RAW.TensorListStack(input_handle=handle, element_shape=[4], element_dtype=x.dtype)
    return last * length + tf.reduce_sum(rest**2, 0) * shape


def _branches(x):
    big = tf.reduce_sum(x) > 1e3
    y = tf.cond(big, lambda: x * 2, lambda: tf.sin(x))
    return y + tf.switch_case(tf.constant(1), [lambda: x, lambda: x * x, lambda: 3 * x])


def _shapes(x):
    parts = RAW.ShapeN(input=[x, x[0]])
    count = tf.cast(tf.size(x) + tf.rank(x) + parts[1][0], x.dtype)
    return tf.reshape(x, tf.reverse(tf.shape(x), [0])) * count


def _logic(x):
    inside = tf.logical_and(x > -0.5, tf.logical_or(x < 0.5, tf.logical_not(x <= 1.0)))
    equal = tf.logical_and(x != 0.3, tf.logical_or(x >= 0.2, x == 0.1))
    some = tf.reduce_any(inside, -1, keepdims=True) & tf.reduce_all(x > -9, -1, keepdims=True)
    chosen = tf.where(inside & some, x * 2, tf.where(equal, x**2, 0 * x))
    finite = tf.math.is_finite(x) & ~tf.math.is_nan(x) & ~tf.math.is_inf(x)
    return chosen * tf.cast(finite, x.dtype) + tf.cast(x > 0, x.dtype) * x


def _variable(x):
    return x


IDS = np.array([0, 2, 0])
PLACES = np.array([[0, 1], [2, 3], [1, 0]])
TURN = np.array([1, 0])
CASES = {
    **{
        name: _by_name(name, MATRIX)
        for name in "Abs Neg Square Exp Expm1 Tanh Sigmoid Softplus Softsign Relu Relu6 Elu Selu "
        "LeakyRelu Erf Erfc Sin Cos Atan Sinh Cosh Asinh Identity Floor Ceil Round Rint "
        "Sign OnesLike ZerosLike StopGradient L2Loss Transpose".split()
        if name != "Transpose"
    },
    **{
        name: _by_name(name, MATRIX, of=POSITIVE)
        for name in "Sqrt Rsqrt Reciprocal Inv Log Log1p".split()
    },
    **{name: _by_name(name, MATRIX, of=UNIT) for name in "Asin Acos Atanh Tan".split()},
    "Acosh": (lambda x: tf.acosh(1 + x), (MATRIX,), POSITIVE),
    **{
        name: _by_name(name, (2, 3, 4), (3, 1))
        for name in "AddV2 Sub Mul Maximum Minimum SquaredDifference".split()
    },
    "Add": _by_name("Add", MATRIX, (4,)),
    **{
        name: _by_name(name, (2, 3, 4), (3, 1), of=POSITIVE)
        for name in "RealDiv Div Pow DivNoNan MulNoNan Xlogy Xlog1py Xdivy Atan2 FloorMod".split()
    },
    "FloorDiv": (lambda a, b: a * tf.math.floordiv(a, b), (MATRIX, MATRIX), POSITIVE),
    "atan2 to the left": (lambda y, x: tf.atan2(y, -x), (MATRIX, MATRIX), POSITIVE),
    "numbers": (lambda x: 2 / (1 + x) - 0.5 * x + (3 - x) ** 2.0 + 2.0**x, (MATRIX,), POSITIVE),
    "zeros divided": (lambda a, b: tf.math.divide_no_nan(a, 0 * b), (MATRIX, MATRIX), REAL),
    "ClipByValue": (
        lambda x: RAW.ClipByValue(
            t=x, clip_value_min=-0.5 + 0 * x[0, 0], clip_value_max=0.7 + x[0, 1] ** 2
        ),
        (MATRIX,),
        REAL,
    ),
    "AddN": (lambda a, b: tf.add_n([a, b, a]), (MATRIX, MATRIX), REAL),
    "BiasAdd": _by_name("BiasAdd", (2, 3, 4), (4,)),
    "BiasAddV1": _by_name("BiasAddV1", (3, 4), (4,)),
    "channels first": (lambda x, b: tf.nn.bias_add(x, b, "NC..."), ((2, 3, 4), (3,)), REAL),
    "Select": (lambda a, b: RAW.Select(condition=a[:, 0] > 0, x=a, y=b), (MATRIX, MATRIX), REAL),
    "SelectV2": (lambda a, b: tf.where(a > 0, a, b), (MATRIX, (4,)), REAL),
    "logic": (_logic, (MATRIX,), REAL),
    "Softmax": (tf.nn.softmax, (MATRIX,), REAL),
    "LogSoftmax": (tf.nn.log_softmax, (MATRIX,), REAL),
    "sums": (
        lambda x: tf.reduce_sum(x, [0, 2]) + tf.reduce_mean(x) + tf.reduce_mean(x, 1)[0, :1],
        ((2, 3, 4),),
        REAL,
    ),
    "no axes": (lambda x: RAW.Sum(input=x, axis=np.zeros(0, np.int32)), (MATRIX,), REAL),
    "extremes": (lambda x: tf.reduce_max(x, 1) * tf.reduce_min(x, 1), (MATRIX,), REAL),
    "Prod": (lambda x: tf.reduce_prod(x, [0, 2], keepdims=True), ((2, 3, 4),), REAL),
    "Cumsum": (lambda x: tf.cumsum(x, 1) ** 2, (MATRIX,), REAL),
    "cumsum, exclusive": (lambda x: tf.cumsum(x, 1, exclusive=True, reverse=True), (MATRIX,), REAL),
    "Cumprod": (lambda x: tf.math.cumprod(x, 1), (MATRIX,), REAL),
    "cumprod, exclusive": (
        lambda x: tf.math.cumprod(x, 0, exclusive=True, reverse=True),
        (MATRIX,),
        REAL,
    ),
    "EuclideanNorm": (lambda x: tf.math.reduce_euclidean_norm(x, 1), (MATRIX,), REAL),
    "MatMul": (lambda a, b: tf.matmul(a, b, transpose_a=True), ((4, 3), (4, 2)), REAL),
    "BatchMatMulV2": (lambda a, b: tf.matmul(a, b, adjoint_b=True), ((2, 3, 4), (2, 5, 4)), REAL),
    "BatchMatMul": _by_name("BatchMatMul", (2, 3, 4), (2, 4, 5)),
    "BatchMatMulV3": (
        lambda a, b: RAW.BatchMatMulV3(x=a, y=b, Tout=a.dtype),
        ((2, 3, 4), (1, 4, 5)),
        REAL,
    ),
    "Einsum": (lambda a, b: tf.einsum("bij,bkj->bki", a, b), ((2, 3, 4), (2, 5, 4)), REAL),
    "shapes": (_shapes, (MATRIX,), REAL),
    "Squeeze": (
        lambda x: tf.squeeze(x[:, None], 1) * tf.expand_dims(x, -1)[..., 0],
        (MATRIX,),
        REAL,
    ),
    "Transpose": (lambda x: tf.transpose(x, (2, 0, 1)) ** 2, ((2, 3, 4),), REAL),
    "BroadcastTo": (lambda x: tf.broadcast_to(x, (2, 3, 4)) ** 2, ((3, 1),), REAL),
    "Fill": (lambda x: tf.fill((2, 3), x[0]) ** 2, ((2,),), REAL),
    "Tile": (lambda x: tf.tile(x, (2, 3)) ** 2, (MATRIX,), REAL),
    "ReverseV2": (lambda x: tf.reverse(x, [0]) * x, (MATRIX,), REAL),
    "Roll": (lambda x: tf.roll(x, [1, -2], [0, 1]) * x, (MATRIX,), REAL),
    "StridedSlice": (
        lambda x: x[..., tf.newaxis, 0, ::-1] * x[:, 1, 3:0:-1][:, None, :1],
        ((2, 3, 4),),
        REAL,
    ),
    "Slice": (lambda x: tf.slice(x, (1, 0), (-1, 2)), (MATRIX,), REAL),
    "GatherV2": (lambda x: tf.gather(x, [[0, 2], [2, 2]], axis=1) ** 2, (MATRIX,), REAL),
    "gather of a batch": (
        lambda x: tf.gather(x, [[1, 0], [2, 2]], axis=2, batch_dims=1),
        ((2, 2, 3, 2),),
        REAL,
    ),
    "GatherNd": (lambda x: tf.gather_nd(x, PLACES) ** 2, (MATRIX,), REAL),
    "diagonals": (
        lambda x: (
            tf.linalg.diag_part(x) * tf.linalg.diag_part(tf.linalg.diag(x[0, :3]))
            + tf.reduce_sum(tf.linalg.set_diag(x, x[:, 0] ** 2))
        ),
        (MATRIX,),
        REAL,
    ),
    "older diagonals": (
        lambda x: (
            RAW.MatrixDiagPart(input=RAW.MatrixSetDiag(input=x, diagonal=x[:, 1]))
            * RAW.MatrixDiagPartV2(input=x, k=0, padding_value=tf.zeros((), x.dtype))
            + RAW.MatrixDiag(diagonal=x[0, :3])[1]
            + RAW.MatrixDiagV2(
                diagonal=x[0, :3],
                k=0,
                num_rows=-1,
                num_cols=-1,
                padding_value=tf.zeros((), x.dtype),
            )[0]
            + RAW.MatrixSetDiagV2(input=x, diagonal=x[:, 2], k=0)[:, 1]
        ),
        (MATRIX,),
        REAL,
    ),
    "MatrixBandPart": (lambda x: tf.linalg.band_part(x, 1, 0) ** 2, (MATRIX,), REAL),
    "SpaceToDepth": (lambda x: tf.nn.space_to_depth(x, 2) ** 2, ((1, 4, 2, 3),), REAL),
    "DepthToSpace": (lambda x: tf.nn.depth_to_space(x, 2) ** 2, ((1, 2, 2, 8),), REAL),
    "SpaceToBatchND": (
        lambda x: tf.space_to_batch(x, [2, 3], [[1, 0], [0, 2]]) ** 2,
        ((2, 3, 4, 2),),
        REAL,
    ),
    "BatchToSpaceND": (
        lambda x: tf.batch_to_space(x, [2, 3], [[1, 0], [0, 2]]) ** 2,
        ((6, 2, 2, 2),),
        REAL,
    ),
    "Pad": (lambda x: tf.pad(x, [[1, 0], [0, 2]]) ** 2, (MATRIX,), REAL),
    "PadV2": (lambda x: tf.pad(x, [[1, 0], [0, 2]], constant_values=0.5) ** 2, (MATRIX,), REAL),
    "MirrorPad": (lambda x: tf.pad(x, [[1, 0], [0, 2]], "REFLECT") ** 2, (MATRIX,), REAL),
    "ConcatV2": (lambda a, b: tf.concat([a, b, a], 1) ** 2, (MATRIX, (3, 1)), REAL),
    "Pack": (lambda a, b: tf.stack([a, b], 1) ** 2, (MATRIX, MATRIX), REAL),
    "Unpack": (lambda x: tf.unstack(x, axis=1)[1] * tf.unstack(x, axis=1)[3], (MATRIX,), REAL),
    "Split": (lambda x: tf.split(x, 2, 1)[0] * tf.split(x, 2, 1)[1], (MATRIX,), REAL),
    "SplitV": (lambda x: tf.split(x, [1, -1], 1)[1] ** 2, (MATRIX,), REAL),
    "ReverseSequence": (
        lambda x: tf.reverse_sequence(x, [2, 1, 3], seq_axis=1, batch_axis=0) * x,
        (MATRIX,),
        REAL,
    ),
    "OneHot": (
        lambda x: RAW.OneHot(indices=IDS, depth=4, on_value=x[0], off_value=x[1]) ** 2,
        ((2,),),
        REAL,
    ),
    "Range": (lambda x: tf.range(0.0 * x[0] + 3.0) * x, ((3,),), REAL),
    "TopKV2": (lambda x: tf.math.top_k(x, 2)[0] ** 2, (MATRIX,), REAL),
    "arguments": (
        lambda x: tf.gather(x, tf.argmax(x, 1), axis=1) * tf.gather(x, tf.argmin(x, 1), axis=1),
        (MATRIX,),
        REAL,
    ),
    "SegmentSum": (lambda x: tf.math.segment_sum(x, [0, 0, 2]) ** 2, (MATRIX,), REAL),
    "UnsortedSegmentSum": (
        lambda x: tf.math.unsorted_segment_sum(x, [1, -1, 1], 3) ** 2,
        (MATRIX,),
        REAL,
    ),
    "ScatterNd": (lambda x: tf.scatter_nd(PLACES[:, :1], x, (4, 4)) ** 2, (MATRIX,), REAL),
    "TensorScatterUpdate": (
        lambda x, u: tf.tensor_scatter_nd_update(x, PLACES, u) ** 2,
        (MATRIX, (3,)),
        REAL,
    ),
    "TensorScatterAdd": (
        lambda x, u: tf.tensor_scatter_nd_add(x, [[1], [1]], u) ** 2,
        (MATRIX, (2, 4)),
        REAL,
    ),
    "TensorScatterSub": (
        lambda x, u: tf.tensor_scatter_nd_sub(x, PLACES, u) ** 2,
        (MATRIX, (3,)),
        REAL,
    ),
    "Conv2D": (
        lambda x, k: tf.nn.conv2d(x, k, 2, [[0, 0], [1, 0], [0, 2], [0, 0]]),
        ((2, 5, 4, 3), (3, 2, 3, 2)),
        REAL,
    ),
    "Conv3D": (
        lambda x, k: tf.nn.conv3d(x, k, [1] * 5, "SAME"),
        ((1, 3, 3, 2, 2), (2, 2, 2, 2, 3)),
        REAL,
    ),
    "DepthwiseConv2dNative": (
        lambda x, k: tf.nn.depthwise_conv2d(x, k, [1] * 4, "VALID"),
        ((2, 4, 3, 2), (2, 2, 2, 3)),
        REAL,
    ),
    "Conv2DBackpropInput": (
        lambda y, k: tf.nn.conv2d_transpose(y, k, (2, 5, 4, 3), 2, "SAME"),
        ((2, 3, 2, 2), (3, 2, 3, 2)),
        REAL,
    ),
    "Conv3DBackpropInputV2": (
        lambda y, k: tf.nn.conv3d_transpose(y, k, (1, 4, 2, 2, 2), [1, 2, 1, 1, 1], "SAME"),
        ((1, 2, 2, 2, 3), (2, 2, 1, 2, 3)),
        REAL,
    ),
    "pooling": (
        lambda x: tf.nn.max_pool2d(x, 2, 1, "SAME") * tf.nn.avg_pool2d(x, 2, 1, "SAME"),
        ((2, 3, 4, 2),),
        REAL,
    ),
    "SoftmaxCrossEntropyWithLogits": (
        lambda z, t: tf.nn.softmax_cross_entropy_with_logits(
            t / tf.reduce_sum(t, -1, keepdims=True), z
        ),
        (MATRIX, MATRIX),
        POSITIVE,
    ),
    "SparseSoftmaxCrossEntropyWithLogits": (
        lambda z: tf.nn.sparse_softmax_cross_entropy_with_logits(IDS, z) ** 2,
        (MATRIX,),
        REAL,
    ),
    "While": (_loop, (MATRIX,), REAL),
    "a length that values decide": (_of_unknown_length, (MATRIX,), REAL),
    "lists": (_pushed, (MATRIX,), REAL),
    "branches": (_branches, (MATRIX,), REAL),
    "PartitionedCall": (tf.function(lambda x: tf.sin(x) * x), (MATRIX,), REAL),
    "EnsureShape": (lambda x: tf.ensure_shape(x, MATRIX) ** 2, (MATRIX,), REAL),
    "CheckNumerics": (lambda x: tf.debugging.check_numerics(x, "x") ** 2, (MATRIX,), REAL),
    "IdentityN": (lambda a, b: tf.add_n(tf.identity_n([a, b])), (MATRIX, MATRIX), REAL),
    "PreventGradient": (
        lambda x: x + 0 * tf.stop_gradient(RAW.PreventGradient(input=x)),
        (MATRIX,),
        REAL,
    ),
    "Cast": (lambda x: tf.cast(tf.cast(x, tf.int32), x.dtype) * x, (MATRIX,), REAL),
}
"""Of a name: a function of tensors, their shapes, and whether they are real or lie elsewhere."""
NOT_ALONE = {
    "ReadVariableOp", "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp",
    "ResourceGather", "StatelessCase", "StatelessIf", "StatelessWhile", "StatefulPartitionedCall",
    "Case", "If", "While", "Rank",
    "MaxPool3D", "AvgPool3D",  # TensorFlow has no float64 kernels
}  # fmt: skip
"""Ops that need variables, or that TensorFlow makes of others; those of `custom_nets` have them."""


def _inputs(name, dtype=np.float64):
    function, shapes, of = CASES[name]
    rng = np.random.default_rng(0)
    draw = {
        REAL: rng.standard_normal,
        POSITIVE: lambda shape: rng.uniform(0.3, 2.0, shape),
        UNIT: lambda shape: rng.uniform(-0.9, 0.9, shape),
    }[of]
    return function, [np.asarray(draw(shape), dtype) for shape in shapes]


def _run(traced, xs, arithmetic, dtype="float64"):
    given = [arithmetic.array(x, dtype) for x in xs]
    ys, vjp = traced.run(given, None, arithmetic, False)
    dys = [np.random.default_rng(1).standard_normal(y.shape) for y in ys]
    return ys, dys, vjp([arithmetic.array(dy, dtype) for dy in dys])


@pytest.mark.parametrize("name", CASES)
def test_forward_and_vjp_are_the_tape_s(name):
    function, xs = _inputs(name)
    ys, dys, back = _run(trace(function, xs, []), xs, Plain(np.float64))
    tensors = [tf.constant(x) for x in xs]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        theirs = tf.nest.flatten(function(*tensors))
        total = tf.add_n([tf.reduce_sum(y * dy) for y, dy in zip(theirs, dys, strict=True)])
    for y, expected in zip(ys, theirs, strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    expected = tape.gradient(total, tensors, unconnected_gradients="zero")
    for dx, right in zip(back.of_inputs, expected, strict=True):
        dx = np.zeros(right.shape) if dx is None else dx
        assert dx.shape == right.shape
        np.testing.assert_allclose(dx, right, rtol=1e-11, atol=1e-12)


TRUE = {
    "the constant that pads": lambda x: RAW.PadV2(
        input=x, paddings=[[1, 0], [0, 2]], constant_values=x[0, 0]
    ),
    "targets that do not sum to 1": lambda x: tf.nn.softmax_cross_entropy_with_logits(
        tf.ones_like(x), x
    ),
}


@pytest.mark.parametrize("name", TRUE)
def test_where_tensorflow_s_gradient_is_not_the_derivative_ours_is(name):
    x, h = np.random.default_rng(0).standard_normal(MATRIX), 1e-6
    traced = trace(TRUE[name], [x], [])
    _, (dy,), back = _run(traced, [x], Plain(np.float64))
    direction = np.random.default_rng(2).standard_normal(MATRIX)
    ends = [
        np.sum(_run(traced, [x + s * h * direction], Plain(np.float64))[0][0] * dy) for s in (1, -1)
    ]
    difference = (ends[0] - ends[1]) / (2 * h)
    assert np.sum(back.of_inputs[0] * direction) == pytest.approx(difference, rel=1e-8)
    with tf.GradientTape() as tape:
        tape.watch(tensor := tf.constant(x))
        total = tf.reduce_sum(TRUE[name](tensor) * dy)
    theirs = np.sum(np.asarray(tape.gradient(total, tensor)) * direction)
    assert theirs != pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_rounding_errors_are_carried_and_float32_stays_float32(name):
    function, xs = _inputs(name, np.float32)
    traced = trace(function, xs, [])
    with np.errstate(all="ignore"):
        ys, _, back = _run(traced, xs, Rounding(), "float32")
        narrow, _, narrow_back = _run(traced, xs, Plain(np.float32), "float32")
    for y, twin in zip([*ys, *back.of_inputs], [*narrow, *narrow_back.of_inputs], strict=True):
        assert (y is None) == (twin is None)
        if y is not None:
            assert twin.dtype == np.float32
            assert (np.abs(twin - y.value) <= 2 * y.doubt + 1e-30).all()


def test_every_entry_is_met_by_a_case():
    met = set()
    for name in CASES:
        function, xs = _inputs(name)
        graph = tf.function(function, autograph=False).get_concrete_function(*xs).graph
        graphs = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph"))]
        met |= {op.type for each in graphs for op in each.get_operations()}
    assert all_ops().keys() - met == NOT_ALONE & all_ops().keys() - met
    assert not NOT_ALONE - all_ops().keys()


def test_an_op_without_an_entry_is_named_with_its_line():
    def function(x):
        return tf.math.igamma(2.0, x)

    with pytest.raises(
        UnsupportedModelError, match=r"\(Igamma\) at .*test_ops\.py:\d+ .* no entry"
    ):
        _run(trace(function, [np.ones(3, np.float32)], []), [np.ones(3)], Plain(np.float32))
