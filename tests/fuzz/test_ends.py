"""The rules that ends are held to find each kind of fault, and let a right end pass."""

import os
import time

import pytest

from tests.fuzz.ends import (
    ACCEPT,
    REFUSE,
    Case,
    End,
    broken_rules,
    changed,
    in_a_process,
    tree,
)
from tests.fuzz.fields import expected, expected_tuple
from tests.fuzz.meanings import looks_like

SENTENCE = "error: lr must be above 0, not -1\n"


def fails():
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("target", "args", "limit", "fault"),
    [
        (time.sleep, (60,), 1, "hangs"),
        (os.abort, (), 20, "crash"),
        (fails, (), 20, "traceback"),
        (os._exit, (3,), 20, "status"),
    ],
)
def test_a_process_that_ends_badly(target, args, limit, fault, tmp_path):
    end = in_a_process(target, *args, folder=tmp_path / "case", limit=limit)
    [broken] = broken_rules(end, Case(()))
    assert broken.startswith(fault)


@pytest.mark.parametrize(
    ("end", "case", "fault"),
    [
        (End(0, "", ""), Case((), REFUSE), "wrong acceptance"),
        (End(0, "5 rounds", ""), Case((), says=(" 5 seeds",)), "wrong acceptance"),
        (End(2, "", SENTENCE), Case((), ACCEPT), "wrong refusal"),
        (End(1, "", SENTENCE), Case((), REFUSE), "status"),
        (End(2, "", SENTENCE), Case((), names=("min_lr",)), "unnamed"),
        (End(2, "", ""), Case(()), "sentence"),
        (End(2, "", SENTENCE * 2), Case(()), "sentence"),
        (End(2, "", f"{SENTENCE}more\n"), Case(()), "sentence"),
        (End(2, "", f"error: {'x' * 501}\n"), Case(()), "length"),
        (End(2, "", "error: \x1b[31m\n"), Case(()), "unprintable"),
        (End(2, "", "error: \udcff\n"), Case(()), "unprintable"),
    ],
)
def test_a_broken_rule_is_named(end, case, fault):
    assert [broken.partition(":")[0] for broken in broken_rules(end, case)] == [fault]


def test_right_ends_pass():
    assert broken_rules(End(2, "", SENTENCE), Case((), REFUSE, ("lr",))) == []
    assert broken_rules(End(0, "5 rounds\n", ""), Case((), ACCEPT, says=("5 rounds",))) == []


def test_a_file_that_changes_is_seen(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    before = tree(tmp_path)
    assert changed(before, tree(tmp_path)) == []
    (tmp_path / "a").write_text("c")
    (tmp_path / "b").unlink()
    (tmp_path / "b.partial").touch()
    assert changed(before, tree(tmp_path)) == [
        "harm: a was changed or lost",
        "harm: b was changed or lost",
        "litter: b.partial is left behind",
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("010", 10), ("08", 8), ("1e-3", 1e-3), ("-0.5", -0.5), ("0x10", 16), ("1_000", 1000)),
        *(("８", 8), (" 8 ", 8), ("8 # eight", 8), ("1:30", None), ("nan", None), ("1__0", None)),
        *(
            ("²", None),
            ("", None),
            ("1e400", None),
            ("[5]", None),
            ("9" * 400, None),
            ("yes", None),
        ),
    ],
)
def test_what_a_text_looks_like(text, number):
    assert looks_like(text) == number


def test_what_is_expected_of_a_field():
    assert expected("epochs", "010") == (ACCEPT, {"epochs": 10})
    assert expected("epochs", "1.5") == (REFUSE, {})
    assert expected("depth", "null") == (ACCEPT, {"depth": None})
    assert expected("micro_batch", "auto") == (ACCEPT, {"micro_batch": "auto"})
    assert expected("drop_path", "1") == (REFUSE, {})
    assert expected_tuple("scale", "0.5,1") == (ACCEPT, {"scale": [0.5, 1]})
    assert expected_tuple("scale", "1,2") == expected_tuple("scale", "1") == (REFUSE, {})
