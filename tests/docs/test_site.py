"""The documentation site, which `make docs` builds: navigation, files, and the reference."""

import importlib.util
import re

import pytest
import yaml

from results.site import site_files
from tests.support.pages import ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages_of(nav) -> list[str]:
    """The pages that a part of the navigation names, in its order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def test_the_navigation_names_every_page_once():
    docs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")]
    others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    assert sorted(pages_of(CONFIG["nav"])) == sorted([*docs, *others])


def test_what_the_reference_names_exists():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    modules = re.findall(r"^::: (\S+)$", page, re.M)
    assert len(modules) == page.count(":::") == len(set(modules)) > 10
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module


def test_the_reference_has_every_public_name():
    """Each name that `import mixbench` gives is of a module that the page names."""
    import mixbench

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for home in mixbench._HOME:
        assert f"::: mixbench.{home}\n" in page


@pytest.fixture
def checkout(tmp_path):
    for name, text in {
        "README.md": "[a](docs/a.md#part) ![b](docs/b.png) [c](https://x.org/docs/a.md)",
        "CONTRIBUTING.md": "[d](results/d.md) [gone](nowhere.md) [out](../outside.md)",
        "CHANGELOG.md": "[folder](results/)",
        "docs/a.md": "[e](../configs/e.yaml) [readme](../README.md)",
        "docs/b.png": "",
        "results/d.md": "[f](f.csv)",
        "results/f.csv": "",
        "results/not_linked.csv": "",
        "configs/e.yaml": "",
    }.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(text)
    (tmp_path / "outside.md").write_text("")
    return tmp_path / "here"


def test_the_site_has_what_its_pages_link_to(checkout):
    """Also what a page outside docs/ links to; nothing that no page does or that lies outside."""
    assert site_files(checkout) == [
        *("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "configs/e.yaml", "docs/a.md"),
        *("docs/b.png", "results/d.md", "results/f.csv"),
    ]
