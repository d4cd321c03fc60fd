"""What the CUDA driver says of its devices; no CUDA library besides the driver is needed for that."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


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


def _driver() -> Any:
    """Return the initialised driver, or None."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        if driver.cuInit(0) == 0:
            return driver
    return None
