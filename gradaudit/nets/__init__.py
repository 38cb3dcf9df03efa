"""The three built-in nets, their data, and the import of users' own nets.

One job: from a name to a compiled model with its arrays. Rejected: downloading data sets at run
time. Keras is imported inside the functions that build, so that listing the nets is quick.
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
