"""The module of the library around the fakes of :mod:`fakes.tensorrt`: its logger, recorder, runtime and names."""

import threading
from enum import IntFlag
from types import SimpleNamespace

from fakes.cuda import MisuseError
from fakes.tensorrt import DTYPES


class FakeLogger:
    """The library's logger; a second one beside the first is ignored there, and refused here."""

    ERROR, VERBOSE = 1, 4

    def __init__(self, min_severity):
        self.min_severity = min_severity


class FakeErrorRecorder:
    """The library's base class."""


class Diagnostics(IntFlag):
    """Two of TensorRT-RTX's reasons why an engine is not valid here."""

    VERSION_MISMATCH = 1
    OLD_CUDA_DRIVER = 4


def fake_library(version, cuda, find_engine, backend="tensorrt-rtx"):
    """Return the few names of ``tensorrt`` or ``tensorrt_rtx`` that are used.

    Args:
        version: of the library.
        cuda: the device.
        find_engine: returns the engine of the bytes that are deserialised, or None for what is refused.
        backend: which of the two.
    """
    loggers = []

    class Runtime:
        __slots__ = ("diagnostics", "engine_host_code_allowed", "error_recorder", "logger")

        def __init__(self, logger):
            if loggers and logger is not loggers[0]:
                raise MisuseError("the library keeps the logger that it was given first")
            loggers.append(logger)
            if threading.get_ident() not in cuda.threads:
                raise MisuseError("a runtime works on its thread's device, and this thread has chosen none")
            self.logger, self.diagnostics = logger, Diagnostics.OLD_CUDA_DRIVER

        def deserialize_cuda_engine(self, data):
            engine = find_engine(data)
            if engine is not None:
                engine.recorder, engine.contexts = self.error_recorder, []
            return engine

    if backend == "tensorrt-rtx":
        Runtime.get_engine_validity = lambda self, buffer: ("INVALID", self.diagnostics)
    names = {
        "Runtime": Runtime, "Logger": FakeLogger, "IErrorRecorder": FakeErrorRecorder, "__version__": version,
        "__name__": backend.replace("-", "_"), "nptype": {value: key for key, value in DTYPES.items()}.get,
        "ExecutionContextAllocationStrategy": SimpleNamespace(USER_MANAGED="USER_MANAGED"),
        "DataType": SimpleNamespace(FLOAT="FLOAT", INT32="INT32"),
    }  # fmt: skip
    if backend == "tensorrt-rtx":
        names |= {
            "DynamicShapesKernelSpecializationStrategy": SimpleNamespace(EAGER="EAGER"),
            "CudaGraphStrategy": SimpleNamespace(WHOLE_GRAPH_CAPTURE="WHOLE_GRAPH_CAPTURE"),
            "EngineInvalidityDiagnostics": Diagnostics,
        }
    return Library(names)


class Library:
    """A module of given names, which can be a key of a cache as a real module can."""

    def __init__(self, names):
        self.__dict__.update(names)
