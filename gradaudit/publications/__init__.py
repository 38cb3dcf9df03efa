"""Checks what others have published about a net.

One job: claims about a net's numbers to verdicts on them. Rejected: a table of the right numbers
to compare with, which would be right for one net, and would not say where a wrong number comes
from. The room is not called `published`, because importing a module of that name would hide the
public function `gradaudit.published`. Nothing is imported here: claims can be read before
TensorFlow is imported.
"""
