"""The commands `report` and `zoo`."""

import re

from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from tests.support.command import TINY, cells
from tests.support.rows import run_row, write_run


def test_a_report_of_one_run_and_of_two_merged(tmp_path, capsys):
    for name, seed in (("a", "0"), ("b", "1")):
        argv = ["--strategies", "none,cutmix", "--mode", "accuracy", "--seeds", seed]
        assert main([*argv, "--out", str(tmp_path / name), *TINY]) == 0
    page = RunDirectory(tmp_path / "a").report
    page.unlink()
    assert main(["report", str(tmp_path / "a")]) == 0 and page.is_file()
    both = RunDirectory(tmp_path / "both")
    argv = ["report", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(both.path)]
    capsys.readouterr()
    assert main(argv) == 0
    assert f"wrote {both.report}" in capsys.readouterr().out
    assert len(cells(both.runs)) == 4
    assert [row["seeds"] for row in cells(both.comparison)] == ["2", "2"]


def test_paths_are_printed_as_text(tmp_path, capsys):
    """Also a damaged file's, whose sentence is printed before."""
    run = write_run(tmp_path / "\x1b[31m[red]\n\u202e", [run_row("cutmix", 0)])
    RunDirectory(run).seed("cutmix", 0).images.write_bytes(b"")
    assert main(["report", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert all(r"/\x1b[31m[red]\n\u202e/" in line for line in lines)


def test_a_report_of_nothing_is_a_sentence(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and str(tmp_path) in error
    assert main(["report"]) == 2 and "RUN" in capsys.readouterr().err


def test_the_zoo_lists_the_papers_models(capsys):
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    [deit] = [line for line in lines if line.startswith("deit_small_patch16_224 ")]
    assert "22,050,664" in deit and re.search(r"\b12\s+14x14$", deit)
    assert any(line.startswith("ca_swin_tiny ") for line in lines)


def test_a_report_does_not_replace_another_runs_tables(tmp_path, capsys):
    for name, top1 in (("a", 10.0), ("b", 20.0)):
        write_run(tmp_path / name, [run_row("cutmix", 0, top1)], [])
        (tmp_path / name / "recipe.yaml").write_text("model: vit\n")
    before = (tmp_path / "b" / "runs.csv").read_bytes()
    assert main(["report", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 2
    assert "b is a run's own directory" in capsys.readouterr().err
    assert (tmp_path / "b" / "runs.csv").read_bytes() == before
    for out in ("a", "elsewhere"):
        assert main(["report", str(tmp_path / "a"), "--out", str(tmp_path / out)]) == 0
