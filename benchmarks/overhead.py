"""How much longer an audited training takes than the same training in a bare script.

    python benchmarks/overhead.py [PAIRS]

Runs both as whole processes, imports included, in turn, and prints the ratio of each pair: the
machine's speed drifts, and ratios of neighbours do not.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path


def seconds(command: list[str], folder: str) -> float:
    """Return how long a command takes."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main(pairs: int) -> None:
    """Print each pair and the median ratio."""
    data = str(resources.files("gradaudit.nets") / "data" / "iris.csv")
    bare = [sys.executable, str(Path(__file__).with_name("bare_iris.py").resolve()), data]
    audited = [sys.executable, "-m", "gradaudit", "run", "--model", "iris"]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for command in (bare, audited):
            seconds(command, folder)  # warms the disk's cache
        for _ in range(pairs):
            alone, both = seconds(bare, folder), seconds(audited, folder)
            ratios.append(both / alone)
            print(f"bare {alone:5.2f} s   audited {both:5.2f} s   ratio {ratios[-1]:.2f}")
        for _ in range(pairs):
            print(f"--help {seconds([*audited[:3], '--help'], folder):.2f} s")
    print(f"median ratio {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
