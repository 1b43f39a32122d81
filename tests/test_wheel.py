"""The package as it is installed: a wheel, tried in an empty directory."""

import json
import os
import re
import subprocess
import sys
import zipfile

import pytest

from mixbench import __version__
from mixbench.registry import BUILTIN
from mixbench.runs.rows import ComparisonRow, RunRow, read_table
from tests.support.command import TINY
from tests.support.pages import ROOT

FIGURES = ("strategy", "seed", "status", "top1", "top5", "nll", "ece", "recipe_hash")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout; made without a network where hatchling is installed."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command = [*build, "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a command line in a folder, with what is in the wheel; its output."""
    site = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    path = os.pathsep.join([str(site / "bin"), os.environ["PATH"]])
    environment = os.environ | {"PYTHONPATH": str(site), "PATH": path}

    def run(command, folder):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_description_has_no_link_into_a_checkout(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        head, _, text = archive.read(name).decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert text.startswith("# mixbench") and "| transmix |" in text and "docs/" in text
    assert re.findall(r"\]\((?!https://)", text) == [] and "<!--" not in text


def test_docs_and_examples_are_where_it_says(installed, tmp_path):
    assert installed("mixbench --version", tmp_path) == f"mixbench {__version__}\n"
    places = dict(
        re.findall(r"^(documentation|examples): (.+)$", installed("mixbench", tmp_path), re.M)
    )
    for name, folder in (("documentation", "docs"), ("examples", "examples")):
        assert str(ROOT) not in places[name]
        inside = subprocess.check_output(["ls", places[name]], text=True).split()
        assert {*inside} >= {path.name for path in (ROOT / folder).iterdir() if path.suffix}
    listed = installed(f"mixbench list --json --plugin {places['examples']}/halves.py", tmp_path)
    names = [row["name"] for row in json.loads(listed)["strategies"]]
    assert names == [*BUILTIN, "halves"]


@pytest.mark.slow
def test_a_comparison_its_report_and_the_recorded_command(installed, tmp_path):
    options = f"--strategies cutmix,'transmix(attention_weight=0.75)' --seeds 0,1 {' '.join(TINY)}"
    installed(f"mixbench bench --out run {options}", tmp_path / "first")
    installed("mixbench report run --out again", tmp_path / "first")
    assert (tmp_path / "first" / "again" / "report.html").is_file()
    environment = json.loads((tmp_path / "first" / "run" / "environment.json").read_text())
    assert environment["command"].startswith("mixbench bench --out run")
    installed(environment["command"], tmp_path / "second")

    def figures(folder):
        rows = read_table(folder / "runs.csv", RunRow)
        return [[getattr(row, name) for name in FIGURES] for row in rows]

    first = figures(tmp_path / "first" / "run")
    assert len(first) == 4 and all(row[3] is not None for row in first)
    assert figures(tmp_path / "second" / "run") == first
    compared = read_table(tmp_path / "first" / "again" / "comparison.csv", ComparisonRow)
    assert [row.strategy for row in compared] == ["cutmix", "transmix(attention_weight=0.75)"]
