"""The pictures show what a strategy did, in the mix and in the label."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench import create_strategy
from mixbench.data.normalisation import Normalisation
from mixbench.models.build import build_model
from mixbench.report.gallery import Examples, Shown, draw_gallery, furthest, mixed_grid
from mixbench.report.page import report_runs
from mixbench.runs.directory import RunDirectory
from mixbench.runs.samples import GalleryEntry, read_gallery
from mixbench.training.forward import Network
from tests.support.rows import run_row, write_run

CLASSES = ("ant", "bee", "cat", "dog")
AS_IT_IS = Normalisation.of((0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def shown(learner):
    learners = [learner("cutmix"), learner("transmix")]
    return [Shown(lr.spec, lr.strategy, Network(lr.model, lr.strategy.needs)) for lr in learners]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return examples(torch.rand(6, 3, 32, 32, generator=generator), [0, 1, 2, 3, 0, 1])


def examples(images, labels):
    """Images of which no object is known."""
    return Examples(
        images=images, labels=torch.tensor(labels), objects=torch.zeros_like(images[:, :1])
    )


def test_the_gallery_is_what_the_strategy_did(shown, batch, tmp_path):
    folder = RunDirectory(tmp_path).gallery
    entries = draw_gallery(shown, batch, CLASSES, AS_IT_IS, folder, count=2)
    assert read_gallery(folder) == entries and read_gallery(tmp_path) == []
    assert [e.strategy for e in entries] == ["cutmix", "cutmix", "transmix", "transmix"]
    assert [(e.class_a, e.class_b) for e in entries[:2]] == [("ant", "bee"), ("bee", "ant")]
    # those whose label is furthest from the area, of all that were mixed
    every = draw_gallery(shown[1:], batch, CLASSES, AS_IT_IS, tmp_path / "every", count=6)
    apart = [abs(e.lam_used - e.lam_area) for e in every]
    assert len(every) == 6 and apart == sorted(apart, reverse=True) and apart[0] > apart[-1]
    assert [(e.class_a, e.lam_used) for e in entries[2:]] == [
        (e.class_a, e.lam_used) for e in every[:2]
    ]
    for entry in entries:
        a, b, mixed, mask = (
            np.asarray(Image.open(folder / name))
            for name in (entry.image_a, entry.image_b, entry.mixed, entry.mask)
        )
        assert np.array_equal(np.where(mask[:, :, None] == 255, a, b), mixed)
        assert set(np.unique(mask)) <= {0, 255}
        assert entry.lam_area == pytest.approx((mask == 255).mean())
        assert Image.open(folder / entry.map).size == (32, 32)
    cutmix, transmix = entries[:2], entries[2:]
    assert {e.map_name for e in cutmix} == {"class attention, not used in the label"}
    assert {e.map_name for e in transmix} == {"class attention, used in the label"}
    assert all(e.lam_used == e.lam_area for e in cutmix)
    assert all(e.lam_used != e.lam_area for e in transmix)
    write_run(tmp_path, [run_row("cutmix", 0), run_row("transmix", 0)])
    page = report_runs([tmp_path]).read_text()
    assert page.count("<img ") == 20
    assert ">ant</bdi>" in page and "class attention, used in the label" in page


def test_what_mixes_nothing_has_no_pictures(learner, batch, tmp_path):
    none = learner("none")
    shown = [Shown("none", none.strategy, Network(none.model, none.strategy.needs))]
    assert draw_gallery(shown, batch, CLASSES, AS_IT_IS, tmp_path / "gallery") == []
    assert [*(tmp_path / "gallery").glob("*.png")] == []


def test_the_furthest_are_mixed_and_come_first():
    area = torch.tensor([1.0, 0.5, 0.5, 0.2, 1.0])
    used = torch.tensor([1.0, 0.5, 0.1, 0.4, 0.9])
    assert furthest(area, used) == [2, 3, 4, 1]


def test_the_gallery_of_a_network_without_class_token(tmp_path):
    model = build_model("resnet18", 4, 0, image_size=48)
    shown = Shown("mixup", create_strategy("mixup"), Network(model))
    [entry] = draw_gallery(
        [shown],
        examples(torch.rand(2, 3, 48, 200), [0, 1]),
        ("a", "b"),
        Normalisation.of((0.5,) * 3, (0.5,) * 3),
        tmp_path,
        count=1,
    )
    assert isinstance(entry, GalleryEntry)
    assert entry.map_name == "input gradient, not used in the label"
    assert Image.open(tmp_path / entry.mixed).size == (128, 31)
    assert all(p.grad is None for p in model.parameters())


def test_the_grid_shows_each_strategy_below_the_originals(shown, batch, tmp_path, monkeypatch):
    drawn = []

    def remember(axes, images, titles, name):
        drawn.append((images, titles, name))

    monkeypatch.setattr("mixbench.report.gallery._show_row", remember)
    mixed_grid(shown, batch, CLASSES, AS_IT_IS, tmp_path / "new" / "mixed.png", columns=4)
    originals, cutmix, transmix = drawn
    assert [name for *_, name in drawn] == ["image", "cutmix", "transmix"]
    assert originals[1] == ["1: ant", "2: bee", "3: cat", "4: dog"]
    assert torch.equal(originals[0], AS_IT_IS.pixels(batch.images[:4]))
    assert torch.equal(cutmix[0], transmix[0])  # the same draws, and other labels
    assert [title.splitlines()[:2] for title in cutmix[1]] == [
        title.splitlines()[:2] for title in transmix[1]
    ]
    for number, title in enumerate(cutmix[1], 1):  # which labels by area
        pair, area, label = title.splitlines()
        assert pair == f"A {number}, B {7 - number}"
        assert area.removeprefix("A by area") == label.removeprefix("A in label")
    assert Image.open(tmp_path / "new" / "mixed.png").size[0] > 100
