"""Does a candidate compute what the reference computes? Every stage alone, then the whole chain."""

from .compare import check_parity, compare_sources
from .sources import golden_reference

__all__ = ["check_parity", "compare_sources", "golden_reference"]
