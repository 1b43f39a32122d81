"""Recipe files: right, odd and malformed ones, each with what is to become of it."""

import functools
import random
import re
from collections.abc import Callable
from pathlib import Path

from mixbench.recipe import config_dir
from tests.fuzz.ends import ACCEPT, EITHER, REFUSE, Case
from tests.fuzz.fields import FIELDS, NULLS, SWITCHES, TEXTS, TUPLES, WORDS, expected
from tests.fuzz.meanings import NONSENSE, NUMBERS, PERHAPS, number_texts

QUICK = (config_dir() / "quick.yaml").read_text(encoding="utf-8")
EMPTY = ("&a", "!", "|", ">", "#", "# 5", "!!binary aGk=", "!!set {a}")  # perhaps of no value
LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
BLOCKS = "".join(" " * n + "a:\n" for n in range(1000))
MANY = "".join(f"key{n}: {n}\n" for n in range(20_000))

WRONG = {  # what each is -> its text
    "empty": "",
    "lines without anything": "\n\n \n",
    "comments alone": "# nothing\n",
    "false": "false\n",
    "null": "null\n",
    "a tilde": "~\n",
    "zero": "0\n",
    "a number": "5\n",
    "a text": "epochs 5\n",
    "a quoted text": '""\n',
    "a list": "- epochs: 5\n- lr: 1\n",
    "an empty list": "[]\n",
    "a list of a recipe": f"[{{{', '.join(['epochs: 5'])}}}]\n",
    "a second document": f"{QUICK}---\nepochs: 5\n",
    "an unknown key": f"{QUICK}epoch: 5\n",
    "a key twice": f"{QUICK}epochs: 5\n",
    "a key twice, spelt otherwise": f"{QUICK}batch-size: 32\n",
    "20,000 keys": MANY,
    "20,000 lines of one key": "epochs: 5\n" * 20_000,
    "20,000 keys after a recipe": QUICK + MANY,
    "20,000 anchors": "".join(f"key{n}: &a{n} {n}\n" for n in range(20_000)),
    "a billion laughs": LAUGHS,
    "a billion laughs after a recipe": QUICK + LAUGHS,
    "laughs in a field": f"{QUICK}mean: &a [*a, *a]\n",
    "an anchor of itself": "&a [*a]\n",
    "a map of itself": "&a {epochs: *a}\n",
    "an unknown anchor": f"{QUICK}recount: *nothing\n",
    "1,000 brackets": "epochs: " + "[" * 1000 + "]" * 1000 + "\n",
    "10,000 brackets": "[" * 10_000,
    "1,000 braces": "{a: " * 1000 + "1" + "}" * 1000 + "\n",
    "1,000 blocks": BLOCKS,
    "1,000 dashes": "- " * 1000 + "1\n",
    "100,000 dashes": "- " * 100_000,
    "1,000 question marks": "? " * 1000,
    "a tag of Python": "epochs: !!python/object/apply:os.system ['true']\n",
    "a tag of Python above": "!!python/name:os.system\n",
    "a time stamp of nothing": "epochs: !!timestamp x\n",
    "a tagged set": "!!set {epochs, lr}\n",
    "an ordered map": "!!omap [epochs: 5]\n",
    "a private tag": "epochs: !mine 5x\n",
    "a binary": "epochs: !!binary aGk\n",
    "a merge of a number": "<<: 5\n",
    "a merge of a list": f"{QUICK}<<: [1, 2]\n",
    "a merge of unknown keys": f"{QUICK}<<: {{nonsense: 5}}\n",
    "a list as a key": "[a]: 5\n",
    "a map as a key": "{a: b}: 5\n",
    "no key": ": 5\n",
    "null as a key": "null: 5\n",
    "a number as a key": "5: 5\n",
    "true as a key": "true: 5\n",
    "a date as a key": "2001-01-01: 5\n",
    "an escape in a key": '"\\x1b[31m": 5\n',
    "a line break in a key": '"a\\nb": 5\n',
    "a key of 100,000 letters": "x" * 100_000 + ": 5\n",
    "a key of 1,000 letters": "x" * 1000 + ": 5\n",
    "an open quote": "epochs: '5\n",
    "an open double quote": 'epochs: "5\n',
    "an open bracket": "mean: [0.5, 0.5, 0.5\n",
    "a bracket too many": "mean: [0.5, 0.5, 0.5]]\n",
    "a colon too many": "epochs: 5: 6\n",
    "no colon": f"{QUICK}recount 5\n",
    "odd indentation": f"{QUICK}  recount: 5\n",
    "tabs for indentation": "epochs:\n\t- 5\n",
    "a directive alone": "%YAML 1.2\n",
    "an unknown directive": "%FOO\n---\n",
    "YAML 9": "%YAML 9.0\n---\nepochs: 5\n",
    "JSON that ends": '{"epochs": 5,',
    "a map in a text": f"{QUICK}remode: {{a: b}}\n",
    "a list in a text": f"{QUICK}remode: [pixel]\n",
    "a list in a number": f"{QUICK}recount: [1]\n",
    "a map in a pair": f"{QUICK}opt_betas: {{0.9: 0.99}}\n",
    "one number of two": f"{QUICK}opt_betas: [0.9]\n",
    "three numbers of two": f"{QUICK}opt_betas: [0.9, 0.9, 0.9]\n",
    "lists in a pair": f"{QUICK}opt_betas: [[0.9], [0.99]]\n",
    "nothing in a pair": f"{QUICK}opt_betas: []\n",
    "null in a pair": f"{QUICK}opt_betas: [0.9, null]\n",
    "sixties in a pair": f"{QUICK}opt_betas: [0:30, 0.9]\n",
    "nan in a pair": f"{QUICK}opt_betas: [.nan, 0.9]\n",
    "a switch of 2": f"{QUICK}amp: 2\n",
    "a switch of text": f"{QUICK}amp: maybe\n",
    "a switch of null": f"{QUICK}amp: null\n",
    "a switch of a list": f"{QUICK}amp: [true]\n",
    "an escape in a value": f'{QUICK}remode: "\\x1b[31m"\n',
    "lines in a value": f"{QUICK}remode: |\n  a\n  b\n",
    "a NUL": f"{QUICK}recount: 1\0\n",
    "a NUL alone": "\0",
    "NULs": "\0" * 5000,
    "a form feed": "epochs: 5\f6\n",
    "a bell": "\a",
    "a non-character": "epochs: \ufffe\n",
    "400 digits": f"{QUICK}recount: {'9' * 400}\n",
    "5,000 digits": f"{QUICK}recount: {'9' * 5000}\n",
    "1,000,000 digits": f"{QUICK}recount: {'9' * 1_000_000}\n",
}
RIGHT = {  # what each is -> its text, and a field with what it then says
    "the recipe": (QUICK, "epochs", 7),
    "Windows' line ends": (QUICK.replace("\n", "\r\n"), "epochs", 7),
    "no last line end": (QUICK.rstrip("\n"), "epochs", 7),
    "a document's marks": (f"---\n{QUICK}...\n", "epochs", 7),
    "hyphens": (QUICK.replace("batch_size: 64", "batch-size: 64"), "batch_size", 64),
    "a list of lines": (f"{QUICK}opt_betas:\n- 0.9\n- 0.99\n", "opt_betas", [0.9, 0.99]),
    "a comment behind": (f"{QUICK}recount: 3   # boxes\n", "recount", 3),
    "zeros before": (f"{QUICK}recount: 010\n", "recount", 10),
    "zeros before, in a pair": (f"{QUICK}mean: [0.5, 00, 01]\n", "mean", [0.5, 0, 1]),
}
PERHAPS_RIGHT = {  # as RIGHT, where a refusal is right as well
    "a byte order mark": ("\ufeff" + QUICK, "epochs", 7),
    "a tab behind a colon": (f"{QUICK}recount:\t3\n", "recount", 3),
    "quotes": (f'{QUICK}recount: "3"\n', "recount", 3),
    "quoted keys": (f'{QUICK}"recount": 3\n', "recount", 3),
    "a quoted escape": (f'{QUICK}recount: "\\u0033"\n', "recount", 3),
    "a question": (f"{QUICK}? recount\n: 3\n", "recount", 3),
    "a block": (f"{QUICK}recount: |\n  3\n", "recount", 3),
    "a fold": (f"{QUICK}recount: >-\n  3\n", "recount", 3),
    "a value on its line": (f"{QUICK}recount:\n  3\n", "recount", 3),
    "an anchor": (f"{QUICK}recount: &a 3\n", "recount", 3),
    "an alias": (f"{QUICK}recount: &a 3\nlr_epoch_lag: *a\n", "recount", 3),
    "a merge": (f"{QUICK}<<: {{recount: 3}}\n", "recount", 3),
    "a tagged integer": (f'{QUICK}recount: !!int "3"\n', "recount", 3),
    "a tagged text": (f"{QUICK}recount: !!str 3\n", "recount", 3),
    "a private tag": (f"{QUICK}recount: !mine 3\n", "recount", 3),
    "a pair as on the command line": (f"{QUICK}mean: 0.5,0,1\n", "mean", [0.5, 0, 1]),
    "a directive": (f"%YAML 1.2\n---\n{QUICK}", "epochs", 7),
    "a comma at the end": (f"{QUICK}mean: [0.5, 0, 1,]\n", "mean", [0.5, 0, 1]),
    "100,000 comments": ("# nothing\n" * 100_000 + QUICK, "epochs", 7),
    "10 MB of blanks": (f"{QUICK}{' ' * 10_000_000}\n", "epochs", 7),
}
ENCODED: list[tuple[str, bytes]] = [
    ("UTF-16", QUICK.encode("utf-16")),
    ("UTF-16 without a mark", QUICK.encode("utf-16-le")),
    ("UTF-32", QUICK.encode("utf-32")),
    ("Latin-1 in a comment", QUICK.encode() + b"# \xe9\xff\n"),
    ("Latin-1 in a value", QUICK.encode() + b"remode: \xe9\xff\n"),
    ("half a letter", QUICK.encode() + "# é".encode()[:-1]),
    ("a surrogate", QUICK.encode() + b"# \xed\xa0\x80\n"),
    ("gzip", b"\x1f\x8b\x08\x00" + bytes(range(256))),
    ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8),
]


def _writer(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "recipe.yaml").write_bytes(content) and None


def _case(
    content: str | bytes,
    expect: str = EITHER,
    names: tuple[str, ...] = (),
    shown: dict[str, object] | None = None,
    context: tuple[str, ...] = (),
) -> Case:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    argv = ("--config", "recipe.yaml", *context, "--print-recipe")
    return Case(argv, expect, names, shown or {}, files=_writer(raw))


def with_field(name: str, text: str) -> str:
    """The quick recipe in which a field has this text."""
    lines = [line for line in QUICK.splitlines() if not re.match(rf"{name}\s*:", line)]
    return "\n".join([*lines, f"{name}: {text}", ""])


def _fields(rng: random.Random) -> list[Case]:
    cases = []
    for number, (name, field) in enumerate(FIELDS.items()):
        drawn = number_texts(number + 100)[len(NUMBERS) + len(PERHAPS) + len(NONSENSE) :]
        chosen = [*rng.sample(NUMBERS, 12), *rng.sample([*PERHAPS, *NONSENSE], 25)]
        for text in [*chosen, *rng.sample(drawn, 8), rng.choice(NULLS)]:
            expect, shown = expected(name, text)
            odd = text.strip().startswith(("&", "!", "|", ">", "#", "'", '"', "%", "*", "-\n"))
            if field.nullable and (text in EMPTY or odd or text.strip() == ""):
                expect, shown = EITHER, {}
            elif odd and expect == ACCEPT:
                expect = EITHER
            content = with_field(name, text)
            cases.append(_case(content, expect, (name, "recipe.yaml"), shown, field.context))
    return cases


def _others(rng: random.Random) -> list[Case]:
    cases = []
    for name in SWITCHES:
        beside = ("--headline", "raw")
        for text, value in {"true": True, "false": False}.items():
            cases.append(_case(with_field(name, text), ACCEPT, (name,), {name: value}, beside))
        for text in ("2", "maybe", "[true]", "null", "{}", "1.5", "truefalse", "-", "1:30", "nan"):
            cases.append(_case(with_field(name, text), REFUSE, (name, "recipe.yaml"), {}, beside))
        for text, value in {"True": True, "yes": True, "off": False, "'true'": True}.items():
            cases.append(_case(with_field(name, text), EITHER, (name,), {name: value}, beside))
    for name in (*WORDS, *TEXTS, *TUPLES):
        for text in rng.sample(NONSENSE, 12):
            cases.append(_case(with_field(name, text), EITHER, (name, "recipe.yaml")))
    return cases


def _listed() -> list[Case]:
    cases = [_case(text, REFUSE) for text in WRONG.values()]
    for expect, listed in ((ACCEPT, RIGHT), (EITHER, PERHAPS_RIGHT)):
        for text, name, value in listed.values():
            cases.append(_case(text, expect, (), {name: value}))
    return cases + [_case(content, EITHER) for _, content in ENCODED]


def _mutated(rng: random.Random) -> list[Case]:
    """The recipe with some letters, lines or bytes changed, and letters that look like YAML."""
    marks = [*":-?[]{}#&*!|>'\"%@`,\n\t ~<=", "- ", ": ", "\n  ", "&a ", "*a", "!!", "<<: "]
    cases = []
    for _ in range(250):
        text = list(QUICK)
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(text))
            text[at : at + rng.choice([0, 0, 1, 1, 40])] = rng.choice(marks) * rng.choice([1, 1, 9])
        cases.append(_case("".join(text)))
    for _ in range(100):
        lines = QUICK.splitlines(keepends=True)
        for _ in range(3):
            lines.insert(rng.randrange(len(lines)), lines.pop(rng.randrange(len(lines))))
        if rng.random() < 0.5:
            lines.insert(0, rng.choice(lines).replace(" ", "", rng.randint(0, 1)))
        cases.append(_case("".join(lines)))
    for _ in range(100):
        cases.append(
            _case("".join(rng.choices([*marks, "epochs", "lr", "5"], k=rng.randint(1, 60))))
        )
    for _ in range(50):
        cases.append(_case(rng.randbytes(rng.randint(1, 400))))
    return cases


@functools.cache
def yaml_files() -> list[Case]:
    """All of them, in an order that never changes."""
    rng = random.Random("recipe files")
    return [*_listed(), *_fields(rng), *_others(rng), *_mutated(rng)]
