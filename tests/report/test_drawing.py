"""Names that are too long for a diagram."""

from mixbench.report.drawing import wrapped


def test_a_part_longer_than_two_lines_is_shortened_in_the_middle():
    lines = wrapped(f"named(label={'x' * 200}z)").splitlines()
    assert lines[0] == "named(" and lines[1].startswith("label=xxx") and lines[1].endswith("xz)")
    assert "…" in lines[1] and max(map(len, lines)) <= 44
    assert wrapped("y" * 44) == "y" * 44
