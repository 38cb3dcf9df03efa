"""Writes comparisons to a folder of tables, and reads them back. The only room with pandas.

One job: Comparison to files that a reviewer can sign. Rejected: one file at the end of the run,
which a killed run never writes.
"""

from gradaudit.report.folder import Ended, Format, RunFolder, uninterrupted
from gradaudit.report.frame import data_frame
from gradaudit.report.headline import headline, waived
from gradaudit.report.merge import merge, worker_folder
from gradaudit.report.run import InMemory, Run, load

__all__ = [
    "Ended",
    "Format",
    "InMemory",
    "Run",
    "RunFolder",
    "data_frame",
    "headline",
    "load",
    "merge",
    "uninterrupted",
    "waived",
    "worker_folder",
]
