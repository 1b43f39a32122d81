"""What the pages of measurements share, by hand."""

from pathlib import Path

from baselines import rounds
from baselines.rounds import in_turns, ratios, spread


def test_rounds_change_their_order_and_warm_up_first():
    turns = [*"ba", *"ab", *"ba", *"ab"]
    counted = list(in_turns("ab", 3))
    assert [name for name, _ in counted] == turns
    assert [counts for _, counts in counted] == [False] * 2 + [True] * 6
    assert len(list(in_turns("ab", 3, warm_ups=2))) == 10


def test_the_spread_is_of_the_rounds_ratios():
    """2/1, 9/3 and 8/2: their median is 3, not 8/2."""
    assert spread(ratios([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]), 2) == "3.00 [2.00, 4.00]"


def test_a_command_names_data_without_their_place():
    command = rounds.command_of("loader", data=Path("/somewhere/my photos"), limit_train=8)
    assert command == "python baselines/loader.py --data 'my photos' --limit-train 8"


def test_a_page_is_todays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "today", lambda: "2026-01-02")
    rounds.write_page(tmp_path, "loader-cpu", "# Page\n")
    assert (tmp_path / "loader-cpu-2026-01-02.md").read_text() == "# Page\n"
    assert capsys.readouterr().out == "# Page\n\n"
