"""The files of a run, merged and read back, and the page: true of its data, whole, and without a request."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench import create_strategies, report
from mixbench.report.figures import pareto_front
from mixbench.report.gallery import GalleryEntry, draw_gallery, read_gallery
from mixbench.runs.samples import write_correct

ISSUE_2 = """schema_version, strategy, compose, status, dataset,
  train_images, num_classes, model, params_m, extra_params_m, attention, network, image_size, batch_size, epochs, seed, headline, top1, top5, top1_ema,
  train_seconds, im_per_sec, im_per_sec_lo, im_per_sec_hi, ratio_to_cutmix, ratio_lo, ratio_hi, control_lo, control_hi, rounds, peak_memory_mb, device,
  precision, compiled, recipe_hash, versions, date"""


def row(strategy="cutmix", seed=0, top1=70.0, **changes):
    return (
        dict.fromkeys(report.COLUMNS)
        | {
            "schema_version": 2,
            "strategy": strategy,
            "compose": "only",
            "status": "ok",
            "dataset": "photos",
            "train_images": 1000,
            "num_classes": 10,
            "model": "deit_small_patch16_224",
            "params_m": 22.05,
            "extra_params_m": 0.0,
            "image_size": 224,
            "batch_size": 64,
            "epochs": 3,
            "seed": seed,
            "headline": "raw",
            "top1": top1,
            "top5": 95.0,
            "train_seconds": 60.0 + seed,
            "device": "Abacus, 2 threads",
            "precision": "fp32",
            "compiled": "False",
            "recipe_hash": "abc",
            "versions": "mixbench 1",
            "date": "2026-01-01",
            "nll": 0.9,
            "ece": 12.5,
        }
        | changes
    )


def speed(**changes):
    return {
        "im_per_sec": 100.0,
        "im_per_sec_lo": 98.0,
        "im_per_sec_hi": 102.0,
        "ratio_to_cutmix": 1.0,
        "ratio_lo": 1.0,
        "ratio_hi": 1.0,
        "control_lo": 0.98,
        "control_hi": 1.02,
        "rounds": 40,
        "mix_ms": 1.0,
        "forward_ms": 30.0,
        "backward_ms": 60.0,
        "optimizer_ms": 4.0,
        "timed": "deit_small at 224 px",
    } | changes


def full_rows(seeds=3):
    rng = np.random.default_rng(0)
    slow = speed(im_per_sec=50.0, ratio_to_cutmix=0.5, ratio_lo=0.49, ratio_hi=0.51)
    return [
        row(name, seed, float(rng.normal(70, 1)), **times)
        for seed in range(seeds)
        for name, times in (("cutmix", speed()), ("transmix", speed()), ("puzzlemix", slow))
    ]


def write_run(folder, rows, files=True):
    report.write_csv(rows, folder / "comparison.csv")
    (folder / "environment.json").write_text(
        json.dumps({"command": "python bench.py --seeds 0,1,2"})
    )
    rng = np.random.default_rng(0)
    for entry in report.trained(rows) if files else ():
        run = folder / entry["strategy"] / f"seed{entry['seed']}"
        run.mkdir(parents=True)
        (run / "log.csv").write_text(
            "epoch,lr,train_loss,top1,top5,top1_ema,seconds\n0,0.1,2.5,30,60,,5\n1,0.1,1.5,60,80,,10\n"
        )
        report.write_lam(run / "lam.csv", rng.random(50), rng.random(50))
        write_correct(run / "correct.npz", rng.random(200) < 0.7)
    return folder


class Page(HTMLParser):
    """What a browser would do with a page: its text, tags, and whatever it would fetch or run."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.links, self.open, self.ids = "", [], [], [], []
        self.feed(text)
        assert not self.open, f"unclosed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")
        ]
        self.ids += [v for k, v in attrs if k == "id"]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def page_of(folder):
    text = report.report_runs([folder]).read_text()
    page = Page(text)
    page.source, page.text = text, " ".join(page.text.split())
    return page


def test_the_columns_of_schema_1_stand_in_front():
    names = tuple(name.strip() for name in ISSUE_2.split(","))
    assert report.COLUMNS[: len(names)] == names and report.SCHEMA_VERSION == 2


def test_rows_survive_the_disk(tmp_path):
    rows = [
        row("cutmix", 0, 71.123, **speed()),
        row("transmix(attention_weight=1.0)", 1, None, status="diverged at step 3, alas"),
    ]
    rows.append(row("mixup", 0, None, dataset=None, epochs=None, train_images=None))
    report.write_csv(rows, tmp_path / "c.csv")
    assert report.read_csv(tmp_path / "c.csv") == rows
    [first, *_] = csv.DictReader((tmp_path / "c.csv").open())
    assert first["epochs"] == "3" and first["train_images"] == "1000"


def test_a_csv_of_schema_1_is_read(tmp_path):
    old = [name.strip() for name in ISSUE_2.split(",")]
    (tmp_path / "c.csv").write_text(
        ",".join(old)
        + "\n"
        + ",".join("1" if n in ("schema_version", "seed", "top1") else "" for n in old)
        + "\n"
    )
    [read] = report.read_csv(tmp_path / "c.csv")
    assert (read["seed"], read["top1"], read["nll"], read["dataset"]) == (1, 1.0, None, None)
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"no comparison\.csv: it lacks schema_version, strategy"):
        report.read_csv(tmp_path / "d.csv")
    with pytest.raises(ValueError, match="not found"):
        report.read_csv(tmp_path / "e.csv")


def test_merging(tmp_path):
    a = write_run(tmp_path / "a", [row("cutmix", 0), row("transmix", 0)])
    b = write_run(tmp_path / "b", [row("cutmix", 1), row("transmix", 1)])
    assert [(r["strategy"], r["seed"]) for r in report.merge_runs([a, b])] == [
        ("cutmix", 0),
        ("transmix", 0),
        ("cutmix", 1),
        ("transmix", 1),
    ]
    with pytest.raises(ValueError, match="directory of their own"):
        report.report_runs([a, b])
    with pytest.raises(ValueError, match="directory of their own"):
        report.report_runs([a, b], a)
    page = report.report_runs([a, b], tmp_path / "all")
    assert (
        page == tmp_path / "all" / "report.html"
        and len(report.read_csv(tmp_path / "all" / "comparison.csv")) == 4
    )
    assert "not resolvable with 2 seeds" in (tmp_path / "all" / "comparison.md").read_text()
    with pytest.raises(ValueError, match=r"cutmix with seed 0 is in both .*a and .*a"):
        report.merge_runs([a, a])
    c = write_run(tmp_path / "c", [row("cutmix", 2, recipe_hash="other")])
    with pytest.raises(ValueError, match=r"different recipes or data .*\(abc\).*\(other\)"):
        report.merge_runs([a, c])


def test_speeds_of_different_machines_are_merged_only_when_asked(tmp_path):
    idle = dict(dataset=None, epochs=None, top1=None)
    a = write_run(tmp_path / "a", [row("cutmix", 0, **idle, **speed())])
    b = write_run(
        tmp_path / "b",
        [
            row(
                "cutmix",
                0,
                device="Difference Engine",
                recipe_hash="other",
                **idle,
                **speed(im_per_sec=7.0),
            )
        ],
    )
    c = write_run(tmp_path / "c", [row("cutmix", 0, device="Loom")])  # trained there, not timed
    with pytest.raises(
        ValueError, match=r"Abacus, 2 threads; Difference Engine\).*--mixed-machines"
    ):
        report.merge_runs([a, b])
    assert len(report.merge_runs([a, c])) == 2
    text = Page(report.report_runs([a, b], tmp_path / "all", mixed_machines=True).read_text()).text
    assert (
        "Difference Engine" in text
        and "7.00" in text
        and "the speeds come from different machines" in " ".join(text.split())
    )


def test_speed_verdicts_respect_the_control():
    verdicts = [
        report.speed_verdict(row("new", **speed(ratio_lo=low, ratio_hi=high)))
        for low, high in ((0.9, 0.97), (0.9, 0.99), (0.97, 1.1), (1.03, 1.1), (1.01, 1.1))
    ]
    assert verdicts == [
        "slower than CutMix",
        "no difference shown",
        "no difference shown",
        "faster than CutMix",
        "no difference shown",
    ]
    assert report.speed_verdict(row(**speed())) == "the reference"


def test_the_page_shows_everything_and_fetches_nothing(tmp_path):
    write_run(tmp_path, full_rows())
    page = page_of(tmp_path)
    assert (
        "script" not in page.tags
        and "iframe" not in page.tags
        and all(link.startswith(("data:", "#")) for link in page.links)
    )
    assert not re.search(r"url\((?!#)|@import", page.source) and len(page.ids) == len(set(page.ids))
    references = {link[1:] for link in page.links if link.startswith("#")} | set(
        re.findall(r"url\(#([^)]*)\)", page.source)
    )
    assert references <= set(page.ids) and page.tags.count("svg") == 7
    for words in (
        "deit_small_patch16_224 at 224 px on photos: 1,000 training images",
        "3 seeds (0, 1, 2)",
        "not resolvable with 3 seeds",
        "100.0 [98.0, 102.0]",
        "0.500 [0.490, 0.510]",
        "0.980 to 1.020",
        "slower than CutMix",
        "80.7",
        "0.432",
        "0.900 ± 0.000",
        "12.50 ± 0.00",
        "450 mixed images",
        "python bench.py --seeds 0,1,2",
        "200 validation images",
        "No gallery was drawn",
    ):
        assert words in page.text, words
    assert not re.search(r"\b(nan|inf|None)\b", page.text) and "<b>" not in page.source
    mean = np.mean([r["top1"] for r in full_rows() if r["strategy"] == "transmix"])
    assert f"{mean:.2f} ± " in page.text
    first = (tmp_path / "report.html").read_bytes()
    assert report.report_runs([tmp_path]).read_bytes() == first


def test_a_bare_run_says_what_is_missing(tmp_path):
    write_run(
        tmp_path,
        [row("cutmix", 0, 70.0, nll=None, ece=None), row("transmix", 0, 71.0)],
        files=False,
    )
    page = page_of(tmp_path)
    for words in (
        "1 seed (0)",
        "in one seed, which cannot tell the strategies apart",
        "Speed was not measured",
        "No sample of label shares",
        "one seed gives no interval",
        "not resolvable with 1 seed",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 3 and not re.search(r"\b(nan|inf|None)\b", page.text)


def test_speed_alone(tmp_path):
    idle = dict(dataset=None, epochs=None, top1=None, params_m=None)
    write_run(
        tmp_path,
        [
            row("cutmix", **idle, **speed(mix_ms=None)),
            row("mixup", **idle, **speed(ratio_lo=1.1, ratio_hi=1.2, ratio_to_cutmix=1.15)),
        ],
    )
    page = page_of(tmp_path)
    assert (
        "nothing was trained" in page.text
        and "faster than CutMix" in page.text
        and page.tags.count("svg") == 1
    )
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_failures_are_named(tmp_path):
    rows = [row("cutmix", s, 70.0 + s) for s in range(3)] + [
        row("transmix", s, 71.0 + s) for s in range(2)
    ]
    rows += [
        row("transmix", 2, None, status="diverged at step 7"),
        row("mixup", 0, None, status="failed: <b>bad</b> & worse"),
    ]
    write_run(tmp_path, rows)
    broken = tmp_path / "transmix" / "seed2"
    (broken / "log.csv").write_text(
        "epoch,lr,train_loss,top1,top5,top1_ema,seconds\n0,0.1,nan,10,50,,5\n"
    )
    (broken / "lam.csv").write_text("area,used\n0.5,nan\n")
    (tmp_path / "mixup" / "seed0" / "lam.csv").write_text("area,used\n")
    page = page_of(tmp_path)
    for words in (
        "transmix, seed 2: diverged at step 7",
        "mixup, seed 0: failed: <b>bad</b> & worse",
        "on both sides: seed 2.",
        "2 of 3",
        "mixup and cutmix have no seed in common",
    ):
        assert words in page.text, words
    assert "<b>" not in page.source and not re.search(r"\b(nan|inf|None)\b", page.text)


def test_nothing_finished(tmp_path):
    write_run(
        tmp_path,
        [row("cutmix", 0, None, status="diverged at step 0", nll=None, ece=None, top5=None)],
    )
    (tmp_path / "cutmix" / "seed0" / "log.csv").write_text(
        "epoch,lr,train_loss,top1,top5,top1_ema,seconds\n0,0.1,nan,0.0,50,,5\n"
    )
    page = page_of(tmp_path)
    assert (
        "diverged at step 0" in page.text
        and page.tags.count("svg") == 2
        and not re.search(r"\b(nan|inf|None)\b", page.text)
    )


def test_one_seed_is_tested_over_its_images(tmp_path):
    write_run(tmp_path, [row("cutmix", 0), row("transmix", 0)])
    data = report.read_runs([tmp_path])
    [sentence] = [
        line for line in report.remarks(data.rows, "", data.correct) if line.startswith("transmix")
    ]
    better = int((data.correct["transmix", 0] & ~data.correct["cutmix", 0]).sum())
    assert (
        f"{better} images right with transmix alone" in sentence
        and sentence in page_of(tmp_path).text
    )


def test_the_front_is_what_nothing_beats():
    rng = np.random.default_rng(0)
    points = {str(i): (float(c), float(a)) for i, (c, a) in enumerate(rng.integers(0, 6, (25, 2)))}
    front = pareto_front(points)
    for name, (cost, accuracy) in points.items():
        beaten = any(
            (c < cost and a >= accuracy) or (c <= cost and a > accuracy) for c, a in points.values()
        )
        assert (name in front) != beaten
    assert [points[n][0] for n in front] == sorted(points[n][0] for n in front)


@pytest.fixture(scope="module")
def learners():
    from mixbench.recipe import load_recipe
    from mixbench.training.learner import prepare

    recipe = load_recipe("quick", {"embed_dim": 24, "depth": 1})
    return prepare(create_strategies("cutmix,transmix"), recipe, 4, 0, torch.device("cpu"), 1)


def test_the_gallery_is_what_the_strategy_did(learners, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(6, 3, 32, 32, generator=generator), torch.tensor([0, 1, 2, 3, 0, 1])
    entries = draw_gallery(
        learners,
        images,
        labels,
        ("ant", "bee", "cat", "dog"),
        (0.0,) * 3,
        (1.0,) * 3,
        tmp_path / "gallery",
        count=2,
    )
    assert read_gallery(tmp_path / "gallery") == entries and read_gallery(tmp_path) == []
    assert [(e.strategy, e.class_a, e.class_b) for e in entries] == [
        ("cutmix", "ant", "bee"),
        ("cutmix", "bee", "ant"),
        ("transmix", "ant", "bee"),
        ("transmix", "bee", "ant"),
    ]
    for entry in entries:
        a, b, mixed, mask = (
            np.asarray(Image.open(tmp_path / "gallery" / name))
            for name in (entry.image_a, entry.image_b, entry.mixed, entry.mask)
        )
        assert np.array_equal(np.where(mask[:, :, None] == 255, a, b), mixed) and set(
            np.unique(mask)
        ) <= {0, 255}
        assert entry.lam_area == pytest.approx((mask == 255).mean())
        assert Image.open(tmp_path / "gallery" / entry.map).size == (32, 32)
    assert all(
        e.lam_used == e.lam_area and e.map_name == "class attention, not used in the label"
        for e in entries[:2]
    )
    assert all(
        e.lam_used != e.lam_area and e.map_name == "class attention, used in the label"
        for e in entries[2:]
    )
    write_run(tmp_path, [row("cutmix", 0), row("transmix", 0)])
    page = page_of(tmp_path)
    assert (
        page.tags.count("img") == 20
        and "A: ant" in page.text
        and "class attention, used in the label" in page.text
    )


def test_the_gallery_of_a_network_without_class_token(tmp_path):
    from mixbench.models.build import build_model
    from mixbench.training.learner import Learner
    from mixbench.training.objective import forward_pass

    model = build_model("resnet18", 4, 0, image_size=48)
    [strategy] = create_strategies("mixup")
    learner = Learner(
        strategy=strategy, mixing=strategy, model=model, net=forward_pass(model, None, False)
    )
    [entry] = draw_gallery(
        [learner],
        torch.rand(2, 3, 48, 200),
        torch.tensor([0, 1]),
        ("a", "b"),
        (0.5,) * 3,
        (0.5,) * 3,
        tmp_path,
        count=1,
    )
    assert (
        isinstance(entry, GalleryEntry)
        and entry.map_name == "input gradient, not used in the label"
    )
    assert Image.open(tmp_path / entry.mixed).size == (128, 31) and all(
        p.grad is None for p in model.parameters()
    )


def test_the_loaders_part_is_told():
    rows = [
        row(loading_share=0.25, train_im_per_sec=80.0),
        row("transmix", loading_share=0.25, train_im_per_sec=79.96),
    ]
    [told] = [line for line in report.remarks(rows, "") if "loader" in line]
    assert (
        "cutmix 80, transmix 79.96; up to 25 % of it was waiting for images, so a faster loader would help"
        in told
    )
    seeds = [
        row(seed=seed, loading_share=0.25, train_im_per_sec=rate)
        for seed, rate in enumerate((60.0, 120.0))
    ]
    [told] = [line for line in report.remarks(seeds, "") if "loader" in line]
    assert "images per second: cutmix 80;" in told  # 60 images in 1 s, and as many in half a second
    assert any(
        "held nothing up" in line
        for line in report.remarks([row(loading_share=0.19, train_im_per_sec=80.0)], "")
    )
    assert not any("loader" in line for line in report.remarks([row()], ""))
