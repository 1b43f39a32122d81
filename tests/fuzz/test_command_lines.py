"""Command lines with odd values: refused in a sentence, or accepted as what they look like."""

import pytest

from tests.fuzz.checks import check
from tests.fuzz.command_lines import command_lines

SAMPLE = range(11, len(command_lines()), len(command_lines()) // 40)


@pytest.mark.fuzz
@pytest.mark.parametrize("number", range(len(command_lines())))
def test_every_command_line(number, tmp_path):
    check(command_lines()[number], tmp_path / "case")


@pytest.mark.parametrize("number", SAMPLE)
def test_some_command_lines(number, tmp_path):
    check(command_lines()[number], tmp_path / "case")
