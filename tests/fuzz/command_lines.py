"""Command lines with odd values, each with what is to become of it; by number, always the same."""

import functools
import os
import random
import socket
from pathlib import Path

from tests.fuzz.ends import ACCEPT, EITHER, REFUSE, Case
from tests.fuzz.fields import (
    FIELDS,
    NULLS,
    SWITCHES,
    TEXTS,
    TUPLES,
    WORDS,
    expected,
    expected_tuple,
)
from tests.fuzz.meanings import NONSENSE, NUMBERS, PERHAPS, number_texts
from tests.fuzz.specs import RIGHT, UNSURE, WRONG

QUICK = ("--config", "quick")
FAST = ("--speed-model", "test_vit", "--speed-image-size", "32", "--rounds", "1")
SHORT = (*QUICK, *FAST, "--mode", "speed", "--dry-run")


def _given(name: str, text: str, rng: random.Random) -> list[str]:
    """An option with its value, in one of the ways that it can be written."""
    option = f"--{rng.choice([name, name.replace('_', '-')])}"
    return [f"{option}={text}"] if text.startswith("-") or rng.random() < 0.5 else [option, text]


def _possible(texts: list[str]) -> list[str]:
    """The texts that a process can be given: none with a NUL."""
    return [text for text in texts if "\0" not in text]


def _fields(rng: random.Random) -> list[Case]:
    cases = []
    for number, (name, field) in enumerate(FIELDS.items()):
        texts = number_texts(number)
        odd = rng.sample([*PERHAPS, *NONSENSE], 50)
        drawn = texts[len(NUMBERS) + len(PERHAPS) + len(NONSENSE) :]
        chosen = [*NUMBERS, *odd, *drawn, *NULLS, *filter(None, [field.word])]
        for text in _possible(chosen):
            expect, shown = expected(name, text)
            argv = (*QUICK, *field.context, *_given(name, text, rng), "--print-recipe")
            cases.append(Case(argv, expect, (name,), shown))
    return cases


def _tuples(rng: random.Random) -> list[Case]:
    cases = []
    for name, rule in TUPLES.items():
        texts = [*NONSENSE, *PERHAPS, *NUMBERS]
        for _ in range(60):
            numbers = [f"{rng.uniform(0.1, 1):.3g}" for _ in range(rule.count)]
            if rng.random() < 0.7:
                numbers[rng.randrange(rule.count)] = rng.choice([*NUMBERS, *PERHAPS, *NONSENSE])
            count = rng.choice([0, rule.count - 1, rule.count + 1, *[rule.count] * 5])
            text = rng.choice([",", ",", ", ", ",,", ";", " "]).join((numbers * 2)[:count])
            texts.append(rng.choice(["{}", "{}", "[{}]", "({})", "[{}", "{}]"]).replace("{}", text))
        rising = sorted(rng.uniform(0.1, 0.99) for _ in range(rule.count))
        texts += [",".join(f"{number:.3f}" for number in rising), "0.5," * 2000, "0,00,000", "1,2"]
        for text in _possible(texts):
            expect, shown = expected_tuple(name, text)
            argv = (*QUICK, *_given(name, text, rng), "--print-recipe")
            cases.append(Case(argv, expect, (name,), shown))
    return cases


def _words(rng: random.Random) -> list[Case]:
    cases = []
    for name, words in WORDS.items():
        context = ("--model-ema",) if name == "headline" else ()
        odd = [words[0].upper(), f" {words[0]} ", words[0][:-1], f"'{words[0]}'", f"{words[0]}\n"]
        for text in [*words, *odd, *_possible(rng.sample([*NUMBERS, *NONSENSE], 25))]:
            plain = text.strip(" '\n").lower()
            expect = ACCEPT if text in words else EITHER if plain in words else REFUSE
            argv = (*QUICK, *context, *_given(name, text, rng), "--print-recipe")
            cases.append(Case(argv, expect, (name,), {name: plain} if expect != REFUSE else {}))
    for name in SWITCHES:
        for text in ("1", "true", "", "no", "\x1b[31m"):
            option = f"--{name.replace('_', '-')}"
            for argv in ((f"{option}={text}",), (option, text), (f"--no-{option[2:]}={text}",)):
                cases.append(Case((*QUICK, *argv, "--print-recipe"), REFUSE))
        cases.append(Case((*QUICK, f"--no-{option[2:]}", "--print-recipe"), ACCEPT))
        cases.append(Case((*QUICK, f"--no_{name}", "--print-recipe"), EITHER, (), {name: False}))
    for text in ("true", "false", "null", "True", "yes", "1", "on", "", "maybe", "[true]", "0"):
        plain = text in ("true", "false", "null")
        expect = ACCEPT if plain else REFUSE if text in ("maybe", "[true]") else EITHER
        argv = (*QUICK, f"--gradient-amp={text}", "--print-recipe")
        shown = {"gradient_amp": {"true": True, "false": False, "null": None}.get(text)}
        cases.append(Case(argv, expect, ("gradient_amp",), shown if plain else {}))
    for name in TEXTS:
        for text in _possible([*rng.sample(NONSENSE, 30), "null", "null ", ""]):
            argv = (*QUICK, *_given(name, text, rng), "--print-recipe")
            cases.append(Case(argv, EITHER, (name,)))
    return cases


def _counts() -> list[Case]:
    """Options that count: --rounds, --seeds, --limit-train, --workers, ..."""
    wrong = [
        *("0", "-1", "1.5", "1e3", "²", "½", "", " ", "x", "1:30", "nan", "inf", "0x10", "5,5"),
        *("1__0", "[5]", "9" * 5000, "[" * 1000, "\x1b[31m"),
        *("5\x7f", "--5", "5-", "None", "x" * 9999),
    ]  # fmt: skip
    right = {"1": 1, "2": 2, "010": 10, "0064": 64, "7": 7}
    cases = []
    names = ("rounds", "limit-train", "limit-val", "workers", "val-interval", "side-by-side")
    for name in names:
        for text in wrong:
            expect = EITHER if (name, text) == ("workers", "0") else REFUSE
            cases.append(Case((*SHORT, f"--{name}={text}"), expect, (name,)))
        for text, number in right.items():
            says = (f" {number} rounds",) if name == "rounds" else ()
            expect = EITHER if "limit" in name else ACCEPT  # ten classes need ten images
            cases.append(Case((*SHORT, f"--{name}={text}"), expect, (name,), says=says))
        for text in ("＋5", "５", "+5", " 5 ", "1_0", "5\n", "٣", "1000000"):
            cases.append(Case((*SHORT, f"--{name}={text}"), EITHER, (name,)))
    for text in (
        "0,0",
        "0,00",
        "1,01",
        ",",
        "",
        "0,",
        ",0",
        "-1",
        "1.5",
        "0;1",
        "0 1",
        "0..3",
        "²",
    ):
        expect = EITHER if text == "0," else REFUSE
        cases.append(Case((*QUICK, *FAST, f"--seeds={text}", "--dry-run"), expect, ("seeds",)))
    for text in (
        str(2**63),
        "9" * 400,
        "9" * 5000,
        "1e3",
        "0x1",
        "1:30",
        "1_0,10",
        "[0,1]",
        "0,0x0",
    ):
        expect = EITHER if text == "[0,1]" else REFUSE
        cases.append(Case((*QUICK, *FAST, f"--seeds={text}", "--dry-run"), expect, ("seeds",)))
    for text, number in {"0": 1, "0,1,2": 3, "007,8": 2, str(2**63 - 1): 1, "3, 4": 2}.items():
        says = (f" {number} seeds",)
        cases.append(
            Case((*QUICK, *FAST, f"--seeds={text}", "--dry-run"), ACCEPT, ("seeds",), says=says)
        )
    return cases


def _specs() -> list[Case]:
    cases = []
    for text, said in RIGHT.items():
        argv = (*SHORT, f"--strategies={text}")
        cases.append(Case(argv, ACCEPT, says=(f"would run   {said}\n",)))
    for texts, expect in ((WRONG, REFUSE), (UNSURE, EITHER)):
        for text in _possible(texts):
            cases.append(Case((*SHORT, f"--strategies={text}"), expect))
    return cases


def _relations() -> list[Case]:
    """Options that exclude each other, or that need each other."""
    dry = ("--dry-run",)
    wrong = [
        (("--data", "folder", "--dataset", "scenes"), "data"),
        (("--mode", "accuracy", "--profile"), "profile"),
        (("--mode", "accuracy", "--peers"), "peers"),
        (("--headline", "ema", "--no-model-ema"), "ema"),
        (("--augment-on", "device", "--aa", "augmix-m5-w4-d2"), "aa"),
        (("--scale", "0.9,0.1"), "scale"),
        (("--ratio", "2,1"), "ratio"),
        (("--scale", "1,2"), "scale"),
        (("--color-jitter=-0.4",), "color_jitter"),
        (("--opt-betas", "2,2"), "betas"),
        (("--opt-betas", "0.9,1"), "betas"),
        (("--epochs", "5", "--warmup-epochs", "5"), "warmup_epochs"),
        (("--config", "deit_small", "--epochs", "10"), "warmup_epochs"),
        (("--min-lr", "1", "--lr", "0.1"), "min_lr"),
        (("--warmup-lr", "1", "--lr", "0.1"), "warmup_lr"),
        (("--image-size", "36", "--patch-size", "8"), "image_size"),
        (("--image-size", "200", "--config", "deit_small"), "image_size"),
        (("--speed-image-size", "200"), "image_size"),
        (("--embed-dim", "97", "--num-heads", "3"), "embed_dim"),
        (("--model", "vit_tiny_patch16_224.augreg_in21k"), "model"),
        (("--model", "vit_tiny_patch16_224x"), "model"),
        (("--model", "nonsense"), "nonsense"),
        (("--speed-model", "nonsense"), "nonsense"),
        (("--opt", "nonsense"), "nonsense"),
        (("--aa", "nonsense"), "nonsense"),
        (("--device", "nonsense"), "nonsense"),
        (("--device", ""), "device"),
        (("--device", "cuda:99"), "cuda"),
        (("--dataset", "nonsense"), "nonsense"),
        (("--mode", "nonsense"), "nonsense"),
        (("--cache", "disk"), "disk"),
        (("--micro-batch", "1"), "micro_batch"),
        (("--batch-size", "1"), "batch_size"),
        (("--plugin", "missing.py"), "missing.py"),
        (("--strategie", "cutmix"), "strategie"),
        (("--lr",), "lr"),
        (("--lr", "--epochs", "5"), "lr"),
        (("surplus",), "surplus"),
        (("--data",), "data"),
        (("--data", "missing"), "missing"),
        (("--data", "foreign.csv"), "foreign.csv"),
        (("--data", "pipe"), "pipe"),
        (("--data", "folder"), "folder"),
        (("--data", ""), ""),
        (("--workers", "-1"), "workers"),
        (("--=5",), ""),
        (("-x",), "-x"),
        (("--" + "x" * 5000,), "xxx"),
        (("--\x1b[31m",), "option"),
    ]
    right = [
        ("--epochs", "5", "--warmup-epochs", "4"),
        ("--batch-size", "8"),
        ("--batch-size", "37", "--micro-batch", "auto"),
        ("--config", "deit_small", "--epochs", "10", "--warmup-epochs", "2"),
        ("--image-size", "40", "--patch-size", "8"),
        ("--model", "vit_tiny_patch16_224", "--device", "cpu"),
        ("--dataset", "scenes", "--limit-train", "100", "--limit-val", "50"),
        ("--mode", "speed", "--rounds", "2"),
    ]
    cases = [Case((*argv, *dry), REFUSE, (name,), files=meet) for argv, name in wrong]
    # a dry run of DeiT-S at 224 px tries steps of its own size
    return cases + [Case((*argv, *dry), ACCEPT, files=meet, limit=90) for argv in right]


def meet(folder: Path) -> None:
    """Make what a path can lead to: a folder, a pipe, a socket, foreign files, links."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "foreign.csv").write_text("name,age\nAda,36\n")
    (folder / "foreign.json").write_text('{"name": "Ada"}\n')
    (folder / "empty.csv").touch()
    (folder / "link.csv").symlink_to("foreign.csv")
    (folder / "gone.csv").symlink_to("nothing")
    (folder / "loop").symlink_to("loop")
    where = os.getcwd()
    os.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    os.chdir(where)


def _paths() -> list[Case]:
    long, dry = "x" * 300, (*QUICK, *FAST, "--dry-run")
    odd = ["pipe", "socket", "loop", "foreign.csv/x.csv", "pipe/x", f"{long}.csv", "loop/x"]
    cases = []
    for option in ("--csv", "--json"):
        for path in [*odd, "folder", "foreign.csv", "foreign.json", "link.csv", ".", ".."]:
            cases.append(Case((*dry, option, path), REFUSE, (path[:20].split("/")[0],), files=meet))
        for path in ("empty.csv", "new.csv", "folder/new.csv"):
            cases.append(Case((*dry, option, path), ACCEPT, files=meet))
        for path in ("gone.csv", "new/new.csv", "", "ä.csv", "a b.csv", "\x1b.csv", "\udcff.csv"):
            cases.append(Case((*dry, option, path), EITHER, files=meet))
        for path in ("recipe.yaml", "runs.csv", "state-seed0.pt", ".lock", "../out/runs.csv"):
            argv = (*dry, "--out", "out", option, f"out/{path}")
            cases.append(Case(argv, REFUSE, (option,), files=meet))
    cases.append(Case((*dry, "--csv", "a.csv", "--json", "./a.csv"), REFUSE, files=meet))
    for path in [*odd, "foreign.csv"]:
        cases.append(Case((*dry, "--out", path), REFUSE, (path[:20], "out"), files=meet))
    for path in ("folder", "new", "new/new"):
        cases.append(Case((*dry, "--out", path), ACCEPT, files=meet))
    for path in ("", ".", "gone.csv", "\x1b[31m", "\udcff", "-"):
        cases.append(Case((*dry, f"--out={path}"), EITHER, files=meet))
    recipe = (*dry[2:], "--print-recipe")
    for path in (
        *odd,
        "folder",
        "foreign.csv",
        "a/b/deit_small",
        "missing",
        "loop",
        "a/quick.yaml",
    ):
        cases.append(Case((*recipe, "--config", path), REFUSE, (path[:20],), files=meet))
    for path in ("quick", "deit_small", "pvt_tiny"):
        cases.append(Case((*recipe, "--config", path), ACCEPT, files=meet))
    for path in (
        "",
        ".",
        "empty.csv",
        "QUICK",
        "\udcff",
        "\x1b[31m",
        "./quick",
        "quick.yml",
        "x\ny",
    ):
        cases.append(Case((*recipe, f"--config={path}"), EITHER, files=meet))
    return cases


PLUGINS = {
    "syntax.py": b"def (:\n",
    "latin.py": b"name = '\xe9\xff'\n",
    "nul.py": b"x = 1\0\n",
    "raises.py": b"raise RuntimeError('no luck')\n",
    "silent.py": b"raise RuntimeError\n",
    "long.py": b"raise RuntimeError('x' * 100000)\n",
    "lines.py": b"raise RuntimeError('a\\nb\\x1b[31m')\n",
    "exits.py": b"import sys\nsys.exit(0)\n",
    "exits3.py": b"raise SystemExit('bye')\n",
    "imports.py": b"import no_such_module\n",
    "deep.py": b"def f(): return f()\nf()\n",
    "taken.py": b"from mixbench import register_strategy\n"
    b"from mixbench.strategies.cutmix import CutMix\n"
    b"@register_strategy('cutmix')\nclass Mine(CutMix): ...\n",
    "nameless.py": b"from mixbench import register_strategy\n"
    b"@register_strategy('')\nclass Mine: ...\n",
}


def _meet_plugins(folder: Path) -> None:
    meet(folder)
    for name, content in PLUGINS.items():
        (folder / name).write_bytes(content)


def _commands() -> list[Case]:
    """The other commands, and plug-ins."""
    cases = []
    for name in ("list", "--list"):
        wrong = [*PLUGINS, "folder", "pipe", "socket", "loop", "missing", "x" * 300, "gone.csv"]
        for path in wrong:
            cases.append(Case((name, "--plugin", path), REFUSE, (path[:20],), files=_meet_plugins))
    for path in ("missing", "folder", "pipe", "foreign.csv", "loop", "socket", "", "x" * 300):
        cases.append(Case(("report", path), REFUSE, (path[:20],), files=meet))
        cases.append(Case(("report", path, path), REFUSE, files=meet))
    for argv in (("report",), ("report", "--out"), ("report", "--nonsense"), ("report", "-")):
        cases.append(Case(argv, REFUSE, files=meet))
    for argv in (("zoo", "x"), ("list", "x"), ("sweep", "--list"), ("sweep", "--print-recipe")):
        cases.append(Case(argv, REFUSE))
    for name in ("benhc", "", " ", "x" * 5000, "\x1b[31m", "a\nb", "\udcff", "report\0"[:-1] + "s"):
        cases.append(Case((name,), REFUSE))
    for option in ("--gpus", "--cpus", "--parallel", "--hours"):
        for text in ("-1", "nan", "x", "", "1e400", "1:30", "²", "[" * 1000, "9" * 5000):
            argv = ("sweep", "--cluster", "local", f"{option}={text}", "--dry-run", *QUICK)
            cases.append(Case(argv, REFUSE, (option,)))
    for argv in (("list",), ("--list",), ("--help",), ("zoo",), ("report", "--help")):
        cases.append(Case(argv, ACCEPT))
    return cases


LINES = (
    "--strategies cutmix,transmix(attention_weight=1.0) --epochs 5 --lr 1e-3",
    "--strategies alternate(first=cutmix,second=mixup(alpha=0.2)) --batch-size 64 --seeds 0,1",
    "--scale 0.08,1 --ratio 0.75,1.33 --aa rand-m9-mstd0.5-inc1 --hflip 0.5 --no-amp",
    "--mode speed --rounds 3 --speed-image-size 64 --speed-batch-size 2",
    "--opt adamw --opt-betas 0.9,0.999 --weight-decay 0.05 --clip-grad null --micro-batch auto",
)


def _mutated(rng: random.Random) -> list[Case]:
    """Right command lines of which some letters were changed."""
    letters = "abz019.,-=()[]{}'\"* \t\x1b\x7fé√\\/:#_%$"
    cases = []
    for _ in range(400):
        line = list(rng.choice(LINES))
        for _ in range(rng.randint(1, 4)):
            at, kind = rng.randrange(len(line)), rng.random()
            if kind < 0.4:
                line[at] = rng.choice(letters)
            elif kind < 0.6:
                del line[at]
            elif kind < 0.9:
                line.insert(at, rng.choice(letters) * rng.choice([1, 1, 2, 200]))
            else:
                line[at:at] = line[: rng.randrange(len(line))]
        argv = "".join(line).split(" ")
        cases.append(Case((*argv, *QUICK, "--print-recipe"), EITHER))
    return cases


@functools.cache
def command_lines() -> list[Case]:
    """All of them, in an order that never changes."""
    rng = random.Random("command lines")
    cases = [*_fields(rng), *_tuples(rng), *_words(rng), *_counts(), *_specs(), *_relations()]
    return [*cases, *_paths(), *_commands(), *_mutated(rng)]
