"""Names that a terminal, Markdown, a page or a diagram would take for something else."""

NAMES = (
    "a\x1b[31mb",
    "[red]x[/red]",
    "two\nlines",
    "x\udcff",
    "\u202eabc",
    ":smile:",
    "x" * 300,
    r"back\slash\\",
    "a|b`c",
    r"a\|b",
    "<script>alert(1)</script>",
    "&lt;",
    "{{ 7 * 7 }}",
    """\"'><img src=x onerror=alert(1)>""",
    "$x^2$ and $y$",
    "*a* _b_ __c__ d_e ~~f~~",
    "[a](http://b) [c][d] ![e](f)",
    "http://a_b_c.d/*e*",
    "中文 🎈 العربية",
    "``a``",
)
