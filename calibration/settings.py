"""What a calibration can be asked for by name; needs none of the packages that it is done with."""

from __future__ import annotations

from enum import StrEnum


class Calibrator(StrEnum):
    """How a range is found."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Target(StrEnum):
    """Who runs the quantised graph."""

    CPU = "cpu"
    TENSORRT = "tensorrt"
