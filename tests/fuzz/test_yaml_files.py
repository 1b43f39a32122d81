"""Recipe files: read as what they look like, or refused in a sentence that comes at once."""

import pytest

from tests.fuzz.checks import check
from tests.fuzz.yaml_files import yaml_files

SAMPLE = range(3, len(yaml_files()), len(yaml_files()) // 30)


@pytest.mark.fuzz
@pytest.mark.parametrize("number", range(len(yaml_files())))
def test_every_recipe_file(number, tmp_path):
    check(yaml_files()[number], tmp_path / "case")


@pytest.mark.parametrize("number", SAMPLE)
def test_some_recipe_files(number, tmp_path):
    check(yaml_files()[number], tmp_path / "case")
