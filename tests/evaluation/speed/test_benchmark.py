"""The benchmark's arithmetic against numpy, what it writes, and a run of it on a small bundle."""

import csv
import io
import json
import os
import time

import numpy as np
import pytest

from showface.cli import main
from showface.evaluation.speed.fresh_process import measure_fresh
from showface.evaluation.speed.kernels import kernel_times
from showface.evaluation.speed.tables import to_csv, to_markdown
from showface.evaluation.speed.timing import interleave, latency_of, ratio_of
from showface.runtime.bundle import open_bundle
from showface.runtime.errors import ShowfaceError
from showface.runtime.stages import STAGES
from showface.training.config import RefinerConfig

NAMES = [stage.name for stage in STAGES]


def test_latencies_are_numpys_percentiles():
    seconds = np.random.default_rng(0).uniform(0.1, 0.2, 51).tolist()
    ordered = sorted(seconds)
    latency = latency_of(seconds)
    assert latency.p50_ms == pytest.approx(ordered[25] * 1e3)
    assert latency.p90_ms == pytest.approx(ordered[45] * 1e3)
    assert latency.p99_ms == pytest.approx((ordered[49] + (ordered[50] - ordered[49]) * 0.5) * 1e3)
    assert (latency.min_ms, latency.runs) == (pytest.approx(ordered[0] * 1e3), 51)


def test_a_ratio_is_taken_round_by_round():
    base = [1.0, 2.0, 4.0, 1.0, 3.0]  # a disturbance that doubles a round doubles both
    ratio = ratio_of([2 * value for value in base], base)
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)
    assert ratio.told


def test_a_ratio_whose_spread_is_wider_than_its_distance_from_1_is_said_to_tell_nothing():
    ratio = ratio_of([1.0, 1.05, 1.2], [1.0, 1.0, 1.0])
    assert ratio.median == pytest.approx(1.05)
    assert not ratio.told


def test_tasks_run_in_turn_and_back():
    order = []
    seconds = interleave({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3, warm_up=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_the_clock_counts_what_a_task_takes():
    seconds = interleave({"sleep": lambda: time.sleep(0.02), "nothing": lambda: None}, rounds=3, warm_up=0)
    assert min(seconds["sleep"]) >= 0.02
    assert min(seconds["nothing"]) < 0.02


def test_a_fresh_process_reports_its_start_and_its_own_memory(narrow_bundle):
    ballast = np.ones(2**27)  # 1 GiB of this process must not count
    row = measure_fresh(narrow_bundle, "auto", "cpu", 1, 2)
    parts = row["imports"] + row["load"] + row["first_run"]
    assert 0 < parts <= row["start_to_result"]
    assert 30 < row["peak_mib"] < 900 < ballast.nbytes / 2**20


def test_a_fresh_process_runs_nothing_of_the_working_directory(narrow_bundle, tmp_path, monkeypatch):
    (tmp_path / "hashlib.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    assert measure_fresh(narrow_bundle, "auto", "cpu", 1, 1)["first_run"] > 0


def test_a_fresh_process_that_fails_is_an_error_that_names_the_bundle(tmp_path):
    with pytest.raises(ShowfaceError, match=str(tmp_path)):
        measure_fresh(tmp_path, "auto", "cpu", 1, 1)


def test_kernels_are_named_by_stage(narrow_bundle):
    bundle = open_bundle(narrow_bundle)
    times = kernel_times(bundle, {n: a[:1] for n, a in bundle.golden().items()}, 1)
    assert list(times) == NAMES
    assert all("Conv" in kinds for kinds in times.values())
    assert "InstanceNormalization" in times["refiner"]
    assert all(list(k.values()) == sorted(k.values(), reverse=True) for k in times.values())


@pytest.fixture
def call():
    """Return a function that runs the command line, which pins this process, and returns its exit code."""

    def run(*arguments):
        processors = os.sched_getaffinity(0)
        try:
            with pytest.raises(SystemExit) as stopped:
                main([*map(str, arguments)])
        finally:
            os.sched_setaffinity(0, processors)
        return stopped.value.code

    return run


def test_a_run_against_pytorch_and_itself_writes_all_tables(call, narrow_bundle, narrow_checkpoint, tmp_path, capsys):
    files = {name: tmp_path / f"b.{name}" for name in ("json", "csv", "markdown", "plot")}
    arguments = ["--threads", "1", "benchmark", narrow_bundle, "--device", "cpu", "--against", narrow_bundle]
    arguments += ["--checkpoint", narrow_checkpoint, "--batches", "2,1", "--rounds", "2", "--warm-up", "0"]
    arguments += ["--no-fresh", "--kernels"]
    for name, path in files.items():
        arguments += [f"--{name}", path]
    assert not call(*arguments)
    result = json.loads(files["json"].read_text())
    assert list(result["subjects"]) == ["bundle", "against", "torch-eager"]
    assert [batch["batch"] for batch in result["batches"]] == [1, 2]
    for batch in result["batches"]:
        assert set(batch["ratios"]) == {"against", "torch-eager"}
        for row in batch["subjects"]:
            assert list(row["stages"]) == NAMES
            assert row["faces_per_second"] == pytest.approx(batch["batch"] * 1e3 / row["chain"]["p50_ms"])
            assert row["copies_ms"] is None  # on the CPU nothing is copied between the stages
    assert list(result["phases"]) == ["bundle", "against"]
    for phases in result["phases"].values():
        *parts, total = phases.values()
        assert list(phases) == ["decode", "pre", *NAMES, "post", "encode", "end to end"]
        assert total == pytest.approx(sum(parts))
    assert result["flops"]["chain"] == pytest.approx(sum(result["flops"][name] for name in NAMES))
    assert result["matmul_gflops"] > 0
    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert files["csv"].read_text() == to_csv(result)
    assert len(rows) == 2 * 3 * 6
    text = capsys.readouterr().out
    assert files["markdown"].read_text() == text
    assert all(word in text for word in ("p99 ms", "torch-eager", "share of the matrix product", "Conv", "decode"))
    assert "phase of one face, bundle" in text
    assert "phase of one face, against" in text
    untold = sum(not ratio["told"] for batch in result["batches"] for ratio in batch["ratios"].values())
    assert text.count("no difference told") == untold
    assert files["plot"].read_bytes().startswith(b"\x89PNG")
    larger = to_markdown({**result, "batches": result["batches"][1:]})
    (row,) = [line for line in larger.splitlines() if line.startswith("| chain |")]
    _, gflop, milliseconds, rate, _ = (cell.strip() for cell in row.strip("|").split("|"))
    assert float(gflop) == pytest.approx(2 * result["flops"]["chain"], abs=0.01)
    assert float(rate) == pytest.approx(2 * result["flops"]["chain"] / float(milliseconds) * 1e3, rel=0.2, abs=0.5)


def test_a_checkpoint_of_other_weights_is_refused(call, narrow_bundle, make_checkpoint, tmp_path, capsys):
    other = make_checkpoint(tmp_path / "other.safetensors", refiner=RefinerConfig((16, 16, 16), (8, 8, 16), (2,)))
    arguments = ("--threads", "1", "benchmark", narrow_bundle, "--device", "cpu", "--checkpoint", other)
    assert call(*arguments) == 2
    assert "was exported from other weights" in " ".join(capsys.readouterr().err.split())
