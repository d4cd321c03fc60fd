"""The paper's ablation tables at any scale: train each row, measure it, print it beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from showface.runtime.errors import UsageError
from showface.runtime.untrusted.read import read_json
from showface.training.config import MemoryConfig, MremConfig, TrainConfig
from showface.training.run.loop import train
from showface.training.run_files import STATE_FILE, steps_done, write_whole

from ..faces import BUCKETS
from .evaluate import EvaluationSet, evaluate
from .feature_networks import feature_network
from .methods import checkpoint_method
from .paper_tables import PAPER_TABLES

SCORES_FILE = "scores.json"
METRICS = (("l1_percent", "L1(%) ↓", 3), ("frechet", "FID ↓", 3), ("psnr", "PSNR ↑", 3), ("ssim", "SSIM ↑", 3))
Scores = Mapping[str, Mapping[str, Any]]  # figures by bucket
Change = Callable[[TrainConfig], TrainConfig]


def _memory(**changes: Any) -> Change:
    def change(config: TrainConfig) -> TrainConfig:
        memory: MemoryConfig = replace(config.network.memory, **changes)
        oracle = 0 if memory.kind == "none" else config.oracle_steps
        return replace(config, network=replace(config.network, memory=memory), oracle_steps=oracle)

    return change


def _without_mining(config: TrainConfig) -> TrainConfig:
    mrem: MremConfig = replace(config.network.mrem, mining=False)
    return replace(config, network=replace(config.network, mrem=mrem))


def _without(term: str) -> Change:
    return lambda config: replace(config, loss={**config.loss, term: 0.0})


TABLES: Mapping[str, Mapping[str, Change]] = {
    "modules": {
        "without-memory": _memory(kind="none"),
        "without-mrem": _without_mining,
        "full": lambda config: config,
    },
    "losses": {
        "without-semantic": _without("semantic"),
        "without-intra": _without("intra"),
        "without-inter": _without("inter"),
        "full": lambda config: config,
    },
    "memory": {
        **{f"slots-{m}": _memory(slots=m) for m in (32, 64, 128, 256, 512)},
        "non-disentangled": _memory(kind="shared", slots=128),
    },
}


def ablate(
    table: str,
    rows: Sequence[str] | None,
    base: TrainConfig,
    data: Path,
    output: Path,
    test: EvaluationSet,
    fabric: Fabric,
) -> str:
    """Train and measure rows of an ablation table and return it as Markdown.

    Each row trains in a folder of its own below ``output``; the config's ``init`` is relative to it.
    A row that was measured under the same config is not repeated, one that was stopped continues.

    Args:
        table: ``modules``, ``losses`` or ``memory`` (the paper's Tables 2, 3 and 4).
        rows: their names; None takes all of the table.
        base: config of the stage ``mdrnet`` that the full model trains under.
        data: folder that the config's paths are relative to.
        output: a folder for each row goes here.
        test: faces and masks to measure on.
        fabric: devices and precision.

    Raises:
        UsageError: the table or a row is unknown, or a row was started under another config.
    """
    if table not in TABLES:
        raise UsageError(f"{table!r} is no ablation table; choose one of {', '.join(TABLES)}")
    unknown = sorted(set(rows or ()) - set(TABLES[table]))
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no row of the table {table}; its rows: {', '.join(TABLES[table])}")
    scores = {}
    for name in rows or TABLES[table]:
        config, folder = TABLES[table][name](base), output / name
        record = json.loads(json.dumps({"config": asdict(config), "test": asdict(test)}, default=str))
        found = _measured(folder / SCORES_FILE, record)
        if found is None:
            if not (folder / "mdrnet.safetensors").is_file() or steps_done(folder, config) < config.steps:
                train("mdrnet", config, data, folder, (folder / STATE_FILE).is_file(), fabric)
            found = _measure(folder, test, fabric)
            if fabric.is_global_zero:
                text = json.dumps({**record, "scores": found}, indent=1) + "\n"
                write_whole(folder / SCORES_FILE, partial(Path.write_text, data=text, encoding="utf-8"))
            fabric.barrier()
        scores[name] = found
    return ablation_table(table, scores)


def _measured(path: Path, record: Mapping[str, Any]) -> Scores | None:
    """Return the scores of a row that was measured under ``record``, or None."""
    if not path.is_file():
        return None
    known = read_json(path, "the scores of a row", "remove it")
    if not isinstance(known, dict) or any(known.get(key) != value for key, value in record.items()):
        raise UsageError(f"{path}: measured under another config or on other faces; choose another folder")
    scores: Scores = known["scores"]
    return scores


def _measure(folder: Path, test: EvaluationSet, fabric: Fabric) -> Scores:
    """Evaluate the row in ``folder``."""
    method = checkpoint_method(folder / "mdrnet.safetensors", fabric.device)
    network = None if test.features is None else feature_network(test.features, fabric.device)
    report = evaluate(method, test, network)
    return {bucket: {**asdict(scores), "label": report.frechet_label} for bucket, scores in report.buckets.items()}


def ablation_table(table: str, scores: Mapping[str, Scores]) -> str:
    """Return the measured rows of a table, each beside the paper's, in the layout of its tables, as Markdown."""
    lines = ["| hole | metric | " + " | ".join(f"{name} | paper" for name in scores) + " |"]
    lines.append("|---|---|" + "---:|" * (2 * len(scores)))
    for bucket in BUCKETS:
        for metric, title, digits in METRICS:
            cells = []
            for name, row in scores.items():
                ours = row[bucket][metric]
                paper = getattr(PAPER_TABLES[table][name][bucket], "fid" if metric == "frechet" else metric)
                cells += ["–" if ours is None else f"{ours:.{digits}f}", f"{paper:.{digits}f}"]
            first = next(iter(scores.values()))[bucket]
            label = f"{first['label']} / FID ↓" if metric == "frechet" and first["label"] else title
            lines.append(f"| {bucket}% | {label} | " + " | ".join(cells) + " |")
    faces = next(iter(scores.values()))["1-20"]["images"]
    return "\n".join(lines) + f"\n\nOurs: {faces} faces a bucket. The paper's: its own 2,000 images.\n"
