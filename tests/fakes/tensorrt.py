"""A strict fake of the few TensorRT calls of the device chain: unbound tensors and missing memory raise."""

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
from fakes.cuda import MisuseError

from showface.runtime.stages import TENSORS, Stage

DTYPES = {"float32": "FLOAT", "int32": "INT32"}  # and what the library calls them
SCRATCH = 4096


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
