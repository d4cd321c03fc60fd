"""The INT8 variant beside a bundle: taken where it was measured to be faster, on this device and backend."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from ..bundle import MANIFEST_FILE, Bundle, Manifest, open_bundle
from ..errors import UsageError
from .cuda_devices import cuda_device, parse_device

SUFFIX = "-int8"
MEASURED = "measured"  # key of the verdicts in the manifest's record of the calibration
ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How fast an INT8 bundle was, measured in turn with a float bundle of the same weights.

    Attributes:
        device: name of the processor or GPU.
        backend: that ran the INT8 bundle.
        against: precision and backend of the float bundle.
        ratios: time of the float bundle / time of the INT8 bundle, by batch.
    """

    device: str
    backend: str
    against: str
    ratios: Mapping[str, float]

    @property
    def least(self) -> float:
        """The smallest ratio; above 1 INT8 was faster at every batch."""
        return min(self.ratios.values())


def verdicts(manifest: Manifest) -> list[Verdict]:
    """Return the verdicts in a manifest; what is none of them is left out."""
    found = (manifest.calibration or {}).get(MEASURED, [])
    read = []
    for entry in found if isinstance(found, list) else []:
        try:
            ratios = {str(batch): float(ratio) for batch, ratio in entry["ratios"].items()}
            verdict = Verdict(entry["device"], entry["backend"], entry["against"], ratios)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        if verdict.ratios:
            read.append(verdict)
    return read


def cpu_name() -> str:
    """Return the processor's model name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def device_name(device: str) -> str:
    """Return the name of the GPU that ``auto`` or ``cuda:N`` means, else the processor's."""
    index = 0 if device == "auto" else parse_device(device)
    found = None if index is None else cuda_device(index)
    return cpu_name() if found is None else found.name


def against(bundle: Bundle, backend: str) -> str:
    """Return how a verdict names the float bundle; a CPU form is another opponent."""
    form = "" if bundle.manifest.form is None else f" in {bundle.manifest.form} form"
    return f"{'/'.join(sorted(set(bundle.manifest.precision.values())))}{form} on {backend}"


def is_int8(bundle: Bundle) -> bool:
    """Return whether a stage of a bundle computes in INT8."""
    return "int8" in bundle.manifest.precision.values()


def faster_int8(bundle: Bundle, device: str) -> tuple[Bundle, str]:
    """Return the INT8 variant of a float bundle where it was measured to be faster here, else the bundle.

    The variant is the folder of the bundle's name with ``-int8`` behind it, and has the same weights.

    Returns:
        The bundle to run, and why; no reason where there is no variant.
    """
    folder = bundle.folder.with_name(f"{bundle.folder.resolve().name}{SUFFIX}")
    if is_int8(bundle) or not (folder / MANIFEST_FILE).is_file():
        return bundle, ""
    try:
        variant = open_bundle(folder)
    except UsageError as error:
        return bundle, f"INT8 is not used: {error}"
    if not is_int8(variant) or variant.manifest.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
        return bundle, f"INT8 is not used: {folder.name} is no INT8 variant of these weights"
    name, backend = device_name(device), likely_backend(variant, device)
    wanted = (name, backend, against(bundle, likely_backend(bundle, device)))
    for verdict in verdicts(variant.manifest):
        if (verdict.device, verdict.backend, verdict.against) == wanted:
            fact = f"{verdict.least:.2f} × as fast as {verdict.against} on {name}"
            if verdict.least > 1:
                return variant, f"INT8 of {folder.name}, measured {fact}"
            return bundle, f"INT8 is not used: {folder.name} was measured {fact}"
    variant_path, path = shlex.quote(str(folder)), shlex.quote(str(bundle.folder))
    command = f"showface benchmark {variant_path} --against {path}"
    return bundle, f"INT8 is not used: its speed on {name} is not known; measure it with: {command}"


def likely_backend(bundle: Bundle, device: str) -> str:
    """Return the backend that ``auto`` takes for a bundle, unless it fails there."""
    from .tensorrt.library import LIBRARIES
    from .tensorrt.loader import matching_folder

    index = 0 if device == "auto" else parse_device(device)
    found = None if index is None else cuda_device(index)
    if found is None:
        return ONNXRUNTIME
    fitting = (backend for backend in LIBRARIES if matching_folder(bundle, backend, found) is not None)
    return next(fitting, ONNXRUNTIME)
