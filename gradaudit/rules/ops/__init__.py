"""One entry for each type of TensorFlow op, and the interpreter that runs graphs of them.

One job: derive the gradient of code for which no rule is registered, from the graph that it traces
to. Rejected: differentiating TensorFlow's own graph of gradients, which has the framework's
mistakes in it, and every custom gradient.
"""
