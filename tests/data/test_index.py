"""The index of a large folder: equal to the listing, out of date only where it says so."""

import os
import shutil

import pytest

from mixbench.data import folders, index
from mixbench.data.folders import open_folder
from mixbench.data.index import indexed_folder


@pytest.fixture
def root(photographs, tmp_path, monkeypatch):
    """An image folder, of which eleven images are many."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(index, "LARGE", 11)
    root = photographs(tmp_path / "photos", train=4, val=2)
    (root / "train/a/sub").mkdir()
    (root / "train/a/1.png").rename(root / "train/a/sub/1.png")
    (root / "train/b/notes.txt").write_text("no image")
    return root


def files(home):
    return list((home / "home").rglob("listing-*"))


def content(data):
    """All that is known of the data but what a user hears."""
    splits = data.train, data.val
    names = [[each.image_name(i) for i in range(len(each.labels))] for each in splits]
    pixels = [each.load(i).tobytes() for each in splits for i in range(len(each.labels))]
    return data.identity, data.name, [each.labels for each in splits], names, pixels


def indexed(data):
    """Whether a remark says that the data are of an index."""
    said = [remark for remark in data.remarks if "index" in remark]
    assert all(" UTC, which serves dry runs alone: a run lists them anew" in each for each in said)
    return len(said) == 1


def test_an_index_is_the_listing(root, tmp_path, monkeypatch):
    first = indexed_folder(root)
    assert not indexed(first) and len(files(tmp_path)) == 1
    expected = content(open_folder(root))
    assert content(first) == expected

    def never(*arguments):
        raise AssertionError("the folder is listed")

    (tmp_path / "link").symlink_to(root)
    monkeypatch.setattr(folders, "_walk", never)
    again = indexed_folder(root)
    assert indexed(again) and again.remarks[:-1] == first.remarks != ()
    assert content(again) == expected
    assert content(indexed_folder(tmp_path / "link"))[0] == expected[0]  # by another path
    monkeypatch.chdir(tmp_path)
    assert indexed(indexed_folder(root.relative_to(tmp_path)))


def later(folder):
    """As if a folder had changed a second later than its files were made."""
    time = os.stat(folder).st_mtime_ns + 10**9
    os.utime(folder, ns=(time, time))


@pytest.mark.parametrize("change", ["more", "fewer", "below", "class"])
def test_a_folder_that_has_changed_is_listed_anew(root, change):
    old = indexed_folder(root).identity
    if change == "more":
        (root / "val/a/9.jpg").write_bytes((root / "val/a/0.jpg").read_bytes())
        later(root / "val/a")
    elif change == "fewer":
        (root / "train/b/0.jpg").unlink()
        later(root / "train/b")
    elif change == "below":
        (root / "train/a/sub/1.png").rename(root / "train/a/sub/2.png")
        later(root / "train/a/sub")
    else:
        for split in ("train", "val"):
            shutil.copytree(root / split / "b", root / split / "c")
            later(root / split)
    data = indexed_folder(root)
    assert not indexed(data) and content(data) == content(open_folder(root))
    assert data.identity != old
    assert indexed(indexed_folder(root))  # the new one


def test_a_file_that_was_overwritten_is_of_the_date_that_is_said(root):
    old = indexed_folder(root).identity
    with (root / "train/a/0.jpg").open("ab") as file:
        file.write(b"more")
    data = indexed_folder(root)
    assert indexed(data) and data.identity == old
    assert open_folder(root).identity != old  # as a run finds it


def test_a_damaged_index_is_made_anew(root, tmp_path):
    expected = indexed_folder(root).identity
    [file] = files(tmp_path)
    whole = file.read_bytes()
    header = whole.partition(b"\n")[0]
    damaged = [whole[:end] for end in (0, 1, len(header), len(header) + 9, len(whole) - 1)]
    damaged += [b"[]\n", b"{}\n", b"\xff\n", whole.replace(b'"format": "1', b'"format": "0')]
    damaged += [header + b"\n" + b"\xff" * 10**4]
    damaged += [whole.replace(b'"images": [[', b'"images": [[9'), whole.replace(b"[4, 4]", b"null")]
    for bytes_ in damaged:
        assert bytes_ != whole
        file.write_bytes(bytes_)
        data = indexed_folder(root)
        assert not indexed(data) and data.identity == expected
        assert file.read_bytes() != bytes_ and indexed(indexed_folder(root))


def test_what_cannot_be_written_is_done_without(root, tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    for _ in range(2):
        assert not indexed(indexed_folder(root))
    assert (tmp_path / "home").read_text() == "a file"


def test_a_small_folder_has_none(root, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "LARGE", 13)
    for _ in range(2):
        assert not indexed(indexed_folder(root))
    assert not files(tmp_path)


def test_what_is_wrong_is_said_as_without_an_index(root, tmp_path):
    indexed_folder(root)
    (root / "val/b").rename(root / "b")
    later(root / "val")
    with pytest.raises(ValueError, match="different classes: 'b' is in train/ alone"):
        indexed_folder(root)
    (root / "val").rename(root / "v")
    with pytest.raises(ValueError, match=r"has no val/ folder"):
        indexed_folder(root)
    with pytest.raises(ValueError, match="data directory not found"):
        indexed_folder(tmp_path / "nowhere")
