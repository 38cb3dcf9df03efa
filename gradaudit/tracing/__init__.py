"""Rules that are made on the fly: code is traced to a graph, which is run op by op in NumPy.

One job: derive the gradient of code for which no rule is registered. Rejected: differentiating
TensorFlow's own graph of gradients, which has the framework's mistakes in it, and every custom
gradient.
"""

from gradaudit.tracing.trace import Cotangents, Trace, trace

__all__ = ["Cotangents", "Trace", "trace"]
