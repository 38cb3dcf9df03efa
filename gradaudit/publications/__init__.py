"""Checks what others have published about a net.

One job: claims about a net's numbers to verdicts on them. Rejected: a table of the right numbers
to compare with, which would be right for one net, and say nothing about where a wrong number
comes from.
"""

from gradaudit.publications.check import check_claims, check_published, published

__all__ = ["check_claims", "check_published", "published"]
