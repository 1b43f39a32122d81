"""The page: true of its data, whole, and without a request."""

import json
import re
import warnings

import numpy as np
import pytest

from mixbench.report.page import report_runs, timed_costs, training_costs
from mixbench.report.tables import remarks
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import read_runs, read_tables
from mixbench.runs.rows import ComparisonRow, EvaluationRow, RunRow, plain, read_table
from mixbench.runs.samples import GalleryEntry, write_gallery, write_images
from mixbench.visible import visible
from tests.support.html_pages import Page
from tests.support.names import NAMES
from tests.support.rows import (
    LOG,
    full_tables,
    image_results,
    run_row,
    speed_row,
    write_data,
    write_run,
)

NO_FIGURE = r"\b(nan|inf|None)\b"


def page_of(folder):
    text = report_runs([folder]).read_text()
    page = Page(text)
    page.source, page.text = text, " ".join(page.text.split())
    return page


def cells_of(source, title):
    """The cells of a table of the page, row by row."""
    table = source[source.index(f'aria-label="{title}"') :].partition("</table>")[0]
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)]
        for line in table.splitlines()
        if line.startswith("<tr")
    ]


def test_merging(tmp_path):
    a = write_run(tmp_path / "a", [run_row("cutmix", 0), run_row("transmix", 0)], [speed_row()])
    b = write_run(tmp_path / "b", [run_row("cutmix", 1), run_row("transmix", 1)])
    with pytest.raises(ValueError, match="directory of their own"):
        report_runs([a, b])
    with pytest.raises(ValueError, match="directory of their own"):
        report_runs([a, b], a)
    with pytest.raises(ValueError, match="name the directory of a run"):
        report_runs([])
    page, places = report_runs([a, b], tmp_path / "all"), RunDirectory(tmp_path / "all")
    assert page == places.report and len(read_tables(places.path).runs) == 4
    assert read_tables(places.path).speed == [speed_row()]
    assert [row.seeds for row in read_table(places.comparison, ComparisonRow)] == [2, 2]
    assert "not resolvable with 2 seeds" in places.markdown.read_text()


def test_what_was_measured_of_merged_runs_goes_with_them(tmp_path):
    """Also into a second report of the merged directory; tables of an earlier report go."""
    a = write_run(tmp_path / "a", [run_row("cutmix", 0)], [speed_row()])
    b = write_run(tmp_path / "b", [run_row("mixup", 0)])
    measured = EvaluationRow(
        strategy="cutmix", seed=0, evaluation="shuffle", metric="mean_drop", value=12.3456789
    )
    file = RunDirectory(a).seed("cutmix", 0).path / "eval-shuffle-12345678.json"
    file.write_text(json.dumps([plain(measured)]))
    out = RunDirectory(tmp_path / "all")
    page = report_runs([a, b], out.path).read_text()
    assert read_table(out.evaluations, EvaluationRow) == [measured]
    assert 'href="evaluations.csv"' in page and "<h3>shuffle" in page
    assert "<h3>shuffle" in report_runs([out.path]).read_text()
    assert "<h3>shuffle" in report_runs([out.path], tmp_path / "again").read_text()
    report_runs([b], out.path)
    assert (
        not out.speed.exists() and not out.evaluations.exists() and len(read_runs([b]).tables.runs)
    )
    assert [row.strategy for row in read_table(out.runs, RunRow)] == ["mixup"]


def test_the_longest_of_like_timings_is_shown_everywhere(tmp_path):
    long = speed_row("mixup", rounds=100, ratio_to_cutmix=0.99, ratio_lo=0.97, ratio_hi=1.01)
    short = speed_row("mixup", rounds=5, ratio_to_cutmix=0.9, ratio_lo=0.89, ratio_hi=0.91)
    run = write_run(tmp_path / "a", speed=[speed_row(), long, short])
    page = Page(report_runs([run]).read_text())
    said = "Nothing was trained; no difference of speed was shown for mixup."
    assert said in page.text and "slower than CutMix" not in answer_part(page.text)


def test_a_table_of_speeds_without_ratios_is_a_page_too(tmp_path):
    nothing = dict.fromkeys(("ratio_to_cutmix", "ratio_lo", "ratio_hi"))
    run = write_run(tmp_path / "a", speed=[speed_row("mixup", **nothing)])
    assert "100.00 [98.00, 102.00]" in Page(report_runs([run]).read_text()).text


@pytest.mark.pictures
def test_the_page_counts_the_seeds_of_each_strategy(tmp_path):
    rows = [run_row("cutmix", seed) for seed in range(5)]
    rows += [run_row("mixup", seed) for seed in range(5, 10)]
    text = Page(report_runs([write_run(tmp_path / "a", rows)]).read_text()).text
    assert "What 5 seeds can show" in text and "10 seeds" not in text


def answer_part(text):
    """The text before the first heading below the answer."""
    return text.partition("What it costs")[0]


def test_speeds_of_different_machines_are_merged_only_when_asked(tmp_path):
    a = write_run(tmp_path / "a", speed=[speed_row()])
    other = speed_row(device="Difference Engine", im_per_sec=7.0)
    b = write_run(tmp_path / "b", speed=[other])
    with pytest.raises(
        ValueError, match=r"Abacus, 2 threads; Difference Engine\).*--mixed-machines"
    ):
        report_runs([a, b], tmp_path / "all")
    text = Page(report_runs([a, b], tmp_path / "all", mixed_machines=True).read_text()).text
    assert "Difference Engine" in text and "7.00" in text
    assert "the speeds come from different machines or settings" in " ".join(text.split())


@pytest.mark.pictures
def test_the_page_shows_everything_and_fetches_nothing(tmp_path):
    tables = full_tables()
    write_run(tmp_path, tables.runs, tables.speed)
    page = page_of(tmp_path)
    assert "script" not in page.tags and "iframe" not in page.tags
    tables_beside = {"comparison.csv", "runs.csv", "speed.csv"}  # followed where clicked alone
    links = [link for link in page.links if not link.startswith(("data:", "#"))]
    assert set(links) == tables_beside == set(re.findall(r'<a href="([^"]*)"', page.source))
    assert all((tmp_path / name).is_file() for name in ("runs.csv", "speed.csv"))
    assert not re.search(r"url\((?!#)|@import", page.source)
    assert len(page.ids) == len(set(page.ids))
    references = {link[1:] for link in page.links if link.startswith("#")}
    references |= set(re.findall(r"url\(#([^)]*)\)", page.source))
    assert references <= set(page.ids) and page.tags.count("svg") == 10
    for words in (
        "deit_small_patch16_224 (22.05M parameters) at 224 px on photos, 1,000 images, 3 epochs",
        "not resolvable with 3 seeds",
        "100.00 [98.00, 102.00]",
        "0.500 [0.490, 0.510]",
        "0.980 to 1.020",
        "slower than CutMix",
        "80.7",
        "0.432",
        "0.900 ± 0.000",
        "12.50 ± 0.00",
        "a mark for each mixed image of training",
        "python bench.py --seeds 0,1,2",
        "200 validation images",
        "No gallery was drawn",
    ):
        assert words in page.text, words
    assert not re.search(NO_FIGURE, page.text) and "<b>" not in page.source
    mean = np.mean([row.top1 for row in tables.runs if row.strategy == "transmix"])
    assert f"{mean:.2f} ± " in page.text
    first = (tmp_path / "report.html").read_bytes()
    assert report_runs([tmp_path]).read_bytes() == first


@pytest.mark.pictures
def test_what_is_published_elsewhere_is_of_the_runs_strategies(tmp_path):
    write_run(tmp_path / "some", [run_row("cutmix"), run_row("mixpro"), run_row("fmix")])
    page = page_of(tmp_path / "some")
    assert "<td>81.3</td><td>256 tokens of 14 pixels" in page.source and "tokenmix" not in page.text
    assert "OpenMixup's fmix draws otherwise than ours" in page.text
    write_run(tmp_path / "none", [run_row("none"), run_row("mixup")])
    page = page_of(tmp_path / "none")
    assert "why it is not comparable" not in page.text and "otherwise than ours" not in page.text


def test_the_trained_and_the_timed_model_are_told_apart(tmp_path):
    small = speed_row(timed_model="deit_tiny", timed_params_m=5.72)
    write_run(tmp_path, [run_row(), run_row("mixup", top1=69.0)], [small], files=False)
    source = page_of(tmp_path).source

    groups, header, cutmix, mixup = cells_of(source, "Ours beside the published figures")
    assert groups == ["", "trained", "timed", "paper, Table 8", "OpenMixup"]
    assert header[:4] == ["strategy", "top-1 (%)", "im/s [95 %]", "ratio to CutMix [95 %]"]
    assert cutmix[:3] == ["cutmix", "70.00 (1 seed)", "100.00 [98.00, 102.00]"]
    assert cutmix[4:] == ["22M", "322", "1.000", "79.8", "80.13"]
    assert mixup[:4] == ["mixup", "69.00 (1 seed)", "-", "-"]
    header, cutmix = cells_of(source, "What was timed")
    assert (header[4], cutmix[4]) == ("parameters", "5.72M")
    header, cutmix, mixup = cells_of(source, "Every seed")
    assert (header[4], cutmix[4]) == ("parameters", "22.05M")
    assert "deit_tiny (5.72M parameters) at 224 px, batch 8, fp32, Abacus, 2 threads" in source


@pytest.mark.pictures
def test_a_bare_run_says_what_is_missing(tmp_path):
    runs = [run_row("cutmix", 0, 70.0, nll=None, ece=None), run_row("transmix", 0, 71.0)]
    write_run(tmp_path, runs, files=False)
    page = page_of(tmp_path)
    for words in (
        "1 seed is too few to tell transmix from cutmix by accuracy (it takes 6)",
        "in one seed, which cannot tell the strategies apart",
        "Speed was not measured",
        "No sample of label shares",
        "one seed gives no interval",
        "not resolvable with 1 seed",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 2 and not re.search(NO_FIGURE, page.text)


@pytest.mark.pictures
def test_speed_alone(tmp_path):
    quick = speed_row("mixup", ratio_lo=1.1, ratio_hi=1.2, ratio_to_cutmix=1.15)
    write_run(tmp_path, speed=[speed_row(mix_ms=None, timed_params_m=None), quick])
    page = page_of(tmp_path)
    assert "nothing was trained" in page.text and "faster than CutMix" in page.text
    assert page.tags.count("svg") == 1 and not re.search(NO_FIGURE, page.text)


@pytest.mark.pictures
def test_failures_are_named(tmp_path):
    runs = [run_row("cutmix", s, 70.0 + s) for s in range(3)]
    runs += [run_row("transmix", s, 71.0 + s) for s in range(2)]
    runs += [
        run_row("transmix", 2, None, status="diverged at step 7"),
        run_row("mixup", 0, None, status="failed: <b>bad</b> & worse"),
    ]
    slow = speed_row("mixup", status="out of memory", im_per_sec=None, ratio_to_cutmix=None)
    places = RunDirectory(write_run(tmp_path, runs, [speed_row(), slow]))
    broken = places.seed("transmix", 2)
    broken.log.write_text(LOG + "0,0.1,nan,10,50,,nan,5\n")
    broken.lam.write_text("area,used\n0.5,nan\n")
    places.seed("mixup", 0).lam.write_text("area,used\n")
    page = page_of(tmp_path)
    for words in (
        "transmix, seed 2: diverged at step 7",
        "mixup, seed 0: failed: <b>bad</b> & worse",
        "mixup, speed: out of memory",
        "on both sides: seed 2.",
        "2 of 3",
        "mixup and cutmix have no seed in common",
    ):
        assert words in page.text, words
    assert "<b>" not in page.source and not re.search(NO_FIGURE, page.text)


@pytest.mark.pictures
def test_nothing_finished(tmp_path):
    failed = run_row("cutmix", 0, None, status="diverged at step 0", nll=None, ece=None, top5=None)
    places = RunDirectory(write_run(tmp_path, [failed]))
    places.seed("cutmix", 0).log.write_text(LOG + "0,0.1,nan,0.0,50,,nan,5\n")
    page = page_of(tmp_path)
    assert "diverged at step 0" in page.text and page.tags.count("svg") == 2
    assert not re.search(NO_FIGURE, page.text)


@pytest.mark.pictures
def test_losses_are_drawn_where_nothing_was_evaluated(tmp_path):
    """It diverged before the first epoch after which there would have been figures."""
    failed = run_row("cutmix", 0, None, status="diverged at step 9", nll=None, ece=None, top5=None)
    places = RunDirectory(write_run(tmp_path, [failed]))
    places.seed("cutmix", 0).log.write_text(LOG + "0,0.1,2.5,,,,,5\n1,0.1,2.0,,,,,9\n")
    page = page_of(tmp_path)
    assert "Mean training loss of each epoch" in page.text and "Top-1 on the" not in page.text
    assert "No validation loss" not in page.text and not re.search(NO_FIGURE, page.text)


def test_one_seed_is_tested_over_its_images(tmp_path):
    write_run(tmp_path, [run_row("cutmix", 0), run_row("transmix", 0)])
    data = read_runs([tmp_path])
    lines = remarks(data.tables, data.correct)
    [sentence] = [line for line in lines if line.startswith("transmix")]
    ours, theirs = data.correct["transmix", 0].right, data.correct["cutmix", 0].right
    better = int((ours & ~theirs).sum())
    assert f"{better} images right with transmix alone" in sentence
    assert sentence in page_of(tmp_path).text


@pytest.mark.pictures
def test_single_classes_and_calibration_are_on_the_page(tmp_path):
    rows = [run_row(spec, seed) for spec in ("cutmix", "transmix") for seed in range(2)]
    write_run(tmp_path, rows)
    write_data(tmp_path, ["n01440764", *"bcdefghijk"])  # of the last there is no image
    page = page_of(tmp_path)
    for words in (
        "A class has 20 validation images. Not tested",
        "1 without validation images are left out",
        "a bin of fewer than 20 images has no point",
        "Negative log-likelihood of the validation images after each epoch",
    ):
        assert words in page.text, words
    assert "are not shown" not in page.text and "No validation loss" not in page.text
    header, *classes = cells_of(page.source, "Every class")
    assert header == ["class", "images", "cutmix", "transmix"] and len(classes) == 10
    results = read_runs([tmp_path]).images
    label = results["cutmix", 0].label
    for name, images, *shares in classes:
        number = 0 if name == "tench" else "abcdefghijk".index(name)
        right = [
            np.mean([results[spec, s].bitmap.right[label == number].mean() for s in range(2)])
            for spec in ("cutmix", "transmix")
        ]
        assert images == "20" and shares == [f"{100 * share:.1f}" for share in right]
    header, *pairs = cells_of(page.source, "What is taken for what")
    assert header == ["class → taken for", "images", "cutmix", "transmix"] and len(pairs) == 10
    assert "tench → b" in [pair[0] for pair in pairs]
    assert cells_of(page.source, "More than top-1")[1][4:7] == [
        "0.900 ± 0.000",
        "0.400 ± 0.000",
        "12.50 ± 0.00",
    ]


@pytest.mark.pictures
def test_runs_of_older_versions_say_what_is_missing(tmp_path):
    write_run(tmp_path, [run_row("cutmix", brier=None), run_row("transmix")], older=True)
    page = page_of(tmp_path)
    for words in (
        "Calibration and single classes are not shown: the run has no images.npz",
        "No validation loss is drawn: older versions of mixbench did not write it",
        "images right with transmix alone",  # of correct.npz
        "200 validation images",
    ):
        assert words in page.text, words
    assert "Class by class" not in page.text and "Upper part" not in page.text


@pytest.mark.pictures
def test_an_older_seed_is_left_out_and_named(tmp_path):
    places = RunDirectory(write_run(tmp_path, [run_row(seed=seed) for seed in range(6)]))
    for seed in range(4):
        places.seed("cutmix", seed).images.unlink()
    text = page_of(tmp_path).text
    assert (
        "Class by class" in text
        and (
            "Without cutmix seed 0, cutmix seed 1, cutmix seed 2 and 1 more, of which there is no "
            "images.npz"
        )
        in text
    )


def test_few_images_have_no_calibration_curve(tmp_path):
    places = RunDirectory(write_run(tmp_path, [run_row()]))
    write_images(places.seed("cutmix", 0).images, image_results([True, False]))
    text = page_of(tmp_path).text
    assert "Calibration is not drawn: no bin of confidence has 20 images" in text


def test_an_overview_takes_no_names_of_classes(tmp_path):
    runs = [write_run(tmp_path / h, [run_row(recipe_hash=h)]) for h in ("abc", "other")]
    (tmp_path / "names.txt").write_text("a\tant\n")
    with pytest.raises(ValueError, match=r"names.txt: an overview .* shows no classes; report one"):
        report_runs(runs, tmp_path / "all", class_names=tmp_path / "names.txt")


def test_names_that_fit_no_class_are_refused_and_those_of_some_told(tmp_path):
    write_run(tmp_path, [run_row()])
    write_data(tmp_path, ["ant", "bee"])
    (tmp_path / "names.txt").write_text("cat\tthe cat\n")
    with pytest.raises(ValueError, match=r"names none of the 2 classes"):
        report_runs([tmp_path], class_names=tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("bee\tthe bee\n")
    said = []
    report_runs([tmp_path], class_names=tmp_path / "names.txt", say=said.append)
    assert len(said) == 1 and "names 1 of 2 classes" in said[0]


@pytest.mark.pictures
def test_runs_on_different_images_are_named_and_the_report_goes_on(tmp_path):
    """Two runs whose validation folders hold as many images, of other names."""
    runs = []
    for spec, letter in (("cutmix", "a"), ("transmix", "b")):
        runs.append(write_run(tmp_path / spec, [run_row(spec, 0)]))
        names = [f"val/{letter}/{i}.png" for i in range(200)]
        file = RunDirectory(runs[-1]).seed(spec, 0).images
        write_images(file, image_results(np.arange(200) < 150, names))
    page = Page(report_runs(runs, tmp_path / "out").read_text())
    words = "Not paired, since the two were evaluated on different images: seed 0."
    assert words in page.text and words in RunDirectory(tmp_path / "out").markdown.read_text()
    assert "right with transmix alone" not in page.text and page.tags.count("svg") > 2


class Names(Page):
    """The attributes of a page, and the texts of its cells and class names."""

    def __init__(self, text):
        self.attributes, self.texts = [], []
        super().__init__(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [value for _, value in attrs]
        self.texts += [""] if tag in ("td", "bdi", "code", "title") else []
        super().handle_starttag(tag, attrs)

    def handle_data(self, data):
        super().handle_data(data)
        if self.texts:
            self.texts[-1] += data


@pytest.mark.pictures
@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_text_on_the_page(name, tmp_path):
    """In text, attributes, cells and diagrams, where nothing of them becomes a tag."""
    spec = name.encode("utf-8", "backslashreplace").decode()  # spec text is always UTF-8
    specs, picture = (spec, "none"), "image.png"
    runs = [run_row(spec, seed, device=name, model=name) for seed in range(2) for spec in specs]
    write_run(tmp_path, runs, [speed_row(spec), speed_row("none")])
    gallery = RunDirectory(tmp_path).gallery
    fields = dict.fromkeys(("image_a", "image_b", "mixed", "mask", "map"), picture)
    entry = GalleryEntry(
        spec, **fields, map_name=name, class_a=name, class_b="b", lam_area=0.5, lam_used=0.5
    )
    gallery.mkdir()
    (gallery / picture).write_bytes(b"")
    write_gallery(gallery, [entry])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Gg]lyph.*")
        source = report_runs([tmp_path]).read_text(encoding="utf-8")
    page = Names(source)
    assert page.texts.count(visible(name)) >= 3  # the rows of three tables
    assert page.texts[0].startswith(f"mixbench: {visible(name)}, none\n")
    assert visible(name) in page.attributes and f"image A, {visible(name)}" in page.attributes
    assert f"Top-1 of each strategy minus that of {visible(name)}, by seed" in page.attributes
    assert "script" not in page.tags and page.tags.count("img") == 5
    assert all(c.isprintable() or c == "\n" for c in source)


@pytest.mark.pictures
def test_a_picture_of_each_kind_is_where_its_caption_says(tmp_path):
    tables = full_tables()
    write_run(tmp_path, tables.runs, tables.speed)
    source = page_of(tmp_path).source
    labels = re.findall(r'<svg[^>]*? aria-label="([^"]*)".*?<figcaption>(.{25})', source, re.S)
    assert [(label, caption) for label, caption in labels] == [
        ("Top-1 of each strategy minus that of cutmix, by seed", "Top-1 minus that of cutmi"),
        ("Top-1 of each strategy, with every seed", "Top-1 of each strategy. A"),
        ("Speed of each strategy as a ratio to CutMix", "Speed of a timed step as "),
        ("Top-1 against speed", "Mean top-1 with its 95 % "),
        ("Accuracy against confidence, and the images in each bin", "Upper part: the share tha"),
        ("Accuracy of single classes with each strategy", "Images of each class that"),
        ("top-1 (%) by epoch", "Top-1 on the validation i"),
        ("validation loss by epoch", "Negative log-likelihood o"),
        ("training loss by epoch", "Mean training loss of eac"),
        ("A&#x27;s share in the label against its share by area", "A&#39;s share of the labe"),
    ]


@pytest.mark.pictures
def test_accuracy_is_drawn_against_the_timed_speed_else_against_that_of_training(tmp_path):
    """A figure of the trained model never stands for the timed one without a word."""
    rates = {"cutmix": 80.0, "transmix": 60.0}
    runs = [run_row(name, train_im_per_sec=rate) for name, rate in rates.items()]
    write_run(tmp_path / "timed", runs, [speed_row(), speed_row("transmix")])
    page = page_of(tmp_path / "timed")
    assert "against the speed of a timed step, of deit_small (22.05M parameters)" in page.text
    assert "training speed, images a second" not in page.text
    write_run(tmp_path / "trained", runs)
    page = page_of(tmp_path / "trained")
    assert "against the images a second of training, the loader included" in page.text
    assert "training speed, images a second (right is faster)" in page.text


def test_the_costs_of_training_are_the_rates_over_the_seeds():
    runs = [run_row(seed=seed, train_im_per_sec=rate) for seed, rate in enumerate((60.0, 120.0))]
    assert training_costs(runs) == {"cutmix": (80.0, 60.0, 120.0)}
    assert training_costs([*runs, run_row(seed=2, device="Loom")]) == {}
    half = speed_row("mixup", ratio_to_cutmix=0.5, ratio_lo=0.4, ratio_hi=0.6)
    unknown = speed_row("none", ratio_to_cutmix=None)
    assert timed_costs([half, unknown]) == {"mixup": (0.5, 0.4, 0.6)}


def test_wide_tables_say_that_they_scroll_and_can_be_reached(tmp_path):
    tables = full_tables()
    write_run(tmp_path, tables.runs, tables.speed)
    source = page_of(tmp_path).source
    regions = re.findall(
        r'<div class="scroll" tabindex="0" role="region" aria-label="(.*?)">', source
    )
    assert len(regions) == source.count("<table") and len(set(regions)) == len(regions)
    for title in ("What was timed", "Every seed", "Ours beside the published figures"):
        before = source[: source.index(f'aria-label="{title}"')]
        assert (
            before.rstrip()
            .rpartition("<p")[2]
            .startswith(' class="hint">This table scrolls sideways.')
        )
    assert source.index("<h1>") < source.index('class="verdicts"') < source.index("<h2>")


def test_the_recipe_is_on_the_page(tmp_path):
    write_run(tmp_path, [run_row()])
    (tmp_path / "recipe.yaml").write_text("lr: 0.00123\nopt: adamw\n")
    page = page_of(tmp_path)
    assert "The recipe, 2 fields" in page.text and "<td>0.00123</td>" in page.source
    (tmp_path / "recipe.yaml").unlink()
    assert "The recipe" not in page_of(tmp_path).text
