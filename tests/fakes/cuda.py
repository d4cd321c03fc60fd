"""A strict fake of the few CUDA calls of the device chain: wrong use raises.

Device and pinned memory are numpy arrays. Work is queued by stream and done as late as possible: when the host
waits for it. Each piece of work says what it reads and writes; two pieces that touch the same memory, one of
them writing, must be ordered by a stream, an event or a wait of the host, else :class:`MisuseError` is raised (vector
clocks, Fidge 1988). Memory that was given back and unknown handles raise as well.
"""

import ctypes
import threading

import numpy as np

from showface.runtime.errors import UsageError

HOST = "host"


class MisuseError(AssertionError):
    """A call that real CUDA would answer with undefined behaviour."""


class Work:
    """A piece of queued work: on which stream, after what, what it touches, and what it does."""

    def __init__(self, stream, clock, reads, writes, action):
        self.stream, self.clock, self.reads, self.writes, self.action = stream, clock, reads, writes, action
        self.done = False


class FakeCuda:
    """:class:`showface.runtime.backends.tensorrt.device.Cuda`, with a budget of device memory."""

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
