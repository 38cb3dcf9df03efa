"""The cells that run by default, by group; the others run with `pytest -m long`.

Chosen so that each kind of model, data, training, precision, distribution and callback is met, and
each way in which a stage can be unjudged. What other tests of the default run meet, such as each
optimizer and each regularizer, is left out.
"""

CHOSEN: dict[str, frozenset[str]] = {
    "Models": frozenset(
        {
            "two inputs, two outputs, a shared layer",
            "dropout with the global seed",
            "subclassed with a build of its own",
            "train_step overridden, its optimizer not built yet",
            "train_step overridden, two updates in a step",
            "train_step overridden, all of it in a branch",
            "compute_loss overridden",
            "add_loss in a layer",
            "a weight that no gradient reaches",
            "batch normalization, Adam",
            "convolution, XLA, clipnorm",
            "embedding, sparse gradients",
            "low-rank adapters (enable_lora)",
            "two variables of one path",
        }
    ),
    "Data": frozenset(
        {
            "shuffled anew in each epoch",
            "tf.data of unknown length",
            "epochs of different lengths: the data ends within one",
            "an endless generator, steps_per_epoch",
            "class_weight",
            "a Keras mask",
            "sparse inputs",
            "values that are not numbers",
        }
    ),
    "compile and fit": frozenset(
        {
            "run_eagerly",
            "steps_per_execution=2, the last one shorter",
            "gradient_accumulation_steps=4, clipnorm, weight_decay",
            "use_ema, overwriting every 2 steps",
            "LossScaleOptimizer",
            "schedule: cosine decay with warm-up",
            "a loss that gradaudit has no rule for",
            "a second fit after another compile",
            "a second fit after a layer was unfrozen",
            "train_on_batch",
        }
    ),
    "Precision": frozenset(
        {
            "float64, XLA",
            "mixed_float16, graph",
            "mixed_bfloat16, eager",
            "float16, graph",
            "bfloat16, eager",
            "one layer in float64",
        }
    ),
    "Distribution": frozenset(
        {
            "MirroredStrategy, Adam",
            "MirroredStrategy, batch normalization",
            "MirroredStrategy, a batch too small for the second replica",
            "OneDeviceStrategy",
        }
    ),
    "Company": frozenset(
        {
            "BackupAndRestore, after the audit",
            "LearningRateScheduler, before the audit",
            "all of these, after the audit",
            "SwapEMAWeights",
        }
    ),
}
