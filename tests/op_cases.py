"""Functions that trace to each op of the table, with the shapes and the kind of their inputs."""

import numpy as np
import tensorflow as tf
from keras import ops

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


def _of_a_differentiated_branch(x):
    def branch(x):
        return tf.cond(tf.reduce_sum(x) > 1e3, lambda: x * 2, lambda: tf.square(tf.sin(x)))

    return _slope(tf.function(branch), x) * x


def _regular(a):
    return a + 3 * tf.eye(a.shape[-1], dtype=a.dtype)


def _slope(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


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
    "Einsum of one": (lambda a: tf.einsum("bij->ib", a) ** 2, ((2, 3, 4),), REAL),
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
    **{name: _by_name(name, MATRIX, MATRIX) for name in ("InvGrad", "SoftplusGrad")},
    "optionals": (_of_a_differentiated_branch, (MATRIX,), REAL),
    "Cross": _by_name("Cross", (4, 3), (4, 3)),
    "matrix equations": (
        lambda a, b: (
            tf.linalg.solve(_regular(a), b) + tf.linalg.solve(_regular(a), b, adjoint=True),
            tf.linalg.inv(_regular(a), adjoint=True) @ tf.linalg.inv(_regular(a)),
        ),
        ((2, 4, 4), (2, 4, 3)),
        REAL,
    ),
    "triangular equations": (
        lambda a, b: tf.add_n(
            [
                tf.linalg.triangular_solve(_regular(a), b, lower=lower, adjoint=adjoint)
                for lower in (True, False)
                for adjoint in (True, False)
            ]
        ),
        ((2, 4, 4), (2, 4, 3)),
        REAL,
    ),
    "determinants": (
        lambda a: (
            tf.linalg.det(a[:, :3, :3]),
            tf.linalg.slogdet(_regular(a))[1],
            tf.linalg.slogdet(-_regular(a[:, :3, :3]))[0] * a[:, 0, 0],
        ),
        ((2, 4, 4),),
        REAL,
    ),
    "Cholesky": (
        lambda a: tf.linalg.cholesky(
            a @ tf.linalg.matrix_transpose(a) + 0.5 * tf.eye(4, dtype=a.dtype)
        ),
        ((2, 4, 4),),
        REAL,
    ),
    **{
        f"Segment{name}": _by_name(
            f"Segment{name}", (6, 3), of=POSITIVE, segment_ids=[0, 0, 2, 2, 2, 3]
        )
        for name in ("Mean", "Max", "Min", "Prod")
    },
    **{
        f"UnsortedSegment{name}": _by_name(
            f"UnsortedSegment{name}",
            (3, 2, 3),
            of=POSITIVE,
            segment_ids=[[0, 1], [2, 0], [-1, 1]],
            num_segments=3,
        )
        for name in ("Max", "Min", "Prod")
    },
    "segments of which one is empty": (
        lambda x: tf.maximum(tf.math.unsorted_segment_max(x, [0, 2, 0], 4), -9.0),
        (MATRIX,),
        REAL,
    ),
    "DynamicPartition": (
        lambda x: [part**2 for part in tf.dynamic_partition(x, [0, 1, 0], 3)],
        (MATRIX,),
        REAL,
    ),
    "DynamicStitch": (
        lambda a, b: tf.dynamic_stitch([[0, 2], [1, 3, 4]], [a, b]) ** 2,
        ((2, 3), (3, 3)),
        REAL,
    ),
    "ParallelDynamicStitch": (
        lambda a, b: RAW.ParallelDynamicStitch(indices=[[0, 2], [1, 3, 4]], data=[a, b]) ** 2,
        ((2, 3), (3, 3)),
        REAL,
    ),
    **{
        f"CumulativeLogsumexp {exclusive} {reverse}": (
            lambda x, e=exclusive, r=reverse: tf.maximum(
                tf.math.cumulative_logsumexp(x, 1, exclusive=e, reverse=r), -9.0
            ),
            (MATRIX,),
            REAL,
        )
        for exclusive in (False, True)
        for reverse in (False, True)
    },
    **{
        f"a gradient within, of {name}": (
            lambda x, function=function: _slope(function, x) * x,
            (MATRIX,),
            POSITIVE,
        )
        for name, function in {
            "tanh": tf.tanh,
            "sigmoid": tf.sigmoid,
            "softplus": tf.nn.softplus,
            "relu": lambda x: tf.square(tf.nn.relu(x - 0.5)),
            "relu6": lambda x: tf.square(tf.nn.relu6(5 * x)),
            "leaky relu": lambda x: tf.square(tf.nn.leaky_relu(x - 0.5)),
            "elu": lambda x: tf.nn.elu(x - 0.5),
            "selu": lambda x: tf.nn.selu(x - 0.5),
            "square roots": lambda x: tf.sqrt(x) + tf.math.rsqrt(x) + tf.math.reciprocal(x),
            "slices": lambda x: x[1:, ::2] ** 3,
            "cross entropy": lambda x: tf.nn.softmax_cross_entropy_with_logits(
                tf.constant([[0.2, 0.3, 0.5, 0.0]], x.dtype), x
            ),
            "sparse cross entropy": lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(
                IDS, x
            ),
        }.items()
    },
    "a gradient within, of a convolution": (
        lambda x, k: _slope(lambda x: tf.tanh(tf.nn.conv2d(x, k, 2, "SAME")), x) ** 2,
        ((2, 5, 4, 3), (3, 2, 3, 2)),
        REAL,
    ),
    "a gradient within, of a depthwise convolution": (
        lambda x, k: (
            _slope(lambda x: tf.square(tf.nn.depthwise_conv2d(x, k, [1] * 4, "VALID")), x) ** 2,
            _slope(lambda k: tf.square(tf.nn.depthwise_conv2d(x, k, [1] * 4, "VALID")), k) ** 2,
        ),
        ((2, 4, 3, 2), (2, 2, 2, 3)),
        REAL,
    ),
    "a gradient within, by kernels": (
        lambda x, k, c: (
            _slope(lambda k: tf.square(tf.nn.conv2d(x, k, 1, "SAME")), k) ** 2,
            _slope(lambda c: tf.square(tf.nn.conv3d(x[None], c, [1] * 5, "SAME")), c) ** 2,
        ),
        ((2, 5, 4, 3), (3, 2, 3, 2), (1, 2, 2, 3, 2)),
        REAL,
    ),
    "a gradient within, of pooling": (
        lambda x: (
            _slope(lambda x: tf.square(tf.nn.max_pool2d(x, 2, 1, "SAME")), x) ** 2,
            _slope(lambda x: tf.square(tf.nn.avg_pool2d(x, 2, 1, "SAME")), x) ** 2,
        ),
        ((2, 3, 4, 2),),
        REAL,
    ),
    "a gradient within, of a bias": (
        lambda x, b: (
            _slope(lambda b: tf.square(tf.nn.bias_add(x, b)), b) ** 2,
            _slope(lambda b: tf.square(tf.nn.bias_add(x, b, "NC..")), b) ** 2,
        ),
        ((2, 3, 3), (3,)),
        REAL,
    ),
    "a gradient within, of a loop": (lambda x: _slope(_loop, x) * x, (MATRIX,), REAL),
    "ExtractImagePatches": (
        lambda x: tf.image.extract_patches(
            x, [1, 2, 3, 1], [1, 2, 1, 1], [1, 1, 2, 1], padding="SAME"
        ),
        ((2, 4, 6, 2),),
        REAL,
    ),
    "RGBToHSV": _by_name("RGBToHSV", (2, 3, 4, 3), of=POSITIVE),
    "transforms": (
        lambda x, y: (
            tf.math.real(tf.signal.rfft(x, [11])) * tf.math.imag(tf.signal.rfft(x[:, :4], [10])),
            tf.signal.irfft(tf.complex(x, y)) ** 2,
            tf.abs(tf.signal.ifft(tf.complex(x, y)) + tf.signal.fft(tf.complex(y, x))),
            tf.math.real(tf.signal.fft2d(tf.complex(x, y))) ** 2,
            tf.math.imag(tf.signal.ifft2d(tf.math.conj(tf.complex(x, y)))) ** 2,
            tf.abs(
                tf.signal.fft3d(tf.complex(x, y)[None]) - tf.signal.ifft3d(tf.complex(x, y)[None])
            ),
        ),
        ((3, 6), (3, 6)),
        REAL,
    ),
    "complex numbers of a float range and a choice": (
        lambda x: tf.abs(
            tf.where(
                x > 0, tf.complex(x, 2 * x), tf.complex(x * tf.range(0.5, 4.5, dtype=x.dtype), x)
            )
        ),
        (MATRIX,),
        REAL,
    ),
    "products of complex numbers": (
        lambda x, y: tf.abs(
            tf.reduce_mean(tf.complex(x, y) * -tf.cast(y[:1], tf.complex(x, x).dtype), 0)
        ),
        (MATRIX, MATRIX),
        REAL,
    ),
}
"""By name: a function of tensors, their shapes, and the kind of numbers in them."""

IMAGE = (2, 5, 7, 2)
TURN_BY = np.array([[1.1, 0.1, -0.4, 0.05, 0.9, 0.3, 0.001, 0.002]], np.float32)
SINGLE = {
    "a gradient within, of pooling in 3 axes": (
        lambda x: (
            _slope(lambda x: tf.square(tf.nn.max_pool3d(x, 2, 1, "SAME")), x) ** 2,
            _slope(lambda x: tf.square(tf.nn.avg_pool3d(x, 2, 1, "SAME")), x) ** 2,
        ),
        ((1, 2, 3, 2, 2),),
        REAL,
    ),
    "LRN": (
        lambda x: tf.nn.local_response_normalization(x, 2, bias=0.7, alpha=0.3, beta=0.6),
        ((2, 3, 4, 7),),
        REAL,
    ),
    **{
        f"{kind}, {options}": (
            lambda x, function=function, options=options, size=size: function(
                images=x, size=size, **options
            ),
            (IMAGE,),
            REAL,
        )
        for kind, function in {
            "ResizeBilinear": RAW.ResizeBilinear,
            "ResizeBicubic": RAW.ResizeBicubic,
            "ResizeNearestNeighbor": RAW.ResizeNearestNeighbor,
        }.items()
        for options in ({}, {"align_corners": True}, {"half_pixel_centers": True})
        for size in ((3, 11),)
    },
    **{
        f"ScaleAndTranslate, {kind}, {antialias}": (
            lambda x, kind=kind, antialias=antialias: RAW.ScaleAndTranslate(
                images=x,
                size=(3, 11),
                scale=[0.6, 1.5],
                translation=[0.3, -0.2],
                kernel_type=kind,
                antialias=antialias,
            ),
            (IMAGE,),
            REAL,
        )
        for kind in (
            "lanczos1 lanczos3 lanczos5 gaussian box triangle keyscubic mitchellcubic".split()
        )
        for antialias in (True, False)
    },
}
"""Cases that TensorFlow computes in float32, whatever it is given."""
UNDERIVED = {
    **{
        f"ImageProjectiveTransformV3, {way}, {mode}": (
            lambda x, way=way, mode=mode: RAW.ImageProjectiveTransformV3(
                images=x,
                transforms=TURN_BY,
                output_shape=(6, 8),
                fill_value=0.5,
                interpolation=way,
                fill_mode=mode,
            ),
            (IMAGE,),
            REAL,
        )
        for way in ("BILINEAR", "NEAREST")
        for mode in ("CONSTANT", "REFLECT", "WRAP", "NEAREST")
    },
    "ImageProjectiveTransformV2": (
        lambda x: RAW.ImageProjectiveTransformV2(
            images=x, transforms=TURN_BY, output_shape=(6, 8), interpolation="BILINEAR"
        ),
        (IMAGE,),
        REAL,
    ),
    "HSVToRGB": _by_name("HSVToRGB", (2, 3, 3), of=POSITIVE),
    "the constant that pads": (
        lambda x: RAW.PadV2(input=x, paddings=[[1, 0], [0, 2]], constant_values=x[0, 0]),
        (MATRIX,),
        REAL,
    ),
    "targets that do not sum to 1": (
        lambda x: tf.nn.softmax_cross_entropy_with_logits(tf.ones_like(x), x),
        (MATRIX,),
        REAL,
    ),
    "XlaDynamicUpdateSlice": (
        lambda x: ops.slice_update(x, [1, 3], x[:2, :2] ** 2),
        (MATRIX,),
        REAL,
    ),
    "OneHot": (
        lambda x: RAW.OneHot(indices=IDS, depth=4, on_value=x[0], off_value=x[1]) ** 2,
        ((2,),),
        REAL,
    ),
    "Range between variables": (
        lambda x: tf.range(x[0], x[0] + 2.5 * (1 + x[1] ** 2), 1 + x[1] ** 2) ** 2,
        ((2,),),
        REAL,
    ),
    "rows that are put over others": (
        lambda x: tf.dynamic_stitch([[0, 1, 2], [0, 1, 1]], [x, x**2]),
        (MATRIX,),
        REAL,
    ),
}
"""Cases whose gradient in TensorFlow is not the derivative, or that have none there."""
NOT_ALONE = {
    "ReadVariableOp", "AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp",
    "ResourceGather", "VariableShape", "Empty", "StatelessCase", "StatelessIf", "StatelessWhile",
    "StatefulPartitionedCall", "Case", "If", "While", "Rank",
}  # fmt: skip
"""Ops that need variables, or that TensorFlow makes from others; `custom_nets` have them."""

SINGULAR = {
    "Sqrt": (tf.sqrt, [0.0]),
    "Rsqrt": (tf.math.rsqrt, [0.0]),
    "Reciprocal": (tf.math.reciprocal, [0.0]),
    "Inv": (lambda x: RAW.Inv(x=x), [0.0]),
    "Log": (tf.math.log, [0.0]),
    "Log1p": (tf.math.log1p, [-1.0]),
    "Exp": (tf.exp, [1000.0]),
    "Expm1": (tf.math.expm1, [1000.0]),
    "Sinh": (tf.sinh, [1000.0]),
    "Cosh": (tf.cosh, [1000.0]),
    "Asin": (tf.asin, [1.0]),
    "Acos": (tf.acos, [-1.0]),
    "Acosh": (tf.acosh, [1.0]),
    "Atanh": (tf.atanh, [1.0]),
    "RealDiv": (tf.divide, [2.0, 0.0]),
    "Div": (lambda a, b: RAW.Div(x=a, y=b), [0.0, 0.0]),
    "Pow": (tf.pow, [0.0, 0.5]),
    "Xlogy": (tf.math.xlogy, [0.0, 0.0]),
    "Xlog1py": (tf.math.xlog1py, [2.0, -1.0]),
    "Xdivy": (tf.math.xdivy, [0.0, 0.0]),
    "Mul": (tf.multiply, [np.inf, 0.0]),
    "MulNoNan": (tf.math.multiply_no_nan, [np.inf, 2.0]),
    "FloorMod": (tf.math.floormod, [2.0, 0.0]),
    "Square": (tf.square, [np.inf]),
    "SquaredDifference": (tf.math.squared_difference, [np.inf, 0.0]),
    "Atan2": (tf.atan2, [0.0, 0.0]),
    "EuclideanNorm": (lambda x: tf.math.reduce_euclidean_norm(x[None], 0), [0.0]),
    "SqrtGrad": (lambda y, g: RAW.SqrtGrad(y=y, dy=g), [0.0, 2.0]),
    "RsqrtGrad": (lambda y, g: RAW.RsqrtGrad(y=y, dy=g), [np.inf, 2.0]),
    "ReciprocalGrad": (lambda y, g: RAW.ReciprocalGrad(y=y, dy=g), [np.inf, 2.0]),
    "InvGrad": (lambda y, g: RAW.InvGrad(y=y, dy=g), [np.inf, 2.0]),
    "LRN": (lambda x: tf.nn.lrn(tf.reshape(x, (1, 1, 1, 1)), 1, 0.0)[0, 0, 0], [0.0]),
    "SoftmaxCrossEntropyWithLogits": (
        lambda z, t: tf.nn.softmax_cross_entropy_with_logits(
            tf.stack([t, 1 - t]), tf.stack([z, tf.zeros_like(z)])
        ),
        [-np.inf, 0.5],
    ),
}
"""By type of op: a function of numbers, and numbers where its slope by one of them is infinite.

The slope is infinite or not a number there, or the op is given an infinity that another op made at
a finite argument.
"""
WITHOUT_NAN = {
    "OnesLike": "a constant", "ZerosLike": "a constant",
    "zeros divided": "x / 0 is 0 whatever x is",
    "Select": "of a condition that is false of NaN", "SelectV2": "as Select",
    "CheckNumerics": "it raises", "matrix equations": "TensorFlow raises",
    "Range": "of NaN elements there is none", "Range between variables": "as Range",
    "a length that values decide": "of NaN elements there is none",
}  # fmt: skip
"""Cases whose output is a number where an input is NaN, and why."""
NO_SUBGRADIENT = {
    "StopGradient": "its gradient ends here",
    "EuclideanNorm": "NaN at 0, as TensorFlow has it",
    "extremes": "a product of both extremes is neither convex nor concave",
    "TopKV2": "of equal elements any comes first, and places are weighed apart",
    "arguments": "the places jump",
    "determinants": "the inverse of a singular matrix does not exist",
}
"""Cases whose gradient at a tie need not be between the one-sided differences, and why."""
