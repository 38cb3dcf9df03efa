"""The old place of `gradaudit.nets`; importing it warns."""

import warnings

from gradaudit.nets import (
    NETS,
    Net,
    Settings,
    Table,
    compiled,
    encode_targets,
    import_build,
    net_named,
    read_table,
)

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

warnings.warn(
    "gradaudit.models is gradaudit.nets now, and will be removed. Import NETS from there.",
    DeprecationWarning,
    stacklevel=2,
)
