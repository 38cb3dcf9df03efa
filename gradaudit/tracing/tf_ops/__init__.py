"""One entry for each type of TensorFlow op: what it computes, and its VJP.

One job: the derivation of each op, in one place. Where Keras has the same operation, its rule is
used. `gradaudit.tracing` runs graphs of them.
"""
