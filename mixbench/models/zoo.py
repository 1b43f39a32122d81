"""The paper's models, as they are counted here and beside the paper's figures."""

from __future__ import annotations

from dataclasses import dataclass

from mixbench.published import published_table


@dataclass(frozen=True)
class ZooEntry:
    """A model by timm's name, the row of the paper's table that reports it, and its counts.

    Building all models takes long, so their counts stand here; a test counts them anew.
    """

    name: str
    table: str
    row: str
    params: int
    macs: int  # multiply-adds for one image of 224 px
    blocks: int  # with class attention
    grid: str  # of the patches that the class token sees, "14x14"; "" without one
    num_classes: int = 1000


ZOO = (
    ZooEntry("deit_tiny_patch16_224", "table1", "DeiT-T", 5717416, 1253683200, 12, "14x14"),
    ZooEntry("pvt_tiny", "table1", "PVT-T", 13229288, 1932911616, 2, "7x7"),
    # 12 M; T12 has 6.7 M
    ZooEntry("xcit_tiny_24_p16_224", "table1", "XCiT-T", 12116896, 2322068736, 2, "14x14"),
    # 17.3 M; XXS24 has 12.0 M
    ZooEntry("cait_xxs36_224", "table1", "CaiT-XXS", 17299720, 3755697408, 2, "14x14"),
    ZooEntry("deit_small_patch16_224", "table1", "DeiT-S", 22050664, 4598882304, 12, "14x14"),
    ZooEntry("pvt_small", "table1", "PVT-S", 24485864, 3815701504, 3, "7x7"),
    ZooEntry("xcit_small_12_p16_224", "table1", "XCiT-S", 26253304, 4795832832, 2, "14x14"),
    ZooEntry("pvt_medium", "table1", "PVT-M", 44208104, 6659175424, 3, "7x7"),
    ZooEntry("pvt_large", "table1", "PVT-L", 61369320, 9813765632, 3, "7x7"),
    ZooEntry("xcit_medium_24_p16_224", "table1", "XCiT-M", 84395752, 16083597312, 2, "14x14"),
    ZooEntry("deit_base_patch16_224", "table1", "DeiT-B", 86567656, 17563828224, 12, "14x14"),
    ZooEntry("xcit_large_24_p16_224", "table1", "XCiT-L", 189096136, 35787002880, 2, "14x14"),
    ZooEntry("vit_small_patch16_224", "table6", "Dino", 21665664, 4598498304, 12, "14x14", 0),
    ZooEntry(
        name="deit_small_distilled_patch16_224",
        table="table6",
        row="DeiT-distilled",
        params=22436432,
        macs=4624140288,
        blocks=12,
        grid="14x14",
    ),
    ZooEntry("swin_tiny_patch4_window7_224", "table7", "Swin-T", 28288354, 4490566656, 0, ""),
    ZooEntry("ca_swin_tiny", "table7", "CA-Swin-T", 28286602, 4205019648, 1, "7x7"),
    ZooEntry("swin_small_patch4_window7_224", "table7", "Swin-S", 49606258, 8740875264, 0, ""),
    ZooEntry("ca_swin_small", "table7", "CA-Swin-S", 49604506, 8455328256, 1, "7x7"),
    ZooEntry("resnet50", "table10", "ResNet-50", 25557032, 4089184256, 0, ""),
)


@dataclass(frozen=True, kw_only=True)
class PaperFigures:
    """What the paper's table says of a model, as printed; "" where it says nothing."""

    params_m: str = ""  # millions
    flops_g: str = ""
    top1: str = ""  # trained without TransMix
    top1_transmix: str = ""


def paper_figures(entry: ZooEntry) -> PaperFigures:
    """The paper's figures of a model, all from the table that reports it."""
    if entry.table == "table6":
        return PaperFigures()  # its top-1 is of DeiT-S, which had this model's attention
    column = "backbone" if entry.table == "table10" else "model"
    rows: dict[str, dict[str, str]] = {}
    for row in published_table(entry.table):
        rows.setdefault(row[column], row)  # of Table 10 the Baseline comes first
    row, mixed = rows[entry.row], rows.get(f"TransMix-{entry.row}", {})
    return PaperFigures(
        params_m=row["params_m"],
        flops_g=row.get("flops_g", ""),
        top1=row.get("top1_base") or row["top1"],
        top1_transmix=row.get("top1_transmix") or mixed.get("top1", ""),
    )
