"""Run exported MDRNets with numpy, OpenCV and an inference backend; needs no torch."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inpainter import Inpainter

__all__ = ["Inpainter"]

# ONNX Runtime reads this once, when it is imported: from 1.31 on it reports its use to its makers otherwise. A value
# that the user has set, also an empty one, stands.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """Load the inpainter, and with it ONNX Runtime and OpenCV, when it is asked for."""
    if name == "Inpainter":
        from .inpainter import Inpainter

        return Inpainter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
