"""The families of rules, and a rule of each that stands for it where not all rules can run."""

from gradaudit.rules import Rule, all_rules

_LAYERS = {
    "dense": "dense einsum_dense embedding",
    "convolution": "conv conv_transpose depthwise_conv separable_conv",
    "pooling": "adaptive_pooling average_pooling max_pooling global_average_pooling "
    "global_max_pooling",
    "normalization": "batch_normalization group_normalization layer_normalization normalization "
    "rms_normalization spectral_normalization unit_normalization",
    "recurrence": "bidirectional families.recurrent gru lstm rnn simple_rnn time_distributed",
    "attention": "additive_attention attention grouped_query_attention multi_head_attention",
    "merging": "add concatenate dot maximum multiply",
    "reshaping": "cropping flatten identity masking permute repeat_vector rescaling reshape "
    "up_sampling zero_padding",
    "dropout": "alpha_dropout dropout gaussian_dropout gaussian_noise spatial_dropout",
    "activation": "activation prelu relu softmax",
}
_LOSSES = {
    "regression": "absolute_error cosine_similarity half_squared_error huber log_cosh "
    "mean_squared_error mean_squared_logarithmic_error poisson",
    "classification": "binary_crossentropy categorical_crossentropy focal_crossentropy "
    "categorical_generalized_cross_entropy kl_divergence sparse_categorical_crossentropy",
    "margins": "circle hinge",
    "overlap": "tversky",
}
_FAMILIES = {
    f"gradaudit.rules.{room}.{module}": f"{kind}: {family}"
    for kind, room, families in (("layer", "layers", _LAYERS), ("loss", "losses", _LOSSES))
    for family, modules in families.items()
    for module in modules.split()
}

REPRESENTATIVES = {
    "activation": "tanh",
    "constraint": "UnitNorm",
    "layer: activation": "PReLU",
    "layer: attention": "Attention",
    "layer: convolution": "Conv1D",
    "layer: dense": "Dense",
    "layer: dropout": "Dropout",
    "layer: merging": "Multiply",
    "layer: normalization": "BatchNormalization",
    "layer: pooling": "MaxPooling1D",
    "layer: recurrence": "SimpleRNN",
    "layer: reshaping": "Reshape",
    "loss: classification": "categorical_crossentropy",
    "loss: margins": "hinge",
    "loss: overlap": "dice",
    "loss: regression": "huber",
    "operation: activation": "Gelu",
    "operation: arithmetic": "Multiply",
    "operation: cast": "Cast",
    "operation: elementwise": "Log1p",
    "operation: layout": "Reshape",
    "operation: products": "Matmul",
    "operation: reduction": "Sum",
    "operation: split": "Split",
    "operation: where": "Where",
    "optimizer": "Adam",
    "regularizer": "L2",
}
"""Family to the name of the rule that stands for it where not all rules can run."""


def family(rule: Rule) -> str:
    """Return the family of a rule: its kind, and its room where there are many of the kind."""
    module = rule.function.__module__
    if rule.kind in ("layer", "loss"):
        return _FAMILIES[module]  # a new module has to be entered above
    return f"operation: {module.rpartition('.')[2]}" if rule.kind == "operation" else rule.kind


def representatives() -> list[Rule]:
    """Return the rule that stands for each family."""
    own = (rule for rule in all_rules() if rule.function.__module__.startswith("gradaudit."))
    return [rule for rule in own if REPRESENTATIVES[family(rule)] == rule.name]
