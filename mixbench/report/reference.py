"""What label rules reach of what labels by true masks are worth."""

from __future__ import annotations

from mixbench.report.numbers import signed
from mixbench.report.significance import Difference, Paired
from mixbench.spec import create_strategy
from mixbench.strategies.label_rule import LabelRule
from mixbench.strategies.oacutmix import OACutMix


def reference_remarks(comparison: Paired) -> list[str]:
    """How far each label rule over the baseline goes from labels by area to those by true masks.

    Given only where the gain of the true labels is itself shown; nothing without that reference.
    """
    baseline = comparison.baseline
    specs = [each.strategy for each in comparison.differences]
    rules = {spec: rule for spec in specs if (rule := _rule_over(baseline, spec))}
    for each in comparison.differences:
        rule = rules.get(each.strategy)
        if not isinstance(rule, OACutMix) or rule != OACutMix(base=rule.base):
            continue
        if not each.claimed or not each.mean or each.mean < 0:
            return [
                f"{each.strategy} labels by true masks. That this is worth anything beside "
                f"{baseline} is not shown here, so no share of it is given for label rules."
            ]
        shares = [
            f"{other.strategy} goes {100 * share:.0f} % of it"
            for other in comparison.differences
            if other.strategy in rules and not isinstance(rules[other.strategy], OACutMix)
            if (share := _share(other, each)) is not None
        ]
        if shares:
            return [
                f"From labels by area ({baseline}) to labels by true masks ({each.strategy}) it is "
                f"{signed(each.mean)} points: {', '.join(shares)}."
            ]
    return []


def _share(rule: Difference, truth: Difference) -> float | None:
    """A rule's gain as a share of the true labels', over the seeds of both; None without one."""
    shared = rule.values.keys() & truth.values.keys()
    total = sum(truth.values[seed] for seed in shared)
    return sum(rule.values[seed] for seed in shared) / total if total > 0 else None


def _rule_over(baseline: str, spec: str) -> LabelRule | None:
    """The label rule of a spec text over the baseline's pixels; None for anything else."""
    try:
        rule, base = create_strategy(spec), create_strategy(baseline)
    except ValueError:  # a plug-in that is not loaded here
        return None
    return rule if isinstance(rule, LabelRule) and rule.base == base else None
