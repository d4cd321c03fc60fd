"""For which GPU engines can be built here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from showface.runtime.backends.cuda_devices import CudaDevice
from showface.runtime.backends.tensorrt.sidecar import AMPERE_PLUS
from showface.runtime.errors import UsageError


def rtx_targets(trt: Any) -> tuple[str, ...]:
    """Return the compute capabilities that this TensorRT-RTX builds for: ``sm_75`` … ``sm_121``."""
    names = (name for name in trt.ComputeCapability.__members__ if name.startswith("SM"))
    return tuple(f"sm_{number}" for number in sorted(int(name.removeprefix("SM")) for name in names))


def choose_targets(
    trt: Any, backend: str, asked: Sequence[str], hardware_compatible: bool, device: CudaDevice | None
) -> tuple[str, ...]:
    """Return the targets to build for: those that were asked for, or the GPU of this machine.

    Args:
        trt: the library.
        backend: ``tensorrt`` or ``tensorrt-rtx``.
        asked: compute capabilities such as ``sm_86``.
        hardware_compatible: build TensorRT engines for any GPU from sm_80 on.
        device: the GPU of this machine, or None.

    Raises:
        UsageError: no such target can be built for here.
    """
    if backend == "tensorrt-rtx":
        if hardware_compatible:
            text = "only tensorrt builds such engines: TensorRT-RTX compiles its kernels on the device"
            raise UsageError(text, "hardware_compatible")
        known = rtx_targets(trt)
        targets = tuple(dict.fromkeys(asked)) or ((device.target,) if device else ())
        if not targets:
            raise UsageError(f"no GPU here to build for; name a target: {', '.join(known)}", "target")
        for target in targets:
            if target not in known:
                builds = f"TensorRT-RTX {trt.__version__} builds for {', '.join(known)}"
                raise UsageError(f"{target}: {builds}", "target")
        return targets
    if device is None:
        raise UsageError("tensorrt builds on the GPU that it builds for, and no CUDA driver is found here", "backend")
    for target in asked:
        if target != device.target:
            raise UsageError(
                f"{target}: TensorRT builds for the GPU of this machine ({device.name}, {device.target}); build there, "
                "or hardware-compatible engines, or use tensorrt-rtx",
                "target",
            )
    return (AMPERE_PLUS,) if hardware_compatible else (device.target,)
