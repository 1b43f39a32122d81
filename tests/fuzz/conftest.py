"""The summary of generated cases and long series: how many of each kind, and their faults."""

from collections import Counter


def pytest_terminal_summary(terminalreporter):
    """Say how many cases of each kind ran and what was wrong, where they alone were asked for."""
    if terminalreporter.config.option.markexpr != "fuzz":
        return
    cases, seconds, faults = Counter(), Counter(), Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            kind = report.nodeid.partition("::")[0]
            seconds[kind] += report.duration
            if report.when == "call" or outcome == "error":
                cases[kind] += 1
            if outcome != "passed":
                first = str(report.longrepr.reprcrash.message).splitlines()[0]
                faults[kind, first.removeprefix("AssertionError: ").partition(":")[0]] += 1
    terminalreporter.section("cases by kind")
    for kind, count in cases.items():
        words = [f"{n} {fault}" for (of, fault), n in faults.most_common() if of == kind]
        terminalreporter.line(
            f"{kind}: {count} cases, {seconds[kind]:.0f} s, {', '.join(words) or 'no fault'}"
        )
    terminalreporter.line(f"{cases.total()} cases, {faults.total()} faults")
