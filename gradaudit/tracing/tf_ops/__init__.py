"""One entry for each type of TensorFlow op: what it computes, and its VJP.

One job: the derivation of each op, in one place. Maths that rules of Keras need, too, is in
`rules/primitives/`, to which entries bind. `gradaudit.tracing` runs graphs of them. Rejected:
entries that call the rule of a Keras object, which must be built and called as Keras does.
"""
