"""The kernels that TensorRT-RTX compiles are kept from one process to the next, and never in the way."""

import os

import pytest
from fakes.cuda import MisuseError

from showface.runtime.backends.tensorrt.kernel_cache import cache_file
from showface.runtime.errors import UsageError


def compiled(rig):
    """Return how many kernels were compiled since this was last asked."""
    count = sum(len(engine.compiled) for engine in rig.engines.values())
    for engine in rig.engines.values():
        engine.compiled.clear()
    return count


def test_a_second_process_compiles_nothing(quick_rig, cache_home):
    quick_rig.open(kernel_cache=True).close()
    assert compiled(quick_rig) == 5 * 3  # stages, batches
    (file,) = cache_home.rglob("*.cache")
    assert file.parent.stat().st_mode & 0o077 == 0
    written = file.stat().st_mtime_ns
    quick_rig.open(kernel_cache=True).close()
    assert compiled(quick_rig) == 0
    assert file.stat().st_mtime_ns == written  # nothing new, nothing written
    quick_rig.open().close()
    assert compiled(quick_rig) == 5 * 3


@pytest.mark.parametrize(("limit", "compiled_again"), [(1, 0), (None, 5 * 3)])
def test_one_photograph_waits_for_its_kernels_so_that_the_next_need_not(quick_rig, cache_home, limit, compiled_again):
    """Longer runs go on meanwhile with kernels that stand in, and keep what is ready when they end."""
    for engine in quick_rig.engines.values():
        engine.compile_seconds = 3.0
    quick_rig.open(kernel_cache=True, batch_limit=limit).close()
    took = quick_rig.cuda.now
    assert (took >= 5 * 3.0) is (limit == 1)
    compiled(quick_rig)
    quick_rig.open(kernel_cache=True, batch_limit=limit).close()
    assert compiled(quick_rig) == compiled_again
    if limit == 1:
        assert quick_rig.cuda.now == took
    quick_rig.cuda.now += 60
    chain = quick_rig.open(kernel_cache=True)
    quick_rig.cuda.now += 60
    chain.close()
    compiled(quick_rig)
    quick_rig.open(kernel_cache=True).close()
    assert compiled(quick_rig) == 0


@pytest.mark.parametrize("junk", [b"", b"{", b'{"version": "1.6.0", "kernels": []}'])
def test_a_broken_or_foreign_file_is_replaced(quick_rig, cache_home, junk):
    quick_rig.open(kernel_cache=True).close()
    (file,) = cache_home.rglob("*.cache")
    good = file.read_bytes()
    file.write_bytes(junk)
    compiled(quick_rig)
    quick_rig.open(kernel_cache=True).close()
    assert compiled(quick_rig) == 5 * 3
    assert file.read_bytes() == good


def test_what_cannot_be_read_or_written_costs_time_alone(quick_rig, cache_home, caplog):
    quick_rig.open(kernel_cache=True).close()
    (file,) = cache_home.rglob("*.cache")
    file.unlink()
    os.mkfifo(file)  # must not be waited for
    quick_rig.open(kernel_cache=True).close()
    assert "is no regular file" in caplog.text
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("a file where the folder should be")
    quick_rig.open(kernel_cache=True).close()
    assert "compiled kernels cannot be kept" in caplog.text
    assert quick_rig.cuda.leaks() == []


def test_tensorrt_has_no_such_cache(quick_enterprise_rig, cache_home):
    quick_enterprise_rig.open(kernel_cache=True).close()
    assert list(cache_home.rglob("*.cache")) == []


def test_other_engines_versions_and_devices_have_files_of_their_own():
    files = {
        cache_file(*given) for given in ((["a"], "1", "x"), (["b"], "1", "x"), (["a"], "2", "x"), (["a"], "1", "y"))
    }
    assert len(files) == 4


def test_configuration_and_cache_outlive_the_contexts(quick_rig, batch_of):
    """The library may keep bare pointers to both; the fake raises where one is gone."""
    chain = quick_rig.open(kernel_cache=True)
    chain.complete(*batch_of(2))
    config = quick_rig.engines["coarse"].create_runtime_config()
    config.set_execution_context_allocation_strategy("USER_MANAGED")
    context = quick_rig.engines["coarse"].create_execution_context(config)
    del config
    with pytest.raises(MisuseError, match="configuration of this context is gone"):
        context.infer_shapes()
    chain.close()


def test_a_refused_engine_is_answered_with_the_library_s_diagnosis(quick_rig):
    del quick_rig.engines["mrem"]
    with pytest.raises(UsageError, match=r"mrem\.engine: .* refuses it on this GPU \(old cuda driver\); rebuild with"):
        quick_rig.open()
