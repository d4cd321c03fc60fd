"""What a benchmark writes for people: Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

KINDS_SHOWN = 4  # kernels of a stage
COLUMNS = ("subject", "batch", "part", "p50_ms", "p90_ms", "p99_ms", "min_ms", "runs")


def to_csv(result: Mapping[str, Any]) -> str:
    """Return one line for each subject, batch and part (the chain or a stage)."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for batch in result["batches"]:
        for row in batch["subjects"]:
            for part, latency in (("chain", row["chain"]), *row["stages"].items()):
                writer.writerow({"subject": row["subject"], "batch": row["batch"], "part": part, **latency})
    return buffer.getvalue()


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the tables of a result with machine and versions."""
    lines = [", ".join(f"{name} {value}" for name, value in result["environment"].items()), ""]
    lines += [f"- **{name}**: {text}" for name, text in result["subjects"].items()]
    plan = result["plan"]
    rounds = f"{plan['rounds']} interleaved rounds after {plan['warm_up']} to warm up"
    lines += ["", f"{rounds}, {result['threads']} threads."]
    lines += ["", *_latencies(result)]
    if result["int8"]:
        lines += ["", f"{result['int8']}."]
    if result["fresh"]:
        lines += ["", *_fresh(result["fresh"])]
    lines += ["", *_phases(result["phases"])]
    if result["flops"]:
        lines += ["", *_rates(result)]
    if result["kernels"]:
        lines += ["", *_kernels(result["kernels"])]
    return "\n".join(lines) + "\n"


def _latencies(result: Mapping[str, Any]) -> list[str]:
    stages = list(result["batches"][0]["subjects"][0]["stages"])
    head = ["subject", "batch", "p50 ms", "p90 ms", "p99 ms", "faces/s", *(f"{s} ms" for s in stages), "copies ms"]
    lines = _head([*head, "× time of the first (p10–p90)"])
    for batch in result["batches"]:
        for row in batch["subjects"]:
            ratio = batch["ratios"].get(row["subject"])
            chain = row["chain"]
            cells = [row["subject"], str(row["batch"])]
            cells += [f"{chain[key]:.1f}" for key in ("p50_ms", "p90_ms", "p99_ms")]
            cells += [f"{row['faces_per_second']:.2f}"]
            copies = row["copies_ms"]
            cells += [f"{row['stages'][stage]['p50_ms']:.1f}" for stage in stages]
            cells += ["–" if copies is None else f"{copies:.1f}", "1" if ratio is None else _ratio(ratio)]
            lines.append(_row(cells))
    return lines


def _ratio(ratio: Mapping[str, Any]) -> str:
    text = f"{ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})"
    return text if ratio["told"] else f"{text}: within the spread, no difference told"


def _fresh(fresh: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    parts = ("start to result s", "imports s", "load s", "first run s", "second run s", "peak MiB")
    lines = _head(["fresh process", *parts])
    for name, row in fresh.items():
        keys = ("start_to_result", "imports", "load", "first_run", "second_run")
        peak = row["peak_mib"]
        lines.append(_row([name, *(f"{row[key]:.2f}" for key in keys), "–" if peak is None else f"{peak:.0f}"]))
    return lines


def _phases(phases: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = []
    for subject, parts in phases.items():
        total = parts["end to end"]
        lines += ["", *_head([f"phase of one face, {subject}", "ms", "share"])]
        lines += [_row([name, f"{ms:.2f}", f"{ms / total:.1%}"]) for name, ms in parts.items()]
    return lines[1:]


def _rates(result: Mapping[str, Any]) -> list[str]:
    """Return what each stage reaches of the matrix product, at the smallest batch."""
    first = result["batches"][0]
    row, flops, peak = first["subjects"][0], result["flops"], result["matmul_gflops"]
    parts = {**row["stages"], "chain": row["chain"]}
    lines = [f"Matrix product in the rounds of the chain: {peak:.0f} GFLOP/s in float32. Batch {row['batch']}.", ""]
    lines += _head(["stage", "GFLOP", "p50 ms", "GFLOP/s", "share of the matrix product"])
    for name, part in parts.items():
        gflop = flops[name] * row["batch"]
        rate = gflop / part["p50_ms"] * 1e3
        lines.append(_row([name, f"{gflop:.2f}", f"{part['p50_ms']:.1f}", f"{rate:.0f}", f"{rate / peak:.2f}"]))
    return lines


def _kernels(kernels: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = _head(["stage", "kernels ms", "of them"])
    for stage, kinds in kernels.items():
        shown = [f"{kind} {ms:.1f}" for kind, ms in list(kinds.items())[:KINDS_SHOWN]]
        lines.append(_row([stage, f"{sum(kinds.values()):.1f}", ", ".join(shown)]))
    return lines


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(result: Mapping[str, Any]) -> bytes:
    """Return a PNG of the latency over the batch size; needs the extra ``report``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name in result["subjects"]:
        rows = [row for batch in result["batches"] for row in batch["subjects"] if row["subject"] == name]
        sizes, middle = [row["batch"] for row in rows], [row["chain"]["p50_ms"] for row in rows]
        spread = [[row["chain"]["p50_ms"] - row["chain"]["min_ms"] for row in rows]]
        spread.append([row["chain"]["p90_ms"] - row["chain"]["p50_ms"] for row in rows])
        axes.errorbar(sizes, middle, yerr=spread, marker="o", capsize=3, label=name)
    axes.set_xlabel("batch")
    axes.set_ylabel("chain, ms (p50; bars from the fastest to p90)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
