"""Writes comparisons to a folder of CSV files, and reads them back. The only room with pandas.

One job: Comparison to files that a reviewer can sign. Rejected: one file at the end of the run,
which a killed run never writes.
"""

from gradaudit.report.folder import FILES, Ended, RunFolder, uninterrupted
from gradaudit.report.frame import data_frame
from gradaudit.report.headline import headline, waived
from gradaudit.report.merge import merge, worker_folder
from gradaudit.report.run import Run, collected, load

__all__ = [
    "FILES",
    "Ended",
    "Run",
    "RunFolder",
    "collected",
    "data_frame",
    "headline",
    "load",
    "merge",
    "uninterrupted",
    "waived",
    "worker_folder",
]
