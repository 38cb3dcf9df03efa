"""What the layers of a family share, because Keras does it alike in all of them.

One job: knowledge of Keras that more than one layer's rule needs: data formats, dtypes, masks,
parts, states. Maths without a Keras object is in `rules/primitives/`. Rejected: letting one layer's
rule import from another's, which hides what is shared in the file of either.
"""
