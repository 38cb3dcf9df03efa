"""Every activation of keras.activations: y = f(z), and dz from (z, y, dy).

One job: an elementwise activation is one entry: its function, its VJP, the formulas, its kinks.
piecewise.py has those made of polynomial pieces, smooth.py the others, along_axis.py those that
mix the elements of an axis. Rejected: a file for each, in which one line would need ten of frame.
"""

from gradaudit.rules.activations import along_axis, piecewise
from gradaudit.rules.activations.smooth import SELU_ALPHA, SELU_SCALE

__all__ = ["SELU_ALPHA", "SELU_SCALE", "along_axis", "piecewise"]
