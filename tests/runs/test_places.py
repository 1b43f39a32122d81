"""What a run must not write is refused before anything ran, by name."""

import os
from pathlib import Path

import pytest

from mixbench.cli import main
from mixbench.files import WriteError
from mixbench.recipe import load_recipe
from mixbench.report.page import report_runs
from mixbench.report.tables import document
from mixbench.runs import places
from mixbench.runs.directory import RunDirectory, SeedFolder
from mixbench.runs.merge import Tables
from mixbench.runs.places import check_places
from mixbench.runs.rows import ComparisonRow, EpochRow, RunRow, SpeedRow, write_table
from tests.runs.test_schema2 import HEADER, SCHEMA_1
from tests.support.odd_files import ODD, make
from tests.support.rows import run_row, speed_row, write_run

FILES = ("--csv", "--json")


def tree(folder):
    """What lies in a folder: kinds, sizes and the text of files."""
    return {
        path: (os.lstat(path).st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


def refused(folder, message, out=None, **files):
    """A check says so, and nothing is another than before."""
    before = tree(folder)
    options = {f"--{name}": path for name, path in files.items()}
    with pytest.raises(ValueError, match=message):
        check_places(out or folder / "run", options)
    assert tree(folder) == before


def our_json():
    """A document as --json writes it."""
    import json

    recipe = load_recipe("quick")
    return json.dumps(document(Tables([], []), [], recipe, {"command": "x"}), indent=1)


@pytest.mark.parametrize("option", FILES)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused(kind, option, tmp_path):
    target = tmp_path / "victim"
    target.write_text("mine")
    path = tmp_path / "table"
    make(kind, path, target)
    refused(tmp_path, f"{option} {path} is a (symbolic|named|socket|direct)", **{option[2:]: path})
    path = tmp_path / "other"
    make(kind, tmp_path / "other.partial", target)
    refused(tmp_path, f"{option} {path}: .*other.partial is a ", **{option[2:]: path})


@pytest.mark.parametrize("kind", [kind for kind in ODD if kind != "directory"])
@pytest.mark.parametrize("name", ["runs.csv", ".lock", "cutmix-1a2b3c4d/seed0/last.pt.partial"])
def test_what_is_planted_in_the_directory_is_named(kind, name, tmp_path):
    target = tmp_path / "victim"
    target.write_text("mine")
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    make(kind, path, target)
    refused(tmp_path, f"{path} is a .*remove it, or choose another --out")


def test_a_folder_in_a_files_place_and_the_other_way_round(tmp_path):
    for name in ("recipe.yaml", "report.html", "state-seed0.pt"):
        (tmp_path / name / "run" / name).mkdir(parents=True)
        refused(tmp_path, f"{name} is a directory: move it away", out=tmp_path / name / "run")
    (tmp_path / "gallery").write_text("mine")
    refused(tmp_path, "gallery is a file: move it away", out=tmp_path)


def test_a_linked_folder_in_the_directory_is_not_written_into(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "gallery").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path, "gallery is a symbolic link")


def test_the_directory_itself_may_be_reached_by_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    check_places(tmp_path / "run", {"--csv": tmp_path / "run" / "mine.csv"})
    assert list((tmp_path / "disk").iterdir()) == []


def paths_of(kind, thing):
    """The paths that the properties of a directory give."""
    values = {name for name, value in vars(kind).items() if isinstance(value, property)}
    values = [getattr(thing, name) for name in sorted(values - {"holds_results", "in_use"})]
    return [value for value in values if isinstance(value, Path)]


def test_every_file_of_a_run_is_its_own(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    seed = directory.seed("cutmix", 0)
    files = [*paths_of(RunDirectory, directory), *paths_of(SeedFolder, seed), directory.trace(0)]
    files += [directory.state(0), directory.previous_state(12), directory.path / ".lock"]
    files += [directory.curves("cutmix", 0) / "events", directory.job("cutmix-seed0").runs]
    assert len(files) >= 20
    for file in files:
        refused(tmp_path, f"--csv {file} is a file of the run itself: name another", csv=file)
        refused(tmp_path, "is a file of the run itself", csv=file.with_name(file.name + ".partial"))
    refused(tmp_path, "of the run itself", json=tmp_path / "x" / ".." / "run" / "runs.csv")
    refused(tmp_path, "of the run itself", json=tmp_path / "run" / "RECIPE.yaml")
    check_places(directory.path, {"--csv": directory.path / "mine.csv"})


@pytest.mark.parametrize("name", ["run", "a", "a/../run"])
def test_a_file_is_not_where_the_directory_goes(name, tmp_path):
    """Found before training, which would make the directory and fail at the file."""
    out = tmp_path / ("a/b" if name == "a" else "run")
    refused(tmp_path, "is where the run's directory .* goes: name a file", out, csv=tmp_path / name)
    both = {"csv": tmp_path / "q", "json": tmp_path / "q" / "x.json"}
    refused(tmp_path, "--csv .*q and --json .*x.json lie in one another: name two files", **both)


def test_what_somebody_else_wrote_under_our_names_is_not_replaced(tmp_path, capsys):
    out, run = tmp_path / "mine", tmp_path / "full"
    out.mkdir()
    write_run(run, [run_row()], [speed_row()])
    for name in ("report.html", "comparison.csv", "speed.csv"):
        (out / name).write_text("my own notes\n")
        before = tree(out)
        for argv in (["report", str(run)], ["--strategies", "none", "--config", "quick"]):
            assert main([*argv, "--out", str(out)]) == 2
            assert f"{name} is there, and no run that wrote it" in capsys.readouterr().err
        assert tree(out) == before
        (out / name).unlink()
    (out / "speed.csv").write_text("")  # an empty one is nobody's
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert main(["report", str(run), "--out", str(out)]) == 0  # over our own


def test_a_report_removes_tables_of_ours_alone(tmp_path):
    out = tmp_path / "out"
    report_runs([write_run(tmp_path / "a", [run_row()], [speed_row()])], out)
    other = write_run(tmp_path / "b", [run_row("mixup", recipe_hash="other")])
    (out / "evaluations.csv").write_text("my,own\n")
    report_runs([other], out)
    assert not (out / "speed.csv").exists() and (out / "evaluations.csv").is_file()
    report_runs([write_run(tmp_path / "c", speed=[speed_row()])], out)
    assert not (out / "runs.csv").exists()
    report_runs([tmp_path / "a", other], out)
    report_runs([other, write_run(tmp_path / "d", [run_row()])], out)  # an overview
    assert not (out / "speed.csv").exists()


def test_a_hard_link_to_a_file_of_the_run_is_that_file(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "runs.csv").write_text("")
    os.link(tmp_path / "run" / "runs.csv", tmp_path / "mine.csv")
    refused(tmp_path, "mine.csv is a file of the run itself", csv=tmp_path / "mine.csv")


def test_the_two_files_are_two(tmp_path):
    message = "--csv .* and --json are the same file"
    same = tmp_path / "x"
    refused(tmp_path, message, csv=same, json=same)
    refused(tmp_path, message, csv=same, json=tmp_path / "y" / ".." / "x")
    refused(tmp_path, message, csv=same, json=tmp_path / "X")
    (tmp_path / "z").symlink_to(tmp_path)
    refused(tmp_path, message, csv=same, json=tmp_path / "z" / "x")
    (tmp_path / "a").write_text("")
    os.link(tmp_path / "a", tmp_path / "b")
    refused(tmp_path, message, csv=tmp_path / "a", json=tmp_path / "b")


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--csv", b"a,b\n1,2\n"),
        ("--csv", b"strategy,top1\ncutmix,81.2\n"),
        ("--csv", b"\x89PNG\r\n\x1a\n"),
        ("--csv", b"\n"),
        ("--csv", ",".join(f.name for f in RunRow.__dataclass_fields__.values()).encode()),
        ("--csv", ",".join(f.name for f in SpeedRow.__dataclass_fields__.values()).encode()),
        ("--csv", ",".join(f.name for f in EpochRow.__dataclass_fields__.values()).encode()),
        ("--json", b"{}"),
        ("--json", b'{"schema_version": 3}'),
        ("--json", b'{"schema_version": 3, "device": "x"}'),
        ("--json", b"strategy,top1\n"),
        ("--json", b"\xff\xfe"),
        ("--json", b" "),
    ],
)
def test_anothers_file_is_not_replaced(option, content, tmp_path):
    for name in ("mine", "mine.partial"):
        (tmp_path / name).write_bytes(content)
        refused(
            tmp_path,
            f"{option} .*mine: {name} holds something else than mixbench writes there",
            **{option[2:]: tmp_path / "mine"},
        )
        (tmp_path / name).unlink()


def test_our_files_and_empty_files_are_replaced(tmp_path):
    csv, json = tmp_path / "c.csv", tmp_path / "j.json"
    write_table(csv, ComparisonRow, [])
    headers = [csv.read_text(), HEADER, SCHEMA_1, "", "\ufeff" + HEADER.replace("\n", "\r\n")]
    for header in headers:
        csv.write_text(header, encoding="utf-8")
        check_places(tmp_path / "run", {"--csv": csv})
    for text in (our_json(), our_json()[:300], "", our_json().replace("\n ", "\n    ")):
        json.write_text(text)
        check_places(tmp_path / "run", {"--json": json})


def test_a_folder_that_only_pretends_is_found_by_trying(tmp_path, monkeypatch):
    create = os.open

    def read_only(path, *arguments, **options):
        if str(path).startswith(str(tmp_path / "mounted")):
            raise OSError(30, "Read-only file system", str(path))
        return create(path, *arguments, **options)

    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(places.os, "open", read_only)
    words = "read-only file system; choose another"
    refused(tmp_path, f"{words} --csv", csv=tmp_path / "mounted" / "c.csv")
    refused(tmp_path, f"{words} --out", out=tmp_path / "mounted" / "deep" / "run")
    check_places(tmp_path / "run", {"--csv": tmp_path / "c.csv"})
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_no_mistake_of_the_user(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(places.os, "write", full)
    with pytest.raises(WriteError, match="the disk is full"):
        check_places(tmp_path / "run", {})
    assert list(tmp_path.iterdir()) == []


def test_names_that_no_system_takes(tmp_path):
    refused(tmp_path, "file name too long", csv=tmp_path / ("x" * 300))
    refused(tmp_path, "file name too long", csv=tmp_path / ("x" * 250))  # not with `.partial`
    refused(tmp_path, "file name too long", out=tmp_path / ("x" * 300))
    refused(tmp_path, "NUL", csv=Path("a\0b"))
    refused(tmp_path, "NUL", out=Path("a\0b"))
    check_places(tmp_path / "run", {"--csv": tmp_path / ("x" * 240)})


@pytest.mark.parametrize("option", FILES)
def test_the_command_refuses_and_nothing_is_written(option, tmp_path, capsys):
    notes = tmp_path / "notes"
    notes.write_text("mine")
    argv = ["--strategies", "none", "--out", str(tmp_path / "run"), option, str(notes)]
    before = tree(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {option} {notes}: ") and error.count("\n") == 1
    assert "stays" not in error and tree(tmp_path) == before


def test_a_page_is_not_written_over_a_link(tmp_path, capsys):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "report.html").symlink_to(tmp_path / "victim")
    assert main(["report", str(tmp_path)]) == 2
    assert "report.html is a symbolic link" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path)]) == 2
    assert (tmp_path / "victim").read_text() == "mine"
