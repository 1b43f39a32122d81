"""Spec texts of strategies: right ones with the text that they are shown as, and wrong ones."""

RIGHT = {
    "cutmix": "cutmix",
    " cutmix , mixup ": "cutmix, mixup",
    "cutmix,": "cutmix",
    "mixup(alpha=0.2)": "mixup(alpha=0.2)",
    "mixup(alpha=0.8)": "mixup",
    "cutmix(alpha=2)": "cutmix(alpha=2.0)",
    "cutmix()": "cutmix",
    "cutmix(per_sample=true)": "cutmix(per_sample=True)",
    "cutmix(per_sample=True)": "cutmix(per_sample=True)",
    "cutmix(alpha=1e-1)": "cutmix(alpha=0.1)",
    # a network that a package brings: others are fetched
    "attentivecutmix(k=3, network=efficientnet_lite0)": (
        "attentivecutmix(k=3, network=efficientnet_lite0)"
    ),
    "transmix(attention_weight=1.0)": "transmix(attention_weight=1.0)",
    "transmix(base=mixup)": "transmix(base=mixup)",
    "transmix(base=cutmix)": "transmix",
    "transmix(base=alternate(first=mixup, second=cutmix))": (
        "transmix(base=alternate(first=mixup, second=cutmix))"
    ),
    "saliencymix(scope=batch)": "saliencymix(scope=batch)",
    "none,mixup,cutmix": "none, mixup, cutmix",
    "mixup(alpha=1),mixup(alpha=2)": "mixup(alpha=1.0), mixup(alpha=2.0)",
}
DEEP = "transmix(base=" * 100 + "cutmix" + ")" * 100
VALUES = [
    *("lambda: 1", "(x:=1)", "f'{1}'", "*[1]", "b'1'", "1j"),
    *("nan", "inf", "1e999", "-1", "0", "''"),
    *("None", "null", "~", "1:30", "1 if 1 else 2", "[1 for _ in [1]]", "open('x')", "x.y", "x[0]"),
    *("...", "1 + 1", "2**999999", "9**9**9**9", "-(-1)"),
    *("not 1", "1,2", "(1)(2)", "{1: 2}", "{1}"),
    *("yield", "await x", "__import__('os')", "'1'", "true", "1__0", "1_", "0x", "²", "'" * 999),
    *("9" * 400 + "e", "9" * 5000, "-" * 999 + "1", "(" * 1000, "[" * 1000 + "]" * 1000, "nan()"),
    *("'a\nb'", "'\x1b[31m'", "'\\x00'", "\"", "$HOME", "{alpha}"),
    *("%s", "#", "1#", ";", "=1", "==1"),
]  # fmt: skip
WRONG = [
    *("", " ", ",", ",,", "cutmix,,mixup", "cutmix,cutmix", "mixup,mixup(alpha=0.8)", "cutmx"),
    *("cut mix", "cutmix mixup", "cutmix;mixup", "cutmix("),
    *("cutmix)", "cutmix(alpha", "cutmix(alpha=)"),
    *("cutmix(alpha=1", "cutmix(1.0)", "cutmix(**x)", "cutmix(*x)", "cutmix(alpha=1, alpha=2)"),
    *("cutmix(alpha=1, alpha=1)", "cutmix(beta=1)", "cutmix(alpha==1)"),
    *("cutmix(alpha:=1)", "cutmix[0]"),
    *("cutmix.alpha", "cutmix()()", "cutmix+mixup", "-cutmix"),
    *("*cutmix", "**cutmix", "lambda: cutmix"),
    *("'cutmix'", "b'cutmix'", "f'{cutmix}'", "1", "None", "...", "{}", "[cutmix]x", "{cutmix}"),
    *("(cutmix for _ in x)", "[x for x in y]", "cutmix if 1 else mixup", "x := cutmix", "=cutmix"),
    *("cutmix=1", "import os", "__import__('os')", "cutmix(alpha=[1])", "transmix(base=1)"),
    *("transmix(base=nonsense)", "transmix(base='cutmix')"),
    *("transmix(base=[cutmix])", "transmix(base)"),
    *("transmix(base=cutmix, base=mixup)", "alternate(first=cutmix, second=)"),
    *("attentivecutmix(k=1.5)",),
    *("attentivecutmix(k=-1)"),
    *("saliencymix(scope=nonsense)", "mixup(alpha='x')"),
    *("cutmix(per_sample=2)"),
    *("cutmix(per_sample='true')", "cutmix\nx"),
    *("[" * 1000, "(" * 1000, "cutmix(" * 1000, "[" * 1000 + "]" * 1000, "x" * 100_000, "\x1b[31m"),
    *("(" * 100_000, "cutmix(alpha=" + "[" * 1000 + ")", "cutmix\\"),
    *("cutmix@mixup", "CUTMIX", "cut-mix"),
    *("cutmix?", "$cutmix", "%", "`cutmix`"),
    *("cutmix | mixup", "cutmix & mixup", "not cutmix", "é" * 999),
    *(f"cutmix(alpha={value})" for value in VALUES if value not in ("null", "true", "1#", "'1'")),
    *(f"transmix(base={value})" for value in VALUES if value not in ("null", "None", "~")),
]  # fmt: skip
UNSURE = [
    *("transmix(attention=nonsense)", "attentivecutmix(k=0)"),
    *("ｃｕｔｍｉｘ", "cutmix#x", "(cutmix)"),
    *("cutmix(alpha=(1))", "cutmix(alpha=010)", "cutmix(alpha='1')"),
    *("cutmix(alpha=1_0)", "cutmix(alpha=0x1)", "cutmix(alpha=+1)"),
    *("cutmix(alpha=1,)", "cutmix(\nalpha=1)"),
    *("cutmix(alpha=null)", "cutmix(alpha=true)", "cutmix(alpha=1#)", "attentivecutmix(k=010)"),
    *("puzzlemix(num_labels=02)", "cutmix(alpha=1e308)", "cutmix(alpha=1e-308)"),
    *("[cutmix]", "cutmix\t"),
    *(DEEP, "cutmix" + ",mixup" * 3000, ",".join(f"mixup(alpha={n})" for n in range(1, 300))),
    *("transmix(base=null)", "transmix(base=None)", "transmix(base=~)"),
    *("cutmix(alpha=~)", "\ufeffcutmix"),
    *("alternate(first=alternate(first=alternate, second=mixup), second=none)",),
    *("transmix(base=transmix)",),
]  # fmt: skip
