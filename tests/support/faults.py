"""Plug-ins that kill the process that loads them, at a chosen place, or let something fail."""

KILLERS = {
    "in a step": """
from mixbench.training.learner import Learner
accumulate, calls = Learner.accumulate, []
def killed(learner, micro):
    if micro.step: calls.append(1)  # not the trials before training
    if len(calls) == 50: die()
    return accumulate(learner, micro)
Learner.accumulate = killed
""",
    "in a write of the state": """
import torch
save, calls = torch.save, []
def killed(state, path):
    calls.append(1)
    if len(calls) == 3:
        open(path, "wb").write(b"half a file")
        die()
    save(state, path)
torch.save = killed
""",
    "between two results": """
replace, calls = os.replace, []
def killed(source, target):
    replace(source, target)
    if str(target).endswith("result.json"):
        die()
os.replace = killed
""",
    "between the two renames": """
replace, calls = os.replace, []
def killed(source, target):
    if str(target).endswith("-previous.pt"):
        calls.append(1)
    if len(calls) == 2:
        replace(source, target)
        die()
    replace(source, target)
os.replace = killed
""",
}
DEAD_WORKER = """
import multiprocessing
from mixbench.training.learner import Learner
accumulate = Learner.accumulate
def killed(learner, micro):
    for worker in multiprocessing.active_children():
        worker.kill()
    return accumulate(learner, micro)
Learner.accumulate = killed
"""
FULL_DISK = """
import torch
def full(*_):
    raise OSError(28, "No space left on device")
torch.save = full
"""
PLUGIN = """
import os, signal
from dataclasses import dataclass
from mixbench import register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("unused")
@dataclass(frozen=True)
class Unused(CutMix): ...

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""
