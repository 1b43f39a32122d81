"""Files are whole or as they were, and nothing but a file is replaced."""

import errno
import os
import stat

import pytest

from mixbench.files import WriteError, replace_file, replacing, trouble
from tests.support.odd_files import ODD, make


def test_a_file_is_new_or_replaced(tmp_path):
    file = tmp_path / "deep" / "file.txt"
    replace_file(file, "first")
    replace_file(file, "second, é")
    assert file.read_text(encoding="utf-8") == "second, é"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [KeyError("ours"), KeyboardInterrupt(), OSError(28, "full")])
def test_what_fails_leaves_nothing(error, tmp_path):
    file = tmp_path / "file.txt"
    file.write_text("before")
    with pytest.raises((KeyError, KeyboardInterrupt, WriteError)), replacing(file) as partial:
        partial.write_text("half")
        raise error
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", ["file.txt", "file.txt.partial"])
def test_what_is_no_file_is_neither_replaced_nor_followed(kind, place, tmp_path):
    target = tmp_path / "victim"
    target.write_text("mine")
    make(kind, tmp_path / place, target)
    mode = os.lstat(tmp_path / place).st_mode
    with pytest.raises(WriteError, match=f"{place} is a .*, which mixbench does not write: remove"):
        replace_file(tmp_path / "file.txt", "ours")
    assert target.read_text() == "mine" and os.lstat(tmp_path / place).st_mode == mode


def test_a_device_is_no_file(tmp_path, monkeypatch):
    file = tmp_path / "file.txt"
    file.write_text("a device, as the system says")
    lstat = os.lstat

    def played(path, **options):
        if str(path) == str(file):
            return os.stat_result([stat.S_IFBLK | 0o660, *lstat(path)[1:]])
        return lstat(path, **options)

    monkeypatch.setattr(os, "lstat", played)
    with pytest.raises(WriteError, match="is a device"):
        replace_file(file, "ours")
    assert file.read_text() == "a device, as the system says"


def test_what_a_killed_process_left_is_replaced(tmp_path):
    file, partial = tmp_path / "file.txt", tmp_path / "file.txt.partial"
    partial.write_text("half of an older")
    replace_file(file, "whole")
    assert file.read_text() == "whole" and not partial.exists()


def test_a_file_stays_as_readable_as_it_was(tmp_path):
    file, new = tmp_path / "file.txt", tmp_path / "new.txt"
    file.write_text("private")
    file.chmod(0o600)
    before = os.umask(0o027)
    try:
        replace_file(file, "still private")
        replace_file(new, "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_called_so(number, tmp_path):
    file = tmp_path / "file.txt"
    words = r"cannot write .*file.txt: .*disk"
    with pytest.raises(WriteError, match=words) as caught, replacing(file):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number and list(tmp_path.iterdir()) == []


def test_torchs_writer_hides_the_systems_error(tmp_path):
    file = tmp_path / "file.pt"
    message = "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"
    with pytest.raises(WriteError, match="the disk is full"), replacing(file):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="another"), replacing(file):
        raise RuntimeError("another")


def test_words_of_the_system():
    assert trouble(PermissionError(13, "Permission denied")) == "permission denied"
    assert trouble(OSError("odd")) == "odd"
