"""The distribution of z on correct code: the three nets in every mode.

    python benchmarks/z_distribution.py [STEPS_PER_RUN]

Trains each net in each precision, mode and optimizer under an audit of every step, and prints how
z is distributed over the single weights, as the README quotes it. The default makes 21,708 steps.
"""

import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context

import numpy as np
import pandas as pd

MODES = {"graph": {}, "XLA": {"jit": True}, "eager": {"eager": True}}
OPTIMIZERS = ("sgd", "momentum", "adam")


def runs_of(precision: str, steps: int) -> pd.DataFrame:
    """Return every judged weight of all runs in one precision: mode, stage, z, verdict, steps."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from gradaudit import GradientAudit, load
    from gradaudit.nets import NETS, Settings
    from gradaudit.nets.catalogue import compiled

    tables = []
    for seed, (net, mode, optimizer) in enumerate(product(NETS.values(), MODES, OPTIMIZERS)):
        rate = net.learning_rate if optimizer != "adam" else 0.01
        model = compiled(net, Settings(optimizer, rate, precision, seed=seed, **MODES[mode]))
        x, y = next(iter(net.data.values()))()
        batch = 16
        epochs = -(-steps // -(-len(x) // batch))
        with tempfile.TemporaryDirectory() as folder:
            model.fit(
                x,
                y,
                batch_size=batch,
                epochs=epochs,
                verbose=0,
                callbacks=[GradientAudit(folder, verbose=0, sigma="always")],
            )
            run = load(folder)
        table = run.weights[["step", "stage", "path", "z", "verdict"]].assign(
            precision=precision, mode=mode, run=f"{net.name} {mode} {optimizer}"
        )
        tables.append(table.assign(steps=len(run.steps)))
    return pd.concat(tables, ignore_index=True)


def main(steps: int) -> None:
    """Print the distribution as a Markdown table."""
    from gradaudit.nets.precision import PRECISIONS

    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = pd.concat(pool.map(runs_of, PRECISIONS, [steps] * len(PRECISIONS)))
    total = found.groupby(["precision", "run"])["steps"].first().sum()
    print(f"{total} steps, {len(found)} weights judged\n")
    print(
        "| precision | mode | stage | weights | median z | 99.9 % | largest z | fail | unresolved |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for key, group in found.groupby(["precision", "mode", "stage"], sort=False):
        z, verdicts = group["z"], group["verdict"].value_counts()
        print(
            f"| {' | '.join(key)} | {len(z)} | {z.median():.2f} | {np.quantile(z, 0.999):.2f} "
            f"| {z.max():.2f} | {verdicts.get('fail', 0)} | {verdicts.get('unresolved', 0)} |"
        )
    worst = found.loc[[found["z"].idxmax()]] if found.index.is_unique else found.nlargest(1, "z")
    print("\nlargest z:", worst.to_dict("records"))
    print(found.nlargest(12, "z").to_string())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
