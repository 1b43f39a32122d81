"""What people call the classes: read from a file or by WordNet, and never who a class is."""

import pytest

from mixbench.data.class_names import (
    check_class_names,
    class_titles,
    read_class_names,
    write_class_names,
)


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("n01\ttench", ("n01", "tench")),
        ("n01\ttench, Tinca tinca", ("n01", "tench, Tinca tinca")),  # as timm's own table
        ("n01  great white shark", ("n01", "great white shark")),
        ("n01,tench, a fish", ("n01", "tench, a fish")),
        ("my class, odd\ta  b", ("my class, odd", "a  b")),  # a tab stands over the others
        ("my class    name", ("my class", "name")),
        (" n01 \t tench \r", ("n01", "tench")),
        ("#1\tfirst", ("#1", "first")),
        ("中\t文", ("中", "文")),
    ],
)
def test_a_line_is_a_folder_and_its_name(line, pair, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text(f"\n{line}\n  \n", encoding="utf-8")
    assert read_class_names(file) == dict([pair])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a\tb\nn01 tench\n",
            r"names.txt, line 2: a line is a class's folder, a tab .*'n01 tench'",
        ),
        ("a\t\n", r"names.txt, line 1: .*, not 'a'"),
        ("\tb\n", r"names.txt, line 1: .*, not 'b'"),
        ("a\tb\n\na,c\n", r"line 3: class 'a' has a name in line 1 already: leave one of them out"),
    ],
)
def test_what_is_no_such_line_is_named(text, message, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_names(file)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"no.txt cannot be read: No such file .*--class-names"):
        read_class_names(tmp_path / "no.txt")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(ValueError, match=r"odd.txt cannot be read: it is not UTF-8"):
        read_class_names(tmp_path / "odd.txt")
    with pytest.raises(ValueError, match=r"cannot be read: Is a directory"):
        read_class_names(tmp_path)


def test_a_file_names_some_of_the_classes_and_may_name_others(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("a\tant\nb\tbee\nz\tzebra\n")
    assert check_class_names(file, ["a", "b"]) is None
    sentence = check_class_names(file, ["a", "b", "c"])
    assert (
        sentence
        == f"{file} names 2 of 3 classes: the others, such as 'c', are called as their folders"
    )
    with pytest.raises(ValueError, match=r"names none of the 2 classes, .* as 'ant': a line is"):
        check_class_names(file, ["ant", "bee"])


def test_titles_are_names_then_wordnets_then_folders():
    classes = ["n01440764", "own", "n02979186", "n99999999"]
    titles = class_titles(classes, {"own": "my own", "n02979186": "tape"})
    assert titles == {
        "n01440764": "tench",
        "own": "my own",
        "n02979186": "tape",
        "n99999999": "n99999999",
    }
    assert list(titles) == classes


def test_classes_of_one_name_are_told_apart_by_their_folders():
    """ImageNet has two cranes: the bird, and the machine."""
    assert list(class_titles(["n02012849", "n03126707"], {}).values()) == [
        "crane (n02012849)",
        "crane (n03126707)",
    ]
    assert class_titles(["a", "b", "c"], {"a": "x", "b": "x"}) == {
        "a": "x (a)",
        "b": "x (b)",
        "c": "c",
    }


def test_wordnets_names_are_those_of_timm():
    from timm.data import ImageNetInfo

    from mixbench.data.wnids import imagenet_classes, wnid_names

    names, info = wnid_names(imagenet_classes()), ImageNetInfo("imagenet-1k")
    assert len(names) == 1000 and all(names.values())
    for index in (0, 134, 999):
        wnid = info.index_to_label_name(index)
        assert info.index_to_description(index).split(",")[0] == names[wnid]


def test_names_survive_the_disk(tmp_path):
    names = {"n01": "tench, a fish", "b c": "bee  hive"}
    write_class_names(tmp_path / "names.txt", names)
    assert read_class_names(tmp_path / "names.txt") == names


def test_folders_that_are_no_wnids_need_no_timm(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "timm.data", None)  # an import of it would raise
    assert class_titles(["ant", "n0144", "n014407640"], {"ant": "Ant"})["ant"] == "Ant"
