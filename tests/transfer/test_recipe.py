"""The recipes of transfers: what the tasks share, and detection's own rules."""

import dataclasses
import re

import pytest

from mixbench.published import published_table
from mixbench.transfer.recipe import (
    DetectionRecipe,
    SegmentationRecipe,
    load_recipe,
    transfer_configs,
)

KINDS = {
    "pascal_context": SegmentationRecipe,
    "coco100_seg": SegmentationRecipe,
    "coco_1x": DetectionRecipe,
    "coco100_det": DetectionRecipe,
}


def test_every_shipped_recipe_says_all_in_order():
    files = {file.stem: file for file in transfer_configs().glob("*.yaml")}
    assert set(files) == set(KINDS)
    for name, kind in KINDS.items():
        lines = files[name].read_text(encoding="utf-8").splitlines()
        fields = [line.partition(":")[0] for line in lines if not line.startswith("#")]
        assert fields == list(kind.options())
        assert any(line.startswith("# Command:  mixbench transfer") for line in lines)
        assert isinstance(load_recipe(kind, name, {}), kind)


def test_the_1x_schedule_is_the_defaults_and_names_the_papers_figures():
    assert load_recipe(DetectionRecipe, "coco_1x", {}) == DetectionRecipe()
    rows = {row["backbone"]: row for row in published_table("table3")}
    pvt, transmix = rows["PVT-S"], rows["TransMix-PVT-S"]
    assert (
        f"# Expect:   box AP {pvt['ap_bb']} and mask AP {pvt['ap_mk']} with PVT-S, "
        f"{transmix['ap_bb']} and {transmix['ap_mk']} with TransMix"
    ) in (transfer_configs() / "coco_1x.yaml").read_text(encoding="utf-8")


def test_the_demonstration_has_one_class_and_small_heads():
    recipe = load_recipe(DetectionRecipe, "coco100_det", {"epochs": "9", "milestones": "6,8"})
    assert (recipe.limit_classes, recipe.fpn_channels, recipe.rois_per_image) == (1, 64, 64)
    assert (recipe.epochs, recipe.milestones) == (9, (6, 8))


@pytest.mark.parametrize("kind", [SegmentationRecipe, DetectionRecipe])
def test_every_field_has_help_and_changes_the_digits(kind):
    recipe = kind()
    changed = {
        "decoder": "segmenter",
        "scale": (0.6, 2.0),
        "photometric": False,
        "limit_classes": 3,
        "window_stride": 319,
        "opt": "adamw",
        "milestones": (8,),
        "weight_decay": 0.1,
    }
    seen = {recipe.digits}
    for name, meaning in kind.options().items():
        assert meaning.help and meaning.group
        value = getattr(recipe, name)
        if name not in changed:
            changed[name] = value / 2 if isinstance(value, float) else value + 1
        seen.add(dataclasses.replace(recipe, **{name: changed[name]}).digits)
    assert len(seen) == 1 + len(kind.options())
    assert re.fullmatch("[0-9a-f]{8}", recipe.digits)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"short_side": "1400"}, "short_side 1400 must not be above long_side 1333: take --long"),
        ({"milestones": "11,8"}, r"milestones must rise, not \(11, 8\)"),
        ({"milestones": "8,8"}, "milestones must rise"),
        ({"epochs": "6"}, r"milestones \(8, 11\) must not be above epochs 6: take --milestones 4"),
        ({"milestones": "0"}, "milestones must be above 0 and at most"),
        ({"lr": "0"}, "lr must be above 0, not 0"),
        ({"lr": "x"}, "lr must be a number, not 'x'"),
        ({"warmup_ratio": "0"}, "warmup_ratio must be above 0 and at most 1"),
        ({"mask_layers": "0"}, "mask_layers must be above 0"),
        ({"hflip": "1.5"}, "hflip must be between 0 and 1"),
    ],
)
def test_a_mistake_in_a_detection_recipe_is_said(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(DetectionRecipe, "coco_1x", overrides)


def test_the_way_out_is_one():
    assert DetectionRecipe(epochs=1, milestones=(1,)).milestones == (1,)
    assert DetectionRecipe(short_side=1400, long_side=2333)


def test_a_recipe_of_another_task_is_refused():
    with pytest.raises(ValueError, match=r"pascal_context\.yaml has an unknown key 'decoder'"):
        load_recipe(DetectionRecipe, "pascal_context", {})
    with pytest.raises(ValueError, match=r"coco_1x\.yaml has an unknown key 'fpn_channels'"):
        load_recipe(SegmentationRecipe, "coco_1x", {})
