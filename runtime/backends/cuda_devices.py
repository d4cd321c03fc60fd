"""What the CUDA driver says of its devices; no CUDA library besides the driver is needed for that."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
OLD_DRIVER = 35  # cudaErrorInsufficientDriver
# The errors of which CUDA's driver_types.h says that the process is left in an inconsistent state and that every
# further call returns the same error; and those that mean a device which is gone (214, 709, 999).
STICKY_ERRORS = frozenset(
    (214, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911, 999),
)


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One GPU: its name, and its compute capability as ``sm_86``."""

    index: int
    name: str
    target: str


def cuda_device_count() -> int:
    """Return the number of CUDA devices that the driver reports; 0 without a driver."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_device(index: int) -> CudaDevice | None:
    """Return a device of the driver, or None where there is no driver or no such device."""
    driver, handle = _driver(), ctypes.c_int(0)
    if driver is None or not 0 <= index < cuda_device_count():
        return None
    if driver.cuDeviceGet(ctypes.byref(handle), index) != 0:
        return None
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), handle)
    values = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int(0)
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle) != 0:
            return None
        values.append(value.value)
    return CudaDevice(index, name.value.decode(errors="replace"), f"sm_{values[0]}{values[1]}")


def driver_version() -> tuple[int, int] | None:
    """Return the newest CUDA that the driver runs, such as (12, 4); None without a driver."""
    driver, version = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def parse_device(device: str) -> int | None:
    """Return the CUDA index of ``cuda:N``, or None for ``cpu``.

    Raises:
        UsageError: neither of the two.
    """
    if device == "cpu":
        return None
    kind, _, index = device.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise UsageError(f"{device} is unknown; use auto, cpu or cuda:N", "device")
    return int(index or 0)


def lost_device(index: int, reason: str) -> str:
    """Return the sentence of a :class:`~.errors.DeviceLostError`."""
    return (
        f"CUDA device {index} is lost to this process: {reason}; run the same again, which goes on where this "
        "run ended; if it happens again, look for Xid errors with: sudo dmesg | grep -i xid"
    )


def _driver() -> Any:
    """Return the initialised driver, or None.

    It reads once whether kernels are loaded when they are first launched, which saves start-up time and device memory;
    where that is not its default yet it is asked for. What the user has set stands.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        if driver.cuInit(0) == 0:
            return driver
    return None
