"""The paper's models, counted and set beside the paper's figures: `mixbench zoo`."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn

from mixbench.models.build import build_model
from mixbench.models.class_token import NoClassAttention, attention_grid, class_attention_modules
from mixbench.published import published_table


@dataclass(frozen=True)
class ZooEntry:
    """A model by timm's name, and the row of the paper's table that reports it."""

    name: str
    table: str
    row: str
    num_classes: int = 1000


ZOO = (
    ZooEntry("deit_tiny_patch16_224", "table1", "DeiT-T"),
    ZooEntry("pvt_tiny", "table1", "PVT-T"),
    ZooEntry("xcit_tiny_24_p16_224", "table1", "XCiT-T"),  # 12 M; T12 has 6.7 M
    ZooEntry("cait_xxs36_224", "table1", "CaiT-XXS"),  # 17.3 M; XXS24 has 12.0 M
    ZooEntry("deit_small_patch16_224", "table1", "DeiT-S"),
    ZooEntry("pvt_small", "table1", "PVT-S"),
    ZooEntry("xcit_small_12_p16_224", "table1", "XCiT-S"),
    ZooEntry("pvt_medium", "table1", "PVT-M"),
    ZooEntry("pvt_large", "table1", "PVT-L"),
    ZooEntry("xcit_medium_24_p16_224", "table1", "XCiT-M"),
    ZooEntry("deit_base_patch16_224", "table1", "DeiT-B"),
    ZooEntry("xcit_large_24_p16_224", "table1", "XCiT-L"),
    ZooEntry("vit_small_patch16_224", "table6", "Dino", num_classes=0),
    ZooEntry("deit_small_distilled_patch16_224", "table6", "DeiT-distilled"),
    ZooEntry("swin_tiny_patch4_window7_224", "table7", "Swin-T"),
    ZooEntry("ca_swin_tiny", "table7", "CA-Swin-T"),
    ZooEntry("swin_small_patch4_window7_224", "table7", "Swin-S"),
    ZooEntry("ca_swin_small", "table7", "CA-Swin-S"),
    ZooEntry("resnet50", "table10", "ResNet-50"),
)


@dataclass(frozen=True)
class ZooRow:
    """A model of the zoo as it is counted here, beside the paper's figures as printed."""

    name: str
    table: str
    row: str
    params: int
    macs: int  # multiply-adds for one image of 224 px
    blocks: int  # with class attention
    grid: str  # of the patches that the class token sees, "14x14"; "" without one
    paper_params_m: str  # millions; "" where the table does not say
    paper_flops_g: str


@functools.cache
def blank_model(name: str, num_classes: int = 1000) -> nn.Module:
    """timm's model without memory for its weights, on the meta device, in eval mode."""
    with torch.device("meta"):
        return build_model(name, num_classes).eval()


def count(model: nn.Module, image_size: int = 224) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image.

    The model is in eval mode, on any device (meta will do).
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.empty(1, 3, image_size, image_size, device=next(model.parameters()).device)
    # not under no_grad: the counter fails there on CaiT
    with FlopCounterMode(display=False) as counter:
        model(image)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def zoo_table() -> list[ZooRow]:
    """A row for each model of the zoo.

    Models are built without memory, on the meta device, for 224 px.
    """
    return [_row(entry) for entry in ZOO]


def _row(entry: ZooEntry) -> ZooRow:
    model = blank_model(entry.name, entry.num_classes)
    params, macs = count(model)
    try:
        blocks = len(class_attention_modules(model))
        grid = "{}x{}".format(*attention_grid(model, 224, 224))
    except NoClassAttention:
        blocks, grid = 0, ""
    column = {"table6": "provider", "table10": "backbone"}.get(entry.table, "model")
    paper = next(row for row in published_table(entry.table) if row[column] == entry.row)
    return ZooRow(
        entry.name,
        entry.table,
        entry.row,
        params,
        macs,
        blocks,
        grid,
        paper.get("params_m", ""),
        paper.get("flops_g", ""),
    )


HEADER = ("model", "paper", "row", "params", "paper", "GMACs", "paper", "class attention", "grid")
RIGHT = {3, 4, 5, 6, 7}  # columns of figures


def zoo_text(rows: list[ZooRow]) -> str:
    """The zoo as a table of plain text, a line a model."""
    cells = [HEADER] + [
        (
            row.name,
            "Table " + row.table.removeprefix("table"),
            row.row,
            f"{row.params:,}",
            f"{row.paper_params_m}M" if row.paper_params_m else "-",
            f"{row.macs / 1e9:.2f}",
            row.paper_flops_g or "-",
            str(row.blocks or "none"),
            row.grid or "-",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if i in RIGHT else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)
