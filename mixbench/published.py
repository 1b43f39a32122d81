"""The published figures, one CSV a table in baselines/published, read as rows of text."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from mixbench.files import shipped

OPENMIXUP = {  # a strategy's name there
    "none": "Vanilla",
    "mixup": "MixUp",
    "cutmix": "CutMix",
    "saliencymix": "SaliencyMix",
    "attentivecutmix": "AttentiveMix+",
    "puzzlemix": "PuzzleMix",
    "transmix": "TransMix",
    "resizemix": "ResizeMix",
    "fmix": "FMix",
}


def published_dir() -> Path:
    """Where the published figures lie."""
    return shipped("published", "baselines/published")


def published_table(name: str) -> list[dict[str, str]]:
    """The rows of a file in baselines/published, such as 'table8', as printed.

    Lines of the file that begin with # say the source.
    """
    with (published_dir() / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def published_table8() -> dict[str, dict[str, str]]:
    """The rows of the paper's Table 8 by strategy; `mixup` is its Baseline row."""
    names = {"Baseline": "mixup"}
    return {
        names.get(row["method"], row["method"].lower().replace("-", "")): row
        for row in published_table("table8")
    }


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is published of a strategy, as printed; None where nothing is."""

    params_m: str | None  # Table 8, as the next three
    im_per_sec: str | None
    ratio: str | None  # of images a second, to CutMix's
    top1: str | None
    openmixup_top1: str | None  # OpenMixup's, of DeiT-S on ImageNet-1k


def own_publication(spec: str) -> tuple[str | None, str] | None:
    """The top-1 of DeiT-S in a strategy's own publication and why it is not comparable.

    None for the top-1 where none was found; None at all for a strategy that is not in the table,
    and for one with other settings.
    """
    for row in published_table("deit_small_by_method"):
        if row["strategy"] == spec:
            return row["top1"] or None, row["not_comparable"]
    return None


def published(spec: str) -> Published:
    """What is published of a strategy with default settings, Table 8's and OpenMixup's figures."""
    table8 = published_table8()
    paper = table8.get(spec)
    openmixup = {row["method"]: row["deit_small"] for row in published_table("openmixup_deit")}
    top1 = openmixup.get(OPENMIXUP.get(spec, ""))
    if paper is None:
        return Published(params_m=None, im_per_sec=None, ratio=None, top1=None, openmixup_top1=top1)
    ratio = float(paper["im_per_sec"]) / float(table8["cutmix"]["im_per_sec"])
    return Published(
        params_m=paper["params_m"],
        im_per_sec=paper["im_per_sec"],
        ratio=f"{ratio:.3f}",
        top1=paper["top1"],
        openmixup_top1=top1,
    )
