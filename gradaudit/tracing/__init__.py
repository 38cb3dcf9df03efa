"""Derives gradients of code that has no rule: traces it, and runs the graph in NumPy.

One job: from a callable to its outputs and its VJP. Rejected: running TensorFlow's own graph of
gradients, which contains the framework's mistakes and every custom gradient.
"""

from gradaudit.tracing.trace import Cotangents, Trace, trace

__all__ = ["Cotangents", "Trace", "trace"]
