"""Ablation tables: what each row changes, that a run continues, and the table beside the paper's."""

import json
from dataclasses import replace

import pytest
import torch

from showface.evaluation.quality.ablation import TABLES, ablate, ablation_table
from showface.evaluation.quality.paper_tables import PAPER_TABLES
from showface.runtime.errors import UsageError
from showface.training.checkpoint import read_checkpoint
from showface.training.config import PhaseConfig
from showface.training.process import make_fabric

FABRIC = make_fabric("cpu", 1, "fp32")
INIT = ("../../coarse/coarse.safetensors", "../../parser/parser.safetensors")


@pytest.fixture
def base(config):
    return config(init=INIT, phases={"full": PhaseConfig(2, 2, 64)}, checkpoint_every=1)


def test_every_row_is_the_papers():
    assert {name: set(rows) for name, rows in TABLES.items()} == {n: set(rows) for n, rows in PAPER_TABLES.items()}


def test_rows_change_what_they_are_named_after(config):
    base = config(loss={"semantic": 0.1, "intra": 0.2, "inter": 0.3})
    rows = {(table, name): change(base) for table, changes in TABLES.items() for name, change in changes.items()}
    network = base.network
    assert rows["modules", "without-memory"].network == replace(network, memory=replace(network.memory, kind="none"))
    restarted = TABLES["modules"]["without-memory"](replace(base, oracle_steps=2))
    assert restarted == rows["modules", "without-memory"]
    assert rows["modules", "without-mrem"].network == replace(network, mrem=replace(network.mrem, mining=False))
    assert rows["losses", "without-intra"].loss == {"semantic": 0.1, "intra": 0.0, "inter": 0.3}
    assert rows["memory", "slots-512"].network.memory == replace(network.memory, slots=512)
    shared = rows["memory", "non-disentangled"].network.memory
    assert (shared.kind, shared.slots) == ("shared", 128)
    assert rows["modules", "full"] == rows["losses", "full"] == base


def test_rows_are_trained_measured_and_not_repeated(base, data, stages, evaluation_set, monkeypatch):
    output = stages / "ablation"
    arguments = (base, data, output, evaluation_set, FABRIC)
    table = ablate("modules", ("without-memory", "full"), *arguments)
    names = ("without-memory", "full")
    variants = {name: read_checkpoint(output / name / "mdrnet.safetensors").config for name in names}
    assert variants["without-memory"].memory.kind == "none"
    assert variants["full"] == base.network
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3 * 4
    psnr = next(line for line in lines if "40-60%" in line and "PSNR" in line).split("|")[3:-1]
    scores = json.loads((output / "full/scores.json").read_text())["scores"]["40-60"]
    assert [float(cell) for cell in psnr[1::2]] == [24.017, 24.177]  # the paper's Table 2
    assert float(psnr[2]) == pytest.approx(scores["psnr"], abs=5e-4)

    monkeypatch.setattr("showface.evaluation.quality.ablation.train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("showface.evaluation.quality.ablation.evaluate", lambda *_: pytest.fail("measured again"))
    assert ablate("modules", ("without-memory", "full"), *arguments) == table
    with pytest.raises(UsageError, match=r"scores\.json: measured under another config"):
        ablate("modules", ("full",), replace(base, seed=9), *arguments[1:])


def test_a_stopped_row_continues(base, data, stages, evaluation_set, stop_after):
    ablate("modules", ("full",), base, data, stages / "ablation-whole", evaluation_set, FABRIC)
    output = stages / "ablation-stopped"
    with stop_after(1), pytest.raises(Exception, match="stopped at step 1"):
        ablate("modules", ("full",), base, data, output, evaluation_set, FABRIC)
    assert torch.load(output / "full/state.pt", weights_only=True)["step"] == 1
    ablate("modules", ("full",), base, data, output, evaluation_set, FABRIC)
    paths = [folder / "full/mdrnet.safetensors" for folder in (stages / "ablation-whole", output)]
    assert read_checkpoint(paths[0]).weights_sha256 == read_checkpoint(paths[1]).weights_sha256


def test_a_missing_distance_is_a_dash():
    row = {b: {"l1_percent": 1.0, "frechet": None, "psnr": 20.0, "ssim": 0.5, "images": 7, "label": None} for b in
           ("1-20", "20-40", "40-60")}  # fmt: skip
    table = ablation_table("memory", {"slots-32": row})
    assert "| 1-20% | FID ↓ | – | 3.194 |" in table
    assert "7 faces a bucket" in table


@pytest.mark.parametrize(
    ("table", "rows", "match"), [("widths", None, "'widths'.*memory"), ("memory", ("slots-3",), "'slots-3'.*slots-32")]
)
def test_unknown_names(table, rows, match, base, data, tmp_path, evaluation_set):
    with pytest.raises(UsageError, match=match):
        ablate(table, rows, base, data, tmp_path, evaluation_set, FABRIC)
