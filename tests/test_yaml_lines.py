"""Recipe files: what is read, and what is refused in one short sentence at once."""

import os
import re
import socket

import pytest

from mixbench.recipe import load_recipe
from mixbench.yaml_lines import yaml_lines

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
WRONG = {
    "": "is empty",
    "\n \n": "is empty",
    "# nothing\n": "is empty",
    "false\n": "must be `name: value` lines",
    "null\n": "must be `name: value` lines",
    "~": "must be `name: value` lines",
    "0": "must be `name: value` lines",
    "- epochs: 5\n": "must be `name: value` lines",
    "[]": "must be `name: value` lines",
    "epochs: 5\n---\nepochs: 6\n": "line 2: a second document",
    "epochs: 5\nepochs: 6\n": "gives epochs twice",
    "epochs: 5\nbatch-size: 64\nbatch_size: 8\n": "gives batch_size twice",
    LAUGHS: "unknown key 'a0'|anchors",
    f"lr: 0.1\n{LAUGHS}": "unknown key 'a0'|anchors",
    "&a [*a]": "anchors",
    "epochs: &a 5\nrecount: *a\n": "line 1: anchors",
    "epochs: *nothing\n": "line 1: anchors",
    "<<: {epochs: 5}\n": "unknown key '<<'|nested",
    "epochs: !!timestamp x\n": "line 1: the tag 'tag:yaml.org,2002:timestamp'",
    "epochs: !!int '5'\n": "the tag",
    "epochs: !!python/object/apply:os.system ['true']\n": "the tag",
    "!!set {epochs, lr}\n": "the tag",
    "epochs: !mine 5\n": "the tag '!mine'",
    "epochs: " + "[" * 1000 + "]" * 1000: "not nested",
    "[" * 10_000: "must be `name: value` lines",
    "{a: " * 1000 + "1" + "}" * 1000: "nested",
    "".join(" " * n + "a:\n" for n in range(1000)): "nested",
    "- " * 100_000: "must be `name: value` lines",
    "? " * 1000: "a name is expected",
    "[a]: 5\n": "a name is expected",
    ": 5\n": "line 1: ",
    "5: 5\n": "unknown key '5'",
    "".join(f"key{n}: {n}\n" for n in range(20_000)): "unknown key 'key0'",
    "epochs: 5\n" * 20_000: "gives epochs twice",
    "x" * 100_000 + ": 5\n": "must be `name: value` lines",
    "x" * 1000 + ": 5\n": "unknown key 'xxx",
    "epochs: '5\n": "line 2: ",
    "epochs: 5: 6\n": "line 1: ",
    "epochs:\n\t- 5\n": "line 2: ",
    "%YAML 9.0\n---\nepochs: 5\n": "line 1: ",
    "epochs: 5\0\n": "character 10, #x0000, is no text",
    "remode: {a: b}\n": "not nested",
    "opt_betas: [[0.9], [0.99]]\n": "not nested",
    "remode: [pixel]\n": "remode must be text",
    "epochs: [5]\n": "epochs must be a whole number",
    "opt_betas: [0.9]\n": "opt_betas must be 2 numbers",
    "opt_betas: []\n": "opt_betas must be 2 numbers",
    "opt_betas: [0:30, 0.9]\n": "opt_betas must be a number",
    "epochs:\n": "epochs must be a whole number, not empty",
    "clip_grad:\n": "clip_grad must be a number or null, not empty: .* write null",
    "clip_grad: ~\n": "clip_grad must be a number or null, not '~'",
    "amp: yes\n": "amp must be true or false, not 'yes'",
    "epochs: " + "9" * 400 + "\n": "at most 30 digits",
    "epochs: " + "9" * 1_000_000 + "\n": "at most 30 digits",
    "x" * 2_000_000: "larger than",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_malformed_files_end_in_a_short_sentence(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(path)
    assert re.search(r"recipe\.yaml|^\w+ must ", str(caught.value))
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs: 5 # \xe9\n", "byte 13 is not UTF-8 text"),
        ("epochs: 5\n".encode("utf-16"), "byte 1 is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "byte 1 is not UTF-8"),
    ],
)
def test_other_encodings_are_refused(tmp_path, content, message):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_recipe(tmp_path / "recipe.yaml")


def test_only_regular_files_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkdir("folder")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    for name in ("pipe", "./pipe", "./folder", "socket"):
        with pytest.raises(ValueError, match=r"no regular file|cannot read recipe"):
            load_recipe(name)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("epochs: 010   # ten\nlr: 1e-3\n", [("epochs", "010"), ("lr", "1e-3")]),
        ("epochs: 5\r\nlr: 1\r\n", [("epochs", "5"), ("lr", "1")]),
        ("---\nepochs: 5\n...\n", [("epochs", "5")]),
        ("\ufeffepochs: 5", [("epochs", "5")]),
        ("%YAML 1.2\n---\nepochs: 1:30\n", [("epochs", "1:30")]),
        ("mean: [0.5, 00, 01,]\n", [("mean", ["0.5", "00", "01"])]),
        ("mean:\n- 0.5\n- .nan\n- 2001-01-01\n", [("mean", ["0.5", ".nan", "2001-01-01"])]),
        ("'aa': \"null\"\n? lr\n: yes\n", [("aa", "null"), ("lr", "yes")]),
        ("aa: |\n  3\n", [("aa", "3\n")]),
        ("{}", []),
    ],
)
def test_what_stands_there_is_read_as_text(tmp_path, text, lines):
    path = tmp_path / "r.yaml"
    path.write_bytes(text.encode())
    assert list(yaml_lines(path)) == lines
