"""A strict fake of the few CUDA calls of the device chain: wrong use raises, and a clock tells how long work takes.

Device and pinned memory are numpy arrays. Work is queued by stream and done as late as possible: when the host
waits for it. Each piece of work says what it reads and writes; two pieces that touch the same memory, one of
them writing, must be ordered by a stream, an event or a wait of the host, else :class:`MisuseError` is raised (vector
clocks, Fidge 1988). Memory that was given back and unknown handles raise as well.

The clock: a stream does one thing after the other, starts no work before the host has given it and before the events
that it waits for, and the host stands still while it waits. What a piece of work takes is said when it is queued.
"""

import ctypes
import threading

import numpy as np

from showface.runtime.errors import DeviceLostError, ShowfaceError, UsageError

HOST = "host"


class MisuseError(AssertionError):
    """A call that real CUDA would answer with undefined behaviour, or that would spoil a capture."""


class Work:
    """A piece of queued work: on which stream, after what, what it touches, and what it does."""

    def __init__(self, stream, clock, reads, writes, action):
        self.stream, self.clock, self.reads, self.writes, self.action = stream, clock, reads, writes, action
        self.done = False


class FakeCuda:
    """:class:`showface.runtime.backends.tensorrt.cuda.CudaRuntime`, with a budget of device and of pinned memory.

    Attributes:
        broken: the text of a sticky error; from then on every call fails with it, those that give back included.
        capture_error: what a capture ends with.
        now: seconds of the host.
        bandwidth: bytes a second of a copy; 0 for copies that take no time.
        launch_seconds: of the host for each engine or graph that it launches.
    """

    def __init__(self, budget=2**32, pinned=2**32):
        self.budget, self.pinned, self.arrays, self.kinds = budget, pinned, {}, {}
        self.streams, self.events, self.graphs = {}, {}, {}
        self.clocks, self.history = {HOST: {}}, []
        self.next_handle, self.capturing, self.calls = 1, None, []
        self.peak, self.threads = 0, {threading.get_ident()}
        self.broken = self.capture_error = None
        self.capture_spoilt = False
        self.now, self.bandwidth, self.launch_seconds = 0.0, 0, 0.0
        self.ends, self.times, self.busy, self.bytes = {}, {}, {}, 0

    def _begin(self, unsafe=False):
        if self.broken is not None:
            raise DeviceLostError(f"CUDA device 0 is lost to this process: {self.broken}")
        if unsafe and self.capturing is not None:
            self.capture_spoilt = True
            raise MisuseError("this call is not allowed while a stream is captured")

    def activate(self):
        self._begin()
        self.threads.add(threading.get_ident())

    # --- memory
    def _new(self, size, kind):
        self._begin(unsafe=True)
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

    def free_memory(self):
        return self.budget - self.used("device")

    def allocate_pinned(self, size):
        if self.used("pinned") + size > self.pinned:
            raise ShowfaceError("CUDA device 0: cudaMallocHost: out of memory (2)")
        self.calls.append("allocate_pinned")
        return self._new(size, "pinned")

    def _release(self, address, kind):
        if self.kinds.get(address) != kind:
            raise MisuseError(f"{address:#x} is no {kind} memory, or was freed before")
        under_way = any(not w.done and address in (*w.reads, *w.writes) for w in self.history)
        if under_way and self.broken is None:
            raise MisuseError(f"{kind} memory freed while work on it is under way")
        del self.arrays[address], self.kinds[address]
        self._begin(unsafe=True)

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
        self._begin()
        self.next_handle += 1
        return self.next_handle

    def create_stream(self):
        stream = self._handle()
        self.streams[stream], self.clocks[stream] = [], {}
        self.ends[stream] = self.busy[stream] = 0.0
        return stream

    def destroy_stream(self, stream):
        if any(not work.done for work in self.streams[stream]) and self.broken is None:
            raise MisuseError("stream destroyed while it has work")
        del self.streams[stream]
        self._begin()

    def queue_of(self, stream):
        self._begin()
        if threading.get_ident() not in self.threads:
            raise MisuseError("this thread works on another device")
        if stream not in self.streams:
            raise MisuseError(f"no stream {stream}")
        return self.streams[stream]

    def enqueue(self, stream, reads, writes, action, seconds=0.0):
        """Queue work of ``seconds``; checks that it is ordered after all earlier work on the same memory."""
        if stream == self.capturing:
            self.captured.append((reads, writes, action, seconds))
            return
        queue, clock = self.queue_of(stream), self.clocks[stream]
        self._join(clock, self.clocks[HOST])  # what the host has waited for is over
        for earlier in self.history:
            conflict = set(writes) & {*earlier.reads, *earlier.writes} or set(reads) & set(earlier.writes)
            if conflict and clock.get(earlier.stream, 0) < earlier.clock[earlier.stream]:
                raise MisuseError(f"streams {earlier.stream} and {stream} race for memory")
        clock[stream] = clock.get(stream, 0) + 1
        work = Work(stream, dict(clock), set(reads), set(writes), action)
        queue.append(work)
        self.history.append(work)
        self.ends[stream] = max(self.ends[stream], self.now) + seconds
        self.busy[stream] += seconds

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
        self._begin()  # an error of the work shows when the host waits for it
        self._join(self.clocks[HOST], clock)
        known = self.clocks[HOST]
        self.history = [w for w in self.history if w.clock[w.stream] > known.get(w.stream, 0)]
        for queue in self.streams.values():
            queue[:] = [work for work in queue if not work.done]

    def synchronize(self, stream):
        self._begin(unsafe=True)
        self.queue_of(stream)
        self._run_until(dict(self.clocks[stream]))
        self.now = max(self.now, self.ends[stream])

    def create_event(self):
        event = self._handle()
        self.events[event] = None
        return event

    def destroy_event(self, event):
        if event not in self.events:
            raise MisuseError(f"no event {event}")
        del self.events[event]
        self._begin()

    def record(self, event, stream):
        self.queue_of(stream)
        if event not in self.events:
            raise MisuseError(f"no event {event}")
        self.events[event] = dict(self.clocks[stream])
        self.times[event] = self.ends[stream]

    def _recorded(self, event):
        if self.events.get(event) is None:
            raise MisuseError(f"event {event} was never recorded, or destroyed")
        return self.events[event]

    def wait(self, stream, event):
        self.queue_of(stream)
        self._join(self.clocks[stream], self._recorded(event))
        self.ends[stream] = max(self.ends[stream], self.times[event])

    def synchronize_event(self, event):
        self._begin(unsafe=True)
        self._run_until(self._recorded(event))
        self.now = max(self.now, self.times[event])

    # --- copies
    def _copy(self, name, size, stream, reads, writes, action):
        self.calls.append(name)
        self.bytes += size
        seconds = size / self.bandwidth if self.bandwidth else 0.0
        self.enqueue(stream, reads, writes, action, seconds)

    def upload(self, target, source, size, stream):
        into = self.memory(target, size)
        start = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(source))
        self._copy("upload", size, stream, {source}, {target}, lambda: np.copyto(into, start))

    def download(self, target, source, size, stream):
        start = self.memory(source, size)
        into = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(target))
        self._copy("download", size, stream, {source}, {target}, lambda: np.copyto(into, start))

    # --- graphs
    def begin_capture(self, stream):
        if self.queue_of(stream):
            raise MisuseError("capture of a stream that has work")
        self.capturing, self.captured, self.capture_spoilt = stream, [], False

    def end_capture(self, stream):
        if self.capturing != stream:
            raise MisuseError("no capture under way")
        self.capturing = None
        if self.capture_error is not None or self.capture_spoilt:
            reason = self.capture_error or "operation failed due to a previous error during capture (901)"
            raise ShowfaceError(f"CUDA device 0: cudaStreamEndCapture: {reason}")
        graph = self._handle()
        self.graphs[graph] = self.captured
        return graph

    def abort_capture(self, stream):
        if self.capturing != stream:
            raise MisuseError("no capture under way")
        self.capturing = None
        self._begin()

    def launch(self, graph, stream):
        if graph not in self.graphs:
            raise MisuseError(f"no graph {graph}")
        self.calls.append("launch")
        self.now += self.launch_seconds
        for reads, writes, action, seconds in self.graphs[graph]:
            if {*reads, *writes} - set(self.arrays):
                raise MisuseError("a graph works on memory that was given back")
            self.enqueue(stream, reads, writes, action, seconds)

    def destroy_graph(self, graph):
        if graph not in self.graphs:
            raise MisuseError(f"no graph {graph}")
        del self.graphs[graph]
        self._begin()

    def leaks(self):
        """Return everything that has not been given back."""
        return [*self.arrays, *self.streams, *self.events, *self.graphs]
