"""What a text looks like to a careful reader: a number, or none."""

import random
import re
import unicodedata

PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"-?[0-9]+")
BASES = re.compile(r"([+-]?)0([xob])([0-9a-f]+)")
NUMBERS = [  # that anyone reads alike
    *("0", "1", "2", "8", "10", "010", "064", "0064", "007", "08", "09", "016", "0100", "32"),
    *("0.5", "0.25", "1e-3", "1E-3", "5e-4", "1e3", "1e+3", "-1", "-0.5", "-010", "1e-05"),
    *("0.999", "100", "0.10", "1.0", "3.5", "96", "64", "128", "9007199254740993", "0.0", "00"),
]
PERHAPS = [  # numbers to some
    *("+5", " 8 ", "８", "６４", "1_000", "0x10", "0o10", "0b100", ".5", "5.", "8.0", "-0", "-0.0"),
    *("1e-400", "٨", "8\n", "8\t", "'8'", '"8"', "8 # eight", "+.5e1", "00.5", "000", "0e0"),
    *("\u00a08", "08.5", "-1e-3", "1_0", "0_8"),
]
NONSENSE = [  # to everyone
    *("1:30", "190:20:30", "1:0", "12:30:45.5", "nan", ".nan", "NaN", "inf", ".inf", "-inf"),
    *("-.inf", "Infinity", "1e400", "-1e999", "1e999999999", "yes", "true", "On", "abc", "--5"),
    *("5-", "5 5", "[5]", "{5: 6}", "1__0", "_1", "1_", "0,5", "1 000", "1,000", "0.1.2", "1e"),
    *("e1", "1e5e5", "1/2", "50%", "1j", "5L", "0x", "0b2", "0o9", "²", "½", "Ⅷ", "١٢:٣٠"),
    *("2001-01-01", "2001-01-01 10:00:00", "!!timestamp x", "!!int 5x", "!!python/name:os.system"),
    *("!!binary aGk=", "!!set {a}", "=", "<<", "<<: 5", "&a", "*a", "*", "!", "|", ">", "%", "@"),
    *("`", "\x00", "\x005", "5\x00", "\x1b[31m5", "5\u200b", "5\x7f", "\u202e5", "5\n6", "a\nb"),
    *("[" * 1000, "[" * 1000 + "]" * 1000, "(" * 1000, "{" * 1000, "{a: " * 300 + "}" * 300),
    *("- " * 1000, "? " * 500, "!" * 1000, "&a [*a]"),
    *("&a [&b [*a, *b]]", "9" * 400, "-" + "9" * 400),
    *("9" * 5000, "0." + "9" * 5000 + "x", "x" * 100_000, "é" * 3000, "'" * 999, "\\" * 1000),
    *("$HOME", "$(id)", "%s%n", "{}", "{0}", "None", "nil", "N/A", "-", ",", ".", "..", "#", "# 5"),
]  # fmt: skip
ALPHABET = "0123456789" * 3 + "..--::__eexX,+ []{}'\"#&*!|>%@`\t\\/~()=\x1b\x7f²８é"


def looks_like(text: str) -> int | float | None:
    """The number that a text looks like in the widest reading that is no misreading, or None."""
    text = re.split(r"\s#", text)[0].strip().strip("'\"").strip()
    if match := BASES.fullmatch(text.lower()):
        sign, base, digits = match.groups()
        try:
            return int(sign + digits, {"x": 16, "o": 8, "b": 2}[base])
        except ValueError:
            return None
    digits = "".join(str(unicodedata.decimal(letter, letter)) for letter in text)
    if not re.fullmatch(r"[+-]?([0-9_]+\.?[0-9_]*|\.[0-9_]+)([eE][+-]?[0-9_]+)?", digits):
        return None
    if re.search(r"__|^[+-]?_|_$|_[.eE]|[.eE+-]_", digits):
        return None
    digits = digits.replace("_", "")
    if len(digits) > 300:
        return None
    number = float(digits)
    return (
        int(digits) if WHOLE.fullmatch(digits.lstrip("+")) else number if number < 1e308 else None
    )


def is_sure(text: str, whole: bool) -> bool:
    """Whether anyone reads the text as that number."""
    plain = WHOLE.fullmatch(text) or (not whole and PLAIN.fullmatch(text))
    return bool(plain) and len(text) < 30 and not text.startswith("-0")


def number_texts(seed: int) -> list[str]:
    """Texts to give where a number is expected: the listed ones and some that are drawn."""
    rng = random.Random(seed)
    drawn = []
    for _ in range(12):
        digits = str(rng.randrange(10 ** rng.randint(1, 5)))
        drawn.append("0" * rng.randint(0, 3) + digits)
        drawn.append(f"{rng.uniform(-0.2, 1.2):.{rng.randint(1, 6)}f}")
        drawn.append("".join(rng.choices(ALPHABET, k=rng.randint(1, 7))))
    return [*NUMBERS, *PERHAPS, *NONSENSE, *drawn]
