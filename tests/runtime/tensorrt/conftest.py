"""A strict fake of the few CUDA and TensorRT calls of the device chain: wrong use raises.

Device and pinned memory are numpy arrays. Work is queued by stream and done as late as possible: when the host
waits for it. Each piece of work says what it reads and writes; two pieces that touch the same memory, one of
them writing, must be ordered by a stream, an event or a wait of the host, else :class:`MisuseError` is raised (vector
clocks, Fidge 1988). Memory that was given back, unknown handles and unbound tensors raise as well.
"""

import ctypes
import hashlib
import json
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from showface.runtime.bundle import open_bundle
from showface.runtime.devices import CudaDevice
from showface.runtime.errors import UsageError
from showface.runtime.onnxruntime_backend import open_session
from showface.runtime.stages import TENSORS, Stage
from showface.runtime.tensorrt.sidecar import SIDECAR_SCHEMA, EngineFolder, Sidecar

DTYPES = {"float32": "FLOAT", "int32": "INT32"}  # and what the library calls them
HOST = "host"
SCRATCH = 4096


class MisuseError(AssertionError):
    """A call that real CUDA would answer with undefined behaviour."""


class Work:
    """A piece of queued work: on which stream, after what, what it touches, and what it does."""

    def __init__(self, stream, clock, reads, writes, action):
        self.stream, self.clock, self.reads, self.writes, self.action = stream, clock, reads, writes, action
        self.done = False


class FakeCuda:
    """:class:`showface.runtime.tensorrt.device.Cuda`, with a budget of device memory."""

    def __init__(self, budget=2**32):
        self.budget, self.arrays, self.kinds = budget, {}, {}
        self.streams, self.events, self.graphs = {}, {}, {}
        self.clocks, self.history = {HOST: {}}, []
        self.next_handle, self.capturing, self.calls = 1, None, []
        self.peak, self.threads = 0, {threading.get_ident()}

    def activate(self):
        self.threads.add(threading.get_ident())

    # --- memory
    def _new(self, size, kind):
        if size <= 0:
            raise MisuseError(f"allocation of {size} bytes")
        array = np.full(size, 0xA5, np.uint8)
        self.arrays[array.ctypes.data], self.kinds[array.ctypes.data] = array, kind
        self.peak = max(self.peak, self.used("device"))
        return array.ctypes.data

    def used(self, kind):
        return sum(a.nbytes for address, a in self.arrays.items() if self.kinds[address] == kind)

    def allocate(self, size):
        if self.used("device") + size > self.budget:
            raise UsageError("not enough memory")
        self.calls.append("allocate")
        return self._new(size, "device")

    def allocate_pinned(self, size):
        self.calls.append("allocate_pinned")
        return self._new(size, "pinned")

    def _release(self, address, kind):
        if self.kinds.get(address) != kind:
            raise MisuseError(f"{address:#x} is no {kind} memory, or was freed before")
        if any(not w.done and address in (*w.reads, *w.writes) for w in self.history):
            raise MisuseError(f"{kind} memory freed while work on it is under way")
        del self.arrays[address], self.kinds[address]

    def free(self, address):
        self._release(address, "device")

    def free_pinned(self, address):
        self._release(address, "pinned")

    def memory(self, address, size, kind="device"):
        """Return ``size`` bytes at the start of an allocation."""
        if self.kinds.get(address) != kind:
            raise MisuseError(f"{address:#x} is no {kind} memory")
        if size > self.arrays[address].nbytes:
            raise MisuseError(f"{size} bytes of {self.arrays[address].nbytes}")
        return self.arrays[address][:size]

    # --- order
    def _handle(self):
        self.next_handle += 1
        return self.next_handle

    def create_stream(self):
        stream = self._handle()
        self.streams[stream], self.clocks[stream] = [], {}
        return stream

    def destroy_stream(self, stream):
        if any(not work.done for work in self._queue(stream)):
            raise MisuseError("stream destroyed while it has work")
        del self.streams[stream]

    def _queue(self, stream):
        if threading.get_ident() not in self.threads:
            raise MisuseError("this thread works on another device")
        if stream not in self.streams:
            raise MisuseError(f"no stream {stream}")
        return self.streams[stream]

    def enqueue(self, stream, reads, writes, action):
        """Queue work; checks that it is ordered after all earlier work on the same memory."""
        if stream == self.capturing:
            self.captured.append((reads, writes, action))
            return
        queue, clock = self._queue(stream), self.clocks[stream]
        self._join(clock, self.clocks[HOST])  # what the host has waited for is over
        for earlier in self.history:
            conflict = set(writes) & {*earlier.reads, *earlier.writes} or set(reads) & set(earlier.writes)
            if conflict and clock.get(earlier.stream, 0) < earlier.clock[earlier.stream]:
                raise MisuseError(f"streams {earlier.stream} and {stream} race for memory")
        clock[stream] = clock.get(stream, 0) + 1
        work = Work(stream, dict(clock), set(reads), set(writes), action)
        queue.append(work)
        self.history.append(work)

    @staticmethod
    def _join(clock, other):
        for stream, count in other.items():
            clock[stream] = max(clock.get(stream, 0), count)

    def _run_until(self, clock):
        """Do all work that ``clock`` has seen, in the order of the queueing, and let the host know."""
        for work in self.history:
            if not work.done and work.clock[work.stream] <= clock.get(work.stream, 0):
                work.action()
                work.done = True
        self._join(self.clocks[HOST], clock)
        known = self.clocks[HOST]
        self.history = [w for w in self.history if w.clock[w.stream] > known.get(w.stream, 0)]
        for queue in self.streams.values():
            queue[:] = [work for work in queue if not work.done]

    def synchronize(self, stream):
        self._queue(stream)
        self._run_until(dict(self.clocks[stream]))

    def create_event(self):
        event = self._handle()
        self.events[event] = None
        return event

    def destroy_event(self, event):
        if event not in self.events:
            raise MisuseError(f"no event {event}")
        del self.events[event]

    def record(self, event, stream):
        self._queue(stream)
        if event not in self.events:
            raise MisuseError(f"no event {event}")
        self.events[event] = dict(self.clocks[stream])

    def _recorded(self, event):
        if self.events.get(event) is None:
            raise MisuseError(f"event {event} was never recorded, or destroyed")
        return self.events[event]

    def wait(self, stream, event):
        self._queue(stream)
        self._join(self.clocks[stream], self._recorded(event))

    def synchronize_event(self, event):
        self._run_until(self._recorded(event))

    # --- copies
    def upload(self, target, source, size, stream):
        into = self.memory(target, size)
        start = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(source))
        self.calls.append("upload")
        self.enqueue(stream, {source}, {target}, lambda: np.copyto(into, start))

    def download(self, target, source, size, stream):
        start = self.memory(source, size)
        into = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(target))
        self.calls.append("download")
        self.enqueue(stream, {source}, {target}, lambda: np.copyto(into, start))

    # --- graphs
    def begin_capture(self, stream):
        if self._queue(stream):
            raise MisuseError("capture of a stream that has work")
        self.capturing, self.captured = stream, []

    def end_capture(self, stream):
        if self.capturing != stream:
            raise MisuseError("no capture under way")
        self.capturing, graph = None, self._handle()
        self.graphs[graph] = self.captured
        return graph

    def launch(self, graph, stream):
        if graph not in self.graphs:
            raise MisuseError(f"no graph {graph}")
        self.calls.append("launch")
        for reads, writes, action in self.graphs[graph]:
            self.enqueue(stream, reads, writes, action)

    def destroy_graph(self, graph):
        if graph not in self.graphs:
            raise MisuseError(f"no graph {graph}")
        del self.graphs[graph]

    def leaks(self):
        """Return everything that has not been given back."""
        return [*self.arrays, *self.streams, *self.events, *self.graphs]


class FakeContext:
    """TensorRT's execution context: what it wants before it runs, and the stage's arithmetic."""

    def __init__(self, cuda, engine):
        self.cuda, self.engine = cuda, engine
        self.shapes, self.addresses, self.scratch = {}, {}, None
        self.batches_run = []

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.profile(name)
        allowed = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        if name not in self.engine.stage.inputs or not allowed:
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, memory):
        if name not in (*self.engine.stage.inputs, *self.engine.stage.outputs):
            return False
        self.addresses[name] = memory
        return True

    def set_device_memory(self, memory, size):
        if size < self.engine.device_memory_size_v2:
            raise MisuseError(f"{size} bytes of scratch memory, {self.engine.device_memory_size_v2} are needed")
        self.cuda.memory(memory, size)
        self.scratch = memory

    def infer_shapes(self):
        return [name for name in self.engine.stage.inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        batches = {shape[0] for shape in self.shapes.values()}
        if len(batches) != 1:
            raise MisuseError(f"inputs of different batches: {self.shapes}")
        return self.engine.shape(name, batches.pop())

    def execute_async_v3(self, stream_handle):
        engine, stage = self.engine, self.engine.stage
        if engine.fails:
            return False
        if self.scratch is None:
            raise MisuseError("no scratch memory")
        batch = self.shapes[stage.inputs[0]][0]

        def view(name):
            shape, dtype = engine.shape(name, batch), np.dtype(engine.dtype(name))
            if name not in self.addresses:
                raise MisuseError(f"{name} is not bound")
            memory = self.cuda.memory(self.addresses[name], int(np.prod(shape)) * dtype.itemsize)
            return memory.view(dtype).reshape(shape)

        inputs, outputs = ({n: view(n) for n in names} for names in (stage.inputs, stage.outputs))
        scratch = self.cuda.memory(self.scratch, engine.device_memory_size_v2)

        def action():
            scratch[:] = hash(stage.name) % 251  # an engine leaves nothing of another's there
            for name, value in engine.compute({n: a.copy() for n, a in inputs.items()}).items():
                np.copyto(outputs[name], value)

        if self.cuda.capturing is not None and engine.specialisation != "EAGER":
            raise MisuseError("a graph would capture kernels that stand in for others")
        touched = {n: self.addresses[n] for n in (*inputs, *outputs)}
        reads, writes = ({touched[n] for n in names} for names in (inputs, outputs))
        self.batches_run.append(batch)
        self.cuda.enqueue(stream_handle, reads, {*writes, self.scratch}, action)
        return True


class FakeEngine:
    """TensorRT's engine of a stage; ``compute`` maps arrays by name."""

    def __init__(self, cuda, stage, bundle, batches, compute, scratch=SCRATCH):
        self.cuda, self.stage, self.compute, self.batches = cuda, stage, compute, batches
        self.manifest, self.device_memory_size_v2 = bundle.manifest, scratch
        self.names, self.fails, self.contexts = (*stage.inputs, *stage.outputs), False, []

    def shape(self, name, batch):
        return TENSORS[name].resolve(batch, self.manifest.image_size, self.manifest.code_channels)

    def dtype(self, name):
        return TENSORS[name].dtype

    def profile(self, name):
        return [self.shape(name, batch) for batch in self.batches]

    @property
    def num_io_tensors(self):
        return len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        return DTYPES[self.dtype(name)]

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        return self.profile(name)

    def create_runtime_config(self):
        config = SimpleNamespace(strategy=None, dynamic_shapes_kernel_specialization_strategy="LAZY")
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        return config

    def create_execution_context(self, strategy):
        self.specialisation = getattr(strategy, "dynamic_shapes_kernel_specialization_strategy", "LAZY")
        strategy = getattr(strategy, "strategy", strategy)
        if strategy != "USER_MANAGED":
            raise MisuseError(f"a context of strategy {strategy} allocates scratch memory of its own")
        self.contexts.append(FakeContext(self.cuda, self))
        return self.contexts[-1]


class MarkedEngine(FakeEngine):
    """An engine that is a graph itself: it has the graph's outputs, and ONNX Runtime computes them."""

    def __init__(self, cuda, data, bundle, batches):
        session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        inputs, outputs = (tuple(t.name for t in of) for of in (session.get_inputs(), session.get_outputs()))
        run = lambda given: dict(zip(outputs, session.run(outputs, given), strict=True))  # noqa: E731
        super().__init__(cuda, Stage("marked", inputs, outputs), bundle, batches, run)
        self.sample = run({name: np.zeros(self.shape(name, 1), TENSORS[name].dtype) for name in inputs})

    def shape(self, name, batch):
        return super().shape(name, batch) if name in TENSORS else (batch, *self.sample[name].shape[1:])

    def dtype(self, name):
        return super().dtype(name) if name in TENSORS else self.sample[name].dtype.name


class Rig:
    """A bundle with fake engines, and the library that deserialises them."""

    version = "1.7.1.116"

    def __init__(self, folder, cuda, batches=(1, 2, 4), compute=None):
        self.bundle, self.cuda, self.batches = open_bundle(folder), cuda, batches
        self.folder = EngineFolder(self.bundle, "tensorrt-rtx", "sm_86")
        self.device = CudaDevice(0, "Fake GPU", "sm_86")
        self.engines, self.debug_engines, self.deserialised = {}, [], []
        self.folder.path.mkdir(parents=True)
        for stage in self.bundle.manifest.stages:
            run = compute or open_session(self.bundle.model(stage), stage, None, 1).run
            self.engines[stage.name] = FakeEngine(cuda, stage, self.bundle, batches, run)
            data = f"engine of {stage.name}".encode()
            self.folder.engine(stage.name).write_bytes(data)
            self.folder.sidecar(stage.name).write_text(self.sidecar(stage, data).to_json())

    def sidecar(self, stage, data):
        manifest = self.bundle.manifest
        return Sidecar(
            schema_version=SIDECAR_SCHEMA, stage=stage.name, backend="tensorrt-rtx", tensorrt_version=self.version,
            target="sm_86", gpu="", version_compatible=False, batches=self.batches,
            dtypes={n: TENSORS[n].dtype for n in (*stage.inputs, *stage.outputs)}, precision="float32",
            products={"float32": 1}, tf32=False, optimization_level=3, workspace_mib=None,
            onnx_sha256=manifest.sha256[f"{stage.name}.onnx"], engine_sha256=hashlib.sha256(data).hexdigest(),
            engine_bytes=len(data), build_seconds=0.1,
        )  # fmt: skip

    def debug_engine(self, data):
        self.debug_engines.append(MarkedEngine(self.cuda, data, self.bundle, self.batches))
        return self.debug_engines[-1]

    def edit_sidecar(self, of, /, **changes):
        path = self.folder.sidecar(of)
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    @property
    def trt(self):
        """The few names of ``tensorrt_rtx`` that are used."""
        rig = self

        class Runtime:
            def __init__(self, logger):
                self.logger = logger

            def deserialize_cuda_engine(self, data):
                rig.deserialised.append(data)
                if data.startswith(b"engine of "):
                    return rig.engines.get(data.decode().removeprefix("engine of "))
                return rig.debug_engine(data)

        class Logger:
            ERROR = 1

            def __init__(self, severity):
                self.severity = severity

        strategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
        dtypes = SimpleNamespace(FLOAT="FLOAT", INT32="INT32")
        kernels = SimpleNamespace(EAGER="EAGER")
        return SimpleNamespace(
            Runtime=Runtime, Logger=Logger, ExecutionContextAllocationStrategy=strategy, DataType=dtypes,
            DynamicShapesKernelSpecializationStrategy=kernels, __version__=self.version, __name__="tensorrt_rtx",
            nptype={value: key for key, value in DTYPES.items()}.get,
        )  # fmt: skip


def copy_of(bundle, folder):
    """Copy a bundle's files, not its engines."""
    folder.mkdir()
    for path in bundle.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def cuda():
    return FakeCuda()


@pytest.fixture
def make_rig(narrow_bundle, tmp_path, cuda):
    """Return a function that makes a :class:`Rig`; the stages compute in ONNX Runtime, or as ``compute`` says."""

    def make(**options):
        return Rig(copy_of(narrow_bundle, tmp_path / "rig"), cuda, **options)

    return make


@pytest.fixture(scope="session")
def zeros():
    """Return, for a stage, a compute function that costs nothing."""

    def compute_for(bundle_manifest):
        def compute(inputs):
            batch = len(next(iter(inputs.values())))
            image, channels = bundle_manifest.image_size, bundle_manifest.code_channels
            names = [n for n in TENSORS if n not in ("image", "mask")]
            return {n: np.zeros(TENSORS[n].resolve(batch, image, channels), TENSORS[n].dtype) for n in names}

        return compute

    return compute_for


@pytest.fixture(scope="session")
def misuse():
    return MisuseError
