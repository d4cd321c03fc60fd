"""Faces side by side: in order, bounded, and a fault of one ends all."""

import threading

import pytest

from showface.calibration.parallel import parallel


def test_results_come_in_order_and_two_run_at_a_time():
    together = threading.Barrier(2, timeout=10)  # passed only where two are under way

    def work(item):
        together.wait()
        return item * item

    assert list(parallel(work, range(6), 2)) == [0, 1, 4, 9, 16, 25]


def test_no_more_items_are_read_than_are_under_way():
    read = []

    def items():
        for item in range(100):
            read.append(item)
            yield item

    results = parallel(lambda item: item, items(), 2)
    for taken in range(1, 20):
        next(results)
        assert len(read) == taken + 2


def test_a_fault_comes_out():
    def work(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(parallel(work, range(3), 2))
