"""The three built-in nets, the data that they train on, and nets that users bring.

One job: a name to a compiled model with its arrays. Rejected: downloading data sets at run time.
Keras is imported inside the functions that build, so that listing the nets does not wait for it.
"""

from gradaudit.nets.catalogue import NETS, Net, Settings, compiled, net_named
from gradaudit.nets.data import Table, encode_targets, read_table
from gradaudit.nets.imported import import_build

__all__ = [
    "NETS",
    "Net",
    "Settings",
    "Table",
    "compiled",
    "encode_targets",
    "import_build",
    "net_named",
    "read_table",
]
