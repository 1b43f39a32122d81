"""The zoo against the published counts."""

import pytest
import timm
import yaml

from mixbench.models.class_token import NoClassAttention, attention_grid, class_attention_modules
from mixbench.models.counts import blank_model, count
from mixbench.models.zoo import ZOO, paper_figures
from mixbench.published import published_dir, published_table
from mixbench.recipe import config_dir, load_recipe

COUNTS = {  # parameters, G multiply-adds at 224 px, blocks with class attention, grid
    "deit_tiny_patch16_224": (5_717_416, 1.25, 12, "14x14"),
    "deit_small_patch16_224": (22_050_664, 4.60, 12, "14x14"),
    "deit_base_patch16_224": (86_567_656, 17.56, 12, "14x14"),
    "cait_xxs36_224": (17_299_720, 3.76, 2, "14x14"),
    "xcit_tiny_24_p16_224": (12_116_896, 2.32, 2, "14x14"),
    "xcit_small_12_p16_224": (26_253_304, 4.80, 2, "14x14"),
    "xcit_medium_24_p16_224": (84_395_752, 16.08, 2, "14x14"),
    "xcit_large_24_p16_224": (189_096_136, 35.79, 2, "14x14"),
    "pvt_tiny": (13_229_288, 1.93, 2, "7x7"),
    "pvt_small": (24_485_864, 3.82, 3, "7x7"),
    "pvt_medium": (44_208_104, 6.66, 3, "7x7"),
    "pvt_large": (61_369_320, 9.81, 3, "7x7"),
    "swin_tiny_patch4_window7_224": (28_288_354, 4.49, 0, ""),
    "swin_small_patch4_window7_224": (49_606_258, 8.74, 0, ""),
    "ca_swin_tiny": (28_286_602, 4.205, 1, "7x7"),
    "ca_swin_small": (49_604_506, 8.455, 1, "7x7"),
    "vit_small_patch16_224": (21_665_664, 4.60, 12, "14x14"),
    "deit_small_distilled_patch16_224": (22_436_432, 4.62, 12, "14x14"),
    "resnet50": (25_557_032, 4.09, 0, ""),
}


def test_the_zoo_has_the_published_counts():
    assert {entry.name for entry in ZOO} == set(COUNTS)
    for entry in ZOO:
        params, macs, blocks, grid = COUNTS[entry.name]
        assert (entry.params, entry.blocks, entry.grid) == (params, blocks, grid), entry
        assert entry.macs / 1e9 == pytest.approx(macs, rel=0.01), entry
        paper = paper_figures(entry).params_m
        if paper:  # as rounded in the paper
            assert entry.params / 1e6 == pytest.approx(float(paper), rel=0.023), entry


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=lambda entry: entry.name)
def test_the_zoo_has_the_counts_of_the_models(entry):
    model = blank_model(entry.name, entry.num_classes)
    assert count(model) == (entry.params, entry.macs)
    try:
        assert len(class_attention_modules(model)) == entry.blocks
        assert "{}x{}".format(*attention_grid(model, 224, 224)) == entry.grid
    except NoClassAttention:
        assert (entry.blocks, entry.grid) == (0, "")


def test_every_row_of_tables_1_and_7_has_a_model():
    named = {(entry.table, entry.row) for entry in ZOO}
    assert {("table1", row["model"]) for row in published_table("table1")} <= named
    assert {
        ("table7", row["model"])
        for row in published_table("table7")
        if "TransMix" not in row["model"]
    } <= named


def test_published_tables_are_whole():
    rows = {
        "table1": 12,
        "table2": 5,
        "table3": 4,
        "table4": 2,
        "table5": 2,
        "table6": 4,
        "table7": 6,
        "table8": 6,
        "table9": 5,
        "table10": 10,
    }
    assert {name: len(published_table(name)) for name in rows} == rows
    others = {"openmixup_deit", "deit_small_by_method", "imagenet_c_alexnet", "figure4"}
    others.add("label_error")
    assert {path.stem for path in published_dir().glob("*.csv")} == {*rows, *others}
    for path in published_dir().glob("*.csv"):
        table = published_table(path.stem)
        assert path.read_text().startswith("# ") and all(
            None not in row and None not in row.values() for row in table
        ), path


def test_each_row_of_the_zoo_has_a_recipe():
    fixed = load_recipe("deit_small")
    recipes = {path.stem: load_recipe(path) for path in config_dir().glob("*.yaml")}
    trained = {recipe.model for recipe in recipes.values()}
    assert {entry.name for entry in ZOO if entry.table != "table6"} <= trained
    for stem, recipe in recipes.items():
        assert timm.is_model(recipe.model), stem
        if stem not in ("quick", "finetune", "vit_cifar") and not stem.startswith(
            "deit_small"
        ):  # a departure says no more than it changes
            assert recipe.timed.model == recipe.model
            written = yaml.safe_load((config_dir() / f"{stem}.yaml").read_text())
            assert not [key for key in written if getattr(recipe, key) == getattr(fixed, key)], stem
