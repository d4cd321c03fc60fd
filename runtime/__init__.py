"""Run exported MDRNets with numpy, OpenCV and an inference backend; needs no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inpainter import Inpainter

__all__ = ["Inpainter"]


def __getattr__(name: str) -> Any:
    """Load the inpainter, and with it ONNX Runtime and OpenCV, when it is asked for."""
    if name == "Inpainter":
        from .inpainter import Inpainter

        return Inpainter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
