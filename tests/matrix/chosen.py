"""The cells that run by default, by group; the others run with `pytest -m long`.

Chosen so that each kind of model, data, training, precision, distribution and callback is met, and
each way in which a stage can be unjudged. What other tests of the default run meet, such as each
optimizer and each regularizer, is left out.
"""

CHOSEN: dict[str, frozenset[str]] = {
    "Models": frozenset(
        {
            "train_step overridden, two updates in a step",
            "train_step overridden, all of it in a branch",
            "compute_loss overridden",
            "embedding, sparse gradients",
        }
    ),
    "Data": frozenset(
        {
            "tf.data of unknown length",
            "sparse inputs",
            "values that are not numbers",
        }
    ),
    "compile and fit": frozenset(
        {
            "steps_per_execution=2, the last one shorter",
            "gradient_accumulation_steps=4, clipnorm, weight_decay",
        }
    ),
    "Python state": frozenset(
        {
            "a float of a layer changes",
            "noise drawn from NumPy while the step is traced",
            "noise of tf.random",
        }
    ),
    "Precision": frozenset(
        {
            "float16, graph",
            "bfloat16, eager",
        }
    ),
    "Distribution": frozenset(
        {
            "MirroredStrategy, Adam",
            "MirroredStrategy, a batch too small for the second replica",
        }
    ),
    "Company": frozenset(
        {
            "all of these, after the audit",
            "SwapEMAWeights",
        }
    ),
}
