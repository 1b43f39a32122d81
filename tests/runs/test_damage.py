"""Damaged files of a run are named, and the rest goes on: in a report, a resumed run, a sweep."""

import json
import shutil

import pytest
from PIL import Image

from mixbench.cli import main
from mixbench.commands.jobs import read_sent
from mixbench.report.page import report_runs
from mixbench.runs.damage import mend
from mixbench.runs.directory import RunDirectory
from mixbench.runs.merge import merge, read_runs
from mixbench.runs.rows import RunRow, read_table
from mixbench.runs.samples import GalleryEntry, write_gallery
from tests.support import kills
from tests.support.rows import run_row, speed_row, write_correct, write_run

ROWS = [run_row("cutmix", 0, 70.123456), run_row("cutmix", 1, 71.0), run_row("transmix", 0, 72.0)]
DEEP = b"[" * 5000 + b"]" * 5000
DAMAGES = {
    "empty": lambda content: b"",
    "a byte": lambda content: content[:1],
    "cut": lambda content: content[: len(content) * 2 // 3],
    "its last byte gone": lambda content: content[:-1],
    "not UTF-8": lambda content: b"\xff\xfe\x80" + content,
    "NUL bytes": lambda content: b"\0" * len(content),
    "NUL within": lambda content: content[:40] + b"\0" + content[41:],
    "null": lambda content: b"null\n",
    "a number": lambda content: b"3\n",
    "a text": lambda content: b'"text"\n',
    "a list": lambda content: b"[1, [2], {}]\n",
    "an object": lambda content: b'{"strategy": ["a"], "seed": {}, "command": 3, "top1": true}\n',
    "brackets": lambda content: DEEP,
    "other columns": lambda content: b"a,b,c\n1,2,3\n",
    "words": lambda content: content.replace(b"7", b"x").replace(b"0", b"seven"),
    "a long cell": lambda content: b'"' + b"x" * 200_000 + b'",1\n' + content,
    "a picture": lambda content: b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}
FILES = {
    "environment.json": lambda places: places.environment,
    "runs.csv": lambda places: places.runs,
    "speed.csv": lambda places: places.speed,
    "index.json": lambda places: places.gallery / "index.json",
    "result.json": lambda places: places.seed("cutmix", 0).result,
    "log.csv": lambda places: places.seed("cutmix", 0).log,
    "lam.csv": lambda places: places.seed("cutmix", 0).lam,
    "images.npz": lambda places: places.seed("cutmix", 0).images,
    "correct.npz": lambda places: places.seed("cutmix", 1).correct,
}
UNSEEN = {  # what is still a file of its kind, with other figures or fewer
    *((file, name) for file in ("correct.npz", "images.npz") for name in ("words", "NUL within")),
    *(("lam.csv", name) for name in ("its last byte gone", "cut")),
    *((file, "its last byte gone") for file in ("environment.json", "result.json", "index.json")),
    ("environment.json", "words"),
}


def write_all(folder):
    """A run's directory with every file that is read; one seed is of an older mixbench."""
    write_run(folder, ROWS, [speed_row("cutmix"), speed_row("transmix")])
    places = RunDirectory(folder)
    places.seed("cutmix", 1).images.unlink()
    write_correct(places.seed("cutmix", 1).correct, [True] * 150 + [False] * 50)
    for row in ROWS:
        places.keep(row)
    pictures = ("image_a", "image_b", "mixed", "mask", "map")
    texts = {name: f"{name}.png" for name in (*pictures, "map_name", "class_a", "class_b")}
    places.gallery.mkdir()
    for name in pictures:
        Image.new("RGB", (4, 4)).save(places.gallery / texts[name])
    write_gallery(
        places.gallery, [GalleryEntry(strategy="cutmix", lam_area=0.25, lam_used=0.5, **texts)]
    )
    return places


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "run"
    write_all(folder)
    return folder


@pytest.fixture
def places(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def damage(places, file, name):
    path = FILES[file](places)
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    return path


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_report_leaves_out_what_is_damaged(file, name, places):
    path = damage(places, file, name)
    data = read_runs([places.path])
    if file != "result.json":  # which a report reads where runs.csv is damaged
        assert (file, name) in UNSEEN or any(str(path) in line for line in data.damaged)
    assert all(len(line) < 500 and "\n" not in line for line in data.damaged)
    rows = {(row.strategy, row.seed) for row in data.tables.runs}
    assert rows == {("cutmix", 0), ("cutmix", 1), ("transmix", 0)}
    assert len(data.tables.speed) == (0 if file == "speed.csv" else 2)
    assert ("transmix", 0) in data.logs and ("transmix", 0) in data.correct


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_run_goes_on_past_what_is_damaged(file, name, places):
    path = damage(places, file, name)
    damaged = path.read_bytes()
    before = places.results() if file != "result.json" else None
    lines = mend(places, "abc")
    assert (len(lines) == 1 and str(path) in lines[0] and len(lines[0]) < 500) or (
        not lines and (file, name) in UNSEEN
    )
    if lines:
        assert path.with_name(f"{path.name}.damaged").read_bytes() == damaged
        assert "kept as" in lines[0] and path.exists() == (file == "result.json")
    assert before is None or places.results() == before
    assert places.results("abc")["cutmix", 0].top1 == pytest.approx(70.123456, abs=5e-4)
    assert mend(places, "abc") == []


@pytest.mark.parametrize("file", FILES)
def test_a_folder_in_a_files_place_is_named(file, places):
    path = FILES[file](places)
    path.unlink()
    path.mkdir()
    data = read_runs([places.path])
    assert file == "result.json" or any(str(path) in line for line in data.damaged)
    with pytest.raises(ValueError, match=r"is no file: move it away, or choose another --out"):
        mend(places, "abc")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"n01440764\n", b"a\tb\na\tc\n"])
def test_damaged_names_of_classes_are_left_out(content, places):
    places.class_names.write_bytes(content)
    data = read_runs([places.path])
    assert data.class_names == {} and str(places.class_names) in data.damaged[0]
    [line] = mend(places, "abc")
    assert line.endswith("kept as class-names.txt.damaged, classes are called as their folders")


def test_a_damaged_row_that_is_nowhere_else_is_unfinished(places):
    damage(places, "result.json", "cut")
    damage(places, "runs.csv", "a number")
    lines = mend(places, "abc")
    assert "kept as result.json.damaged, this strategy and seed count as unfinished" in lines[0]
    assert "written anew with the rows of the strategies' result.json" in lines[1]
    assert set(places.results("abc")) == {("cutmix", 1), ("transmix", 0)}


def test_a_row_of_another_recipe_is_not_taken(places):
    damage(places, "result.json", "cut")
    assert "count as unfinished" in mend(places, "other")[0]


def test_a_result_in_anothers_folder_is_damaged(places):
    wrong, right = places.seed("cutmix", 1).result, places.seed("cutmix", 0).result
    wrong.write_bytes(right.read_bytes())
    assert set(places.results()) == {("cutmix", 0), ("transmix", 0)}
    assert "is of cutmix with seed 0: kept as" in mend(places, "abc")[0]


def test_several_damaged_files_have_names_of_their_own(places):
    for _ in range(3):
        places.speed.write_text("nothing")
        mend(places, "abc")
    names = {path.name for path in places.path.glob("speed.csv*")}
    assert names == {"speed.csv.damaged", "speed.csv.damaged2", "speed.csv.damaged3"}


def test_a_large_seed_is_read_to_its_last_digit(tmp_path):
    places = RunDirectory(tmp_path)
    places.keep(run_row("cutmix", 2**62 + 1, 70.0))
    assert set(places.results()) == {("cutmix", 2**62 + 1)}


def test_nothing_that_can_be_read_is_a_sentence(tmp_path, capsys):
    (tmp_path / "runs.csv").write_bytes(b"\xff\xfe")
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "runs.csv") in error and error.count("\n") == 1


def test_a_page_names_what_it_leaves_out(places, tmp_path, capsys):
    for file in ("speed.csv", "index.json", "log.csv", "lam.csv", "correct.npz"):
        damage(places, file, "cut")
    assert main(["report", str(places.path)]) == 0
    page, said = places.report.read_text(), capsys.readouterr().out
    for file in ("speed.csv", "index.json", "log.csv", "correct.npz"):
        assert said.count(str(FILES[file](places))) == 1 and str(FILES[file](places)) in page
    other = write_run(tmp_path / "other", [run_row("mixup", 0, 60.0)])
    report_runs([places.path, other], tmp_path / "all")
    merged = read_table(RunDirectory(tmp_path / "all").runs, RunRow)
    assert {row.strategy for row in merged} == {"cutmix", "transmix", "mixup"}


def test_merged_runs_say_which_table_is_left_out(places):
    damage(places, "speed.csv", "cut")
    tables = merge([places.path])
    assert [str(places.speed) in line for line in tables.damaged] == [True]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "null", "[" * 9999])
def test_damaged_jobs_are_not_sent_again(content, tmp_path):
    path = tmp_path / "jobs.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"jobs.json is damaged, and says which jobs were sent"):
        read_sent(path)
    path.write_text(json.dumps({"job": "12_0"}))
    assert read_sent(path) == {"job": "12_0"} and read_sent(tmp_path / "none.json") == {}


COMMAND = ["--strategies", "none", "--seeds", "0,1", "--mode", "accuracy", *kills.TINY]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    assert main([*COMMAND, "--epochs", "1", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("name", ["cut", "a list", "not UTF-8"])
def test_a_finished_run_is_resumed_past_its_damaged_files(name, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    places, files = RunDirectory(tmp_path / "run"), []
    for file, path_of in FILES.items():
        if file == "correct.npz":
            continue  # which it does not have
        path = path_of(places) if "cutmix" not in str(path_of(places)) else None
        path = path or next(iter(places.path.glob(f"none-*/seed0/{file}")))
        if path.is_file() and file != "runs.csv":
            path.write_bytes(DAMAGES[name](path.read_bytes()))
            files.append(path)
    capsys.readouterr()
    assert main([*COMMAND, "--epochs", "1", "--out", str(places.path), "--resume"]) == 0
    said = capsys.readouterr().out
    assert all(f"{path.name}.damaged" in said for path in files if path.name != "lam.csv")
    assert kills.figures(places.path) == kills.figures(finished)
    assert main([*COMMAND, "--epochs", "1", "--out", str(places.path), "--resume"]) == 0
    assert "damaged" not in capsys.readouterr().out
