"""A strict fake of the few TensorRT calls of the device chain: what the real library refuses is refused."""

import json
import weakref

import numpy as np
import onnxruntime as ort
from fakes.cuda import MisuseError

from showface.runtime.stages import TENSORS, Stage

DTYPES = {"float32": "FLOAT", "int32": "INT32"}  # and what the library calls them
SCRATCH = 4096


class FakeRuntimeCache:
    """TensorRT-RTX's cache of compiled kernels; a text of another version or a broken one is refused."""

    def __init__(self, engine):
        self.cuda, self.version, self.kernels, self.ready = engine.cuda, engine.version, set(), {}

    def serialize(self):
        done = [kernel for kernel in self.kernels if self.ready.get(kernel, 0.0) <= self.cuda.now]
        return json.dumps({"version": self.version, "kernels": sorted(done)}).encode()

    def deserialize(self, blob):
        try:
            data = json.loads(bytes(blob))
        except ValueError:
            return False
        if data["version"] != self.version:
            return False
        self.kernels = {tuple(kernel) for kernel in data["kernels"]}
        return True


class FakeRuntimeConfig:
    """TensorRT-RTX's ``IRuntimeConfig``; like an object of pybind11 it refuses unknown attributes."""

    __slots__ = (
        "__weakref__",
        "_cache",
        "_engine",
        "_strategy",
        "cuda_graph_strategy",
        "dynamic_shapes_kernel_specialization_strategy",
    )

    def __init__(self, engine):
        self._engine, self._strategy, self._cache = engine, "STATIC", None
        self.dynamic_shapes_kernel_specialization_strategy, self.cuda_graph_strategy = "LAZY", "DISABLED"

    def set_execution_context_allocation_strategy(self, strategy):
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self):
        return self._strategy

    def create_runtime_cache(self):
        return FakeRuntimeCache(self._engine)

    def set_runtime_cache(self, cache):
        self._cache = weakref.ref(cache)  # the library may keep no more
        return True


class FakeContext:
    """TensorRT's execution context: what it wants before it runs, and the stage's arithmetic."""

    def __init__(self, cuda, engine, config=None):
        self.cuda, self.engine = cuda, engine
        self.shapes, self.addresses, self.scratch = {}, {}, None
        self.batches_run, self.calls = [], []
        self.profile = 0 if not engine.contexts else None
        self.config = None if config is None else weakref.ref(config)
        self.specialisation = "LAZY" if config is None else config.dynamic_shapes_kernel_specialization_strategy
        self.graphs = "DISABLED" if config is None else config.cuda_graph_strategy
        self.captured = False

    def _settings(self):
        """Return the runtime configuration; a library that keeps bare pointers would crash where it is gone."""
        config = None if self.config is None else self.config()
        if self.config is not None and config is None:
            raise MisuseError("the runtime configuration of this context is gone")
        return config

    def _binding(self, name):
        self.calls.append(name)
        self._settings()
        if self.cuda.capturing is not None:
            raise MisuseError(f"{name} while a stream is captured")
        if self.captured and name.startswith("set_"):
            raise MisuseError(f"{name} on a context that a graph was captured from, which spoils the graph")

    def set_optimization_profile_async(self, profile_index, stream_handle):
        self._binding("set_optimization_profile_async")
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self.engine.refuse(f"there is no profile {profile_index}")
        others = {context.profile for context in self.engine.contexts if context is not self}
        if not self.engine.shares_profiles and profile_index in others:
            return self.engine.refuse(f"profile {profile_index} is in use by another context")
        self.profile = profile_index
        return True

    def set_input_shape(self, name, shape):
        self._binding("set_input_shape")
        if self.profile is None:
            raise MisuseError("no optimisation profile was chosen")
        low, _, high = self.engine.profile(name, self.profile)
        allowed = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        if name not in self.engine.stage.inputs or not allowed:
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, memory):
        self._binding("set_tensor_address")
        if name not in (*self.engine.stage.inputs, *self.engine.stage.outputs):
            return False
        self.addresses[name] = memory
        return True

    def set_device_memory(self, memory, size):
        self._binding("set_device_memory")
        if size < self.engine.device_memory_size_v2:
            raise MisuseError(f"{size} bytes of scratch memory, {self.engine.device_memory_size_v2} are needed")
        self.cuda.memory(memory, size)
        self.scratch = memory

    def infer_shapes(self):
        self._binding("infer_shapes")
        if self.engine.infer_error is not None:
            raise RuntimeError(self.engine.infer_error)
        return [name for name in self.engine.stage.inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        self._binding("get_tensor_shape")
        batches = {shape[0] for shape in self.shapes.values()}
        if len(batches) != 1:
            raise MisuseError(f"inputs of different batches: {self.shapes}")
        return self.engine.shape(name, batches.pop())

    def _kernels(self, batch):
        """Compile what is missing for a batch; the cache, too, must outlive the context."""
        config = self._settings()
        kernel = (self.engine.stage.name, batch)
        if config is not None and config._cache is not None:
            cache = config._cache()
            if cache is None:
                raise MisuseError("the runtime cache of this context is gone")
            if kernel in cache.kernels:
                return
            cache.kernels.add(kernel)
            cache.ready[kernel] = self.cuda.now + self.engine.compile_seconds  # meanwhile others stand in for it
        if kernel not in self.engine.compiled:
            self.engine.compiled.append(kernel)
            if self.specialisation == "EAGER":
                self.cuda.now += self.engine.compile_seconds
            if self.cuda.capturing is not None:
                raise MisuseError(f"kernels of a batch of {batch} are compiled while a stream is captured")

    def execute_async_v3(self, stream_handle):
        engine, stage = self.engine, self.engine.stage
        self.calls.append("execute_async_v3")
        if engine.fails or self.cuda.broken is not None:
            if self.cuda.capturing is not None:
                self.cuda.capture_spoilt = True
            return engine.refuse(engine.fails)
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
            if engine.kills:
                self.cuda.broken = "an illegal memory access was encountered (700)"
            scratch[:] = hash(stage.name) % 251  # an engine leaves nothing of another's there
            for name, value in engine.compute({n: a.copy() for n, a in inputs.items()}).items():
                np.copyto(outputs[name], value)

        self._kernels(batch)
        if self.cuda.capturing is not None:
            if not engine.user_allocation:
                self.cuda.capture_spoilt = True
                raise MisuseError("the engine allocates memory while a stream is captured")
            if self.config is not None and self.specialisation != "EAGER":
                raise MisuseError("a graph would capture kernels that stand in for others")
            if self.graphs != "DISABLED":
                raise MisuseError("the library captures graphs of its own")
            self.captured = True
        touched = {n: self.addresses[n] for n in (*inputs, *outputs)}
        reads, writes = ({touched[n] for n in names} for names in (inputs, outputs))
        self.batches_run.append(batch)
        self.cuda.now += self.cuda.launch_seconds
        seconds = engine.seconds(batch)
        self.cuda.enqueue(stream_handle, reads, {*writes, self.scratch}, action, seconds)
        return True


class FakeRtxContext(FakeContext):
    """TensorRT-RTX's, which can be asked whether it can be captured."""

    def is_stream_capturable(self, stream):
        self.cuda.queue_of(stream)
        return self.engine.capturable and self.engine.user_allocation


class FakeEngine:
    """TensorRT's engine of a stage; ``compute`` maps arrays by name.

    Attributes:
        fails: the library's reason for refusing the work.
        kills: whether the work ends in a sticky error.
        seconds: what a batch takes on the fake's clock.
        compile_seconds: what its kernels take, for one batch.
    """

    def __init__(self, cuda, stage, bundle, batches, compute, scratch=SCRATCH, backend="tensorrt-rtx"):
        self.cuda, self.stage, self.compute, self.backend, self.profiles = cuda, stage, compute, backend, (batches,)
        self.manifest, self.device_memory_size_v2 = bundle.manifest, scratch
        self.names, self.fails, self.kills, self.contexts = (*stage.inputs, *stage.outputs), "", False, []
        self.compiled, self.infer_error, self.context_limit = [], None, 99
        self.user_allocation = self.capturable = self.shares_profiles = True
        self.recorder, self.version, self.seconds = None, "1.7.1.116", lambda batch: 0.0
        self.compile_seconds = 0.0

    def refuse(self, reason):
        """Do as the library: tell the recorder why, and return False."""
        if self.recorder is not None and reason:
            self.recorder.report_error("INTERNAL_ERROR", reason)
        return False

    def shape(self, name, batch):
        return TENSORS[name].resolve(batch, self.manifest.image_size, self.manifest.code_channels)

    def dtype(self, name):
        return TENSORS[name].dtype

    def profile(self, name, index=0):
        return [self.shape(name, batch) for batch in self.profiles[index]]

    @property
    def num_optimization_profiles(self):
        return len(self.profiles)

    @property
    def num_io_tensors(self):
        return len(self.names)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        return DTYPES[self.dtype(name)]

    def get_tensor_profile_shape(self, name, profile_index):
        return self.profile(name, profile_index)

    def create_runtime_config(self):
        if self.backend != "tensorrt-rtx":
            raise AttributeError("create_runtime_config")  # TensorRT 10 has none
        return FakeRuntimeConfig(self)

    def create_execution_context(self, strategy):
        config = strategy if isinstance(strategy, FakeRuntimeConfig) else None
        strategy = config.get_execution_context_allocation_strategy() if config is not None else strategy
        if strategy != "USER_MANAGED":
            raise MisuseError(f"a context of strategy {strategy} allocates scratch memory of its own")
        if len(self.contexts) >= self.context_limit:
            self.refuse("out of memory")
            return None
        kind = FakeRtxContext if self.backend == "tensorrt-rtx" else FakeContext
        self.contexts.append(kind(self.cuda, self, config))
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
