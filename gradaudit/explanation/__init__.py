"""Explains the gradient of one weight: every number on its way back from the loss.

One job: from a model, a batch and a weight to an Explanation. Rejected: a symbolic derivation,
which would not show the numbers of this step. The room is not called `explain`, because importing
a module of that name would hide the public function `gradaudit.explain`. Nothing is imported here:
the modules need TensorFlow, which the command line imports first.
"""
