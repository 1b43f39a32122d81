"""The pictures show what a strategy did, in the mix and in the label."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench import create_strategy
from mixbench.data.normalisation import Normalisation
from mixbench.models.build import build_model
from mixbench.report.gallery import (
    CAPTION,
    THUMBNAIL,
    Examples,
    Shown,
    draw_gallery,
    furthest,
    furthest_mixes,
    mixed_picture,
    outlined,
)
from mixbench.report.page import report_runs
from mixbench.runs.directory import RunDirectory
from mixbench.runs.samples import GalleryEntry, read_gallery
from mixbench.training.forward import Network
from tests.support.rows import run_row, write_data, write_run

pytestmark = pytest.mark.pictures

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
    mixes = furthest_mixes(shown, batch, CLASSES, AS_IT_IS, count=2)
    entries = draw_gallery(mixes, folder)
    assert read_gallery(folder) == entries and read_gallery(tmp_path) == []
    assert [e.strategy for e in entries] == ["cutmix", "cutmix", "transmix", "transmix"]
    assert [(e.class_a, e.class_b) for e in entries[:2]] == [("ant", "bee"), ("bee", "ant")]
    # those whose label is furthest from the area, of all that were mixed
    every = furthest_mixes(shown[1:], batch, CLASSES, AS_IT_IS, count=6)
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
        assert Image.open(folder / entry.map).size == (THUMBNAIL, THUMBNAIL)
    cutmix, transmix = entries[:2], entries[2:]
    assert {e.map_name for e in cutmix} == {"class attention, not used in the label"}
    assert {e.map_name for e in transmix} == {"class attention, used in the label"}
    assert all(e.lam_used == e.lam_area for e in cutmix)
    assert all(e.lam_used != e.lam_area for e in transmix)
    write_run(tmp_path, [run_row("cutmix", 0), run_row("transmix", 0)])
    page = report_runs([tmp_path]).read_text()
    assert page.count("<img ") == 20
    assert ">ant</bdi>" in page and "class attention, used in the label" in page


def test_the_page_calls_classes_by_their_names(shown, batch, tmp_path):
    """The gallery keeps the folders, so that a report with other names shows those."""
    draw_gallery(
        furthest_mixes(shown, batch, CLASSES, AS_IT_IS, count=1), RunDirectory(tmp_path).gallery
    )
    write_run(tmp_path, [run_row("cutmix", 0), run_row("transmix", 0)])
    write_data(tmp_path, CLASSES)
    assert ">ant</bdi>" in report_runs([tmp_path]).read_text()
    RunDirectory(tmp_path).class_names.write_text("ant\tAmeise\n")
    page = report_runs([tmp_path]).read_text()
    assert ">Ameise</bdi>" in page and "image A, Ameise" in page and ">ant</bdi>" not in page
    (tmp_path / "other.txt").write_text("ant,fourmi\nbee,abeille\ncat,chat\ndog,chien\n")
    page = report_runs([tmp_path], class_names=tmp_path / "other.txt").read_text()
    assert ">fourmi</bdi>" in page and ">Ameise</bdi>" not in page


def test_what_mixes_nothing_has_no_pictures(learner, batch, tmp_path):
    none = learner("none")
    shown = [Shown("none", none.strategy, Network(none.model, none.strategy.needs))]
    mixes = furthest_mixes(shown, batch, CLASSES, AS_IT_IS)
    assert mixes == draw_gallery(mixes, tmp_path / "gallery") == []
    mixed_picture(mixes, {}, tmp_path / "mixed.png")
    assert [*tmp_path.rglob("*.png")] == []


def test_the_furthest_are_mixed_and_come_first():
    area = torch.tensor([1.0, 0.5, 0.5, 0.2, 1.0])
    used = torch.tensor([1.0, 0.5, 0.1, 0.4, 0.9])
    assert furthest(area, used) == [2, 3, 4, 1]


def test_the_gallery_of_a_network_without_class_token(tmp_path):
    model = build_model("resnet18", 4, 0, image_size=48)
    shown = Shown("mixup", create_strategy("mixup"), Network(model))
    mixes = furthest_mixes(
        [shown],
        examples(torch.rand(2, 3, 48, 200), [0, 1]),
        ("a", "b"),
        Normalisation.of((0.5,) * 3, (0.5,) * 3),
        count=1,
    )
    [entry] = draw_gallery(mixes, tmp_path)
    assert isinstance(entry, GalleryEntry)
    assert entry.map_name == "input gradient, not used in the label"
    assert Image.open(tmp_path / entry.mixed).size == (128, 31)
    assert all(p.grad is None for p in model.parameters())


def test_the_edge_of_a_mask_is_white_on_its_side_and_black_beyond():
    mask, grey = np.zeros((64, 96), np.uint8), np.full((64, 96, 3), 100, np.uint8)
    mask[:32, :48] = 255
    drawn = outlined(grey, mask)
    white, black = (drawn == 255).all(2), (drawn == 0).all(2)
    assert white[31, :48].all() and white[:32, 47].all() and white.sum() == 32 + 48 - 1
    assert black[32, :48].all() and black[:32, 48].all() and black.sum() == 32 + 48
    assert (drawn[~white & ~black] == 100).all() and (grey == 100).all()
    for alike in (0, 90, 255):  # as of Mixup
        assert np.array_equal(outlined(grey, np.full((64, 96), alike, np.uint8)), grey)


def test_the_picture_shows_what_the_gallery_does(shown, batch, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: None)
    mixes = furthest_mixes(shown, batch, CLASSES, AS_IT_IS, count=3)
    mixed_picture(mixes, {"ant": "Ameise"}, tmp_path / "new" / "mixed.png")
    figure = plt.gcf()
    assert figure.get_suptitle() == CAPTION and "furthest from the area" in CAPTION
    rows = np.array(figure.axes, object).reshape(2, 8)
    for row, spec in zip(rows, ("cutmix", "transmix"), strict=True):
        assert row[0].get_ylabel() == spec
        of_strategy = [mix for mix in mixes if mix.strategy == spec]
        for place, mix in enumerate(of_strategy[:2]):
            a, b, mixed, map_ = row[4 * place : 4 * place + 4]
            titles = ["Ameise" if name == "ant" else name for name in (mix.class_a, mix.class_b)]
            assert [a.get_title(), b.get_title()] == [f"A: {titles[0]}", f"B: {titles[1]}"]
            shares = f"A by area {mix.lam_area:.2f}\nA in label {mix.lam_used:.2f}"
            assert mixed.get_title() == shares
            assert map_.get_title().replace("\n", " ") == mix.map_name
            pictures = [axis.images[0].get_array() for axis in (a, b, mixed, map_)]
            expected = (
                mix.image_a,
                mix.image_b,
                outlined(mix.mixed, mix.mask),
                outlined(mix.map, mix.mask),
            )
            for picture, array in zip(pictures, expected, strict=True):
                assert np.array_equal(picture, array)
    assert Image.open(tmp_path / "new" / "mixed.png").size[0] > 100
    monkeypatch.undo()
    plt.close(figure)


def test_a_strategy_with_one_mix_leaves_the_second_place_free(shown, batch, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "close", lambda figure: None)
    mixed_picture(furthest_mixes(shown[:1], batch, CLASSES, AS_IT_IS, count=1), {}, tmp_path / "x")
    figure = plt.gcf()
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 4
    monkeypatch.undo()
    plt.close(figure)
