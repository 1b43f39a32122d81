"""Two processes of one run: both end, each with one line, whatever happens to either."""

import os
import shutil
import signal
import time

import pytest

from mixbench import distributed
from mixbench.errors import OtherEnded
from tests.support import kills, ranks
from tests.support.faults import PLUGIN

TINY = [*kills.TINY, "--epochs", "2", "--mode", "accuracy", "--strategies", "cutmix"]
RANK = PLUGIN + '\nrank = int(os.environ["RANK"])\n'
DYING = {  # what rank 1 does, or rank 0 where a case says so
    "opening data": """
from mixbench.comparison import comparison
opened = comparison.open_together
def dying(*arguments):
    die()
comparison.open_together = dying
""",
    "in a step": """
from mixbench.training.learner import Learner
accumulate, calls = Learner.accumulate, []
def dying(learner, micro):
    if micro.step: calls.append(1)  # not the trials before training
    if len(calls) == 3: die()
    return accumulate(learner, micro)
Learner.accumulate = dying
""",
    "in an evaluation": """
from mixbench.training import loop
def dying(*_):
    die()
loop.evaluate = dying
""",
    "after training": """
from mixbench.comparison import comparison
measure = comparison.measure
def dying(*arguments):
    measure(*arguments)
    die()
comparison.measure = dying
""",
    "writing the state": """
from mixbench.training import state
def dying(*_):
    die()
state.keep = dying
""",
}


def commands(folder, code="", dying=1, size=2):
    """The command of each rank, which load `code` in the rank `dying` alone."""
    plugin = folder / "plugin.py"
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    plugin.write_text(f"{RANK}\nif rank == {dying}:\n    pass\n{indented}\n")
    argv = ["--plugin", str(plugin), "--out", str(folder / "run"), *TINY]
    return [[*argv] for _ in range(size)]


@pytest.mark.parametrize("dying", [0, 1])
@pytest.mark.parametrize("moment", DYING)
def test_a_killed_process_ends_the_other_with_its_name(moment, dying, tmp_path):
    ends = ranks.run(tmp_path, commands(tmp_path, DYING[moment], dying))
    survivor = ends[1 - dying]
    assert ends[dying].status == -9
    assert survivor.status == 1 and survivor.seconds < 20
    assert survivor.errors == [f"error: rank {dying} is gone: its process died"], survivor.text
    assert "Traceback" not in survivor.text


def test_a_process_that_torchrun_stops_while_it_waits_says_for_whom():
    """torchrun does so where another died before they met; afterwards the watch is faster."""
    before = signal.getsignal(signal.SIGTERM)
    words = "stopped while waiting for rank 3: its process died"
    with pytest.raises(OtherEnded, match=words), distributed._stopped_waiting_for(3):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)  # the signal comes before
    assert signal.getsignal(signal.SIGTERM) == before


def test_two_processes_come_to_their_end(tmp_path):
    ends = ranks.run(tmp_path, commands(tmp_path))
    assert [end.status for end in ends] == [0, 0], ends
    assert ends[1].text == "" and "wrote" in ends[0].text


FULL = """
from mixbench.training import state
def full(*_):
    raise OSError(28, "No space left on device")
state.torch.save = full
"""
WRONG = """
from mixbench.comparison import comparison
def wrong(*_):
    raise ValueError("no such data here")
comparison.plan_data = wrong
"""
FAULT = """
from mixbench.training import loop
def fault(*_):
    raise KeyError("x")
loop.evaluate_epoch = fault
"""


@pytest.mark.parametrize(
    ("code", "failing", "status", "words"),
    [
        (FULL, 0, 1, "the disk is full"),
        (WRONG, 0, 2, "no such data here"),
        (WRONG, 1, 2, "no such data here"),
        (FAULT, 1, 1, "KeyError: 'x'"),
    ],
)
def test_one_processs_error_is_the_sentence_of_both(code, failing, status, words, tmp_path):
    ends = ranks.run(tmp_path, commands(tmp_path, code, failing))
    assert [end.status for end in ends] == [status, status], ends
    for end in ends:
        assert len(end.errors) == 1 and words in end.errors[0], end.text
        assert end.seconds < 20
    other = ends[1 - failing]
    assert other.errors[0].endswith(f"(rank {failing})") and "Traceback" not in other.text


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_mistake_before_the_processes_meet_ends_both(wrong, tmp_path):
    argvs = commands(tmp_path)
    argvs[wrong] += ["--config", "quick", "--data", str(tmp_path / "nowhere")]
    ends = ranks.run(tmp_path, argvs)
    assert [end.status for end in ends] == [2, 2], ends
    for end in ends:
        assert len(end.errors) == 1 and "nowhere" in end.errors[0], end.text
    assert ends[1 - wrong].errors[0].endswith(f"(rank {wrong})")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--seeds", "1"], "rank 1 differs from rank 0 in the seeds: (1,), not (0,)"),
        (["--lr", "0.5"], "the recipe's lr: 0.5, not 0.001"),
        (["--val-interval", "2"], "rank 1 differs from rank 0 in --val-interval: 2, not 1"),
        (["--strategies", "mixup"], "the strategies: mixup, not cutmix"),
        (["--limit-train", "80"], "the number of training images: 80, not 96"),
    ],
)
def test_another_command_on_one_rank_ends_both_with_one_sentence(change, words, tmp_path):
    argvs = commands(tmp_path)
    argvs[1] += change
    _same_sentence(ranks.run(tmp_path, argvs), words)


def _same_sentence(ends, words):
    assert [end.status for end in ends] == [2, 2], ends
    for end in ends:
        assert len(end.errors) == 1 and words in end.errors[0], end.text
        assert "Traceback" not in end.text and end.seconds < 20


def test_other_data_on_one_rank_end_both_with_one_sentence(tmp_path, photographs):
    one = photographs(tmp_path / "here" / "photos", train=20, val=20)
    other = tmp_path / "there" / "photos"
    shutil.copytree(one, other)
    image = sorted((other / "train" / "b").iterdir())[0]
    image.rename(image.with_name("another" + image.suffix))
    argvs = commands(tmp_path)
    common = ["--config", "quick", "--workers", "0", "--limit-train", "40"]
    for argv, folder in zip(argvs, (one, other), strict=True):
        argv += [*common, "--data", str(folder)]
    _same_sentence(ranks.run(tmp_path, argvs), "in the list of training images")
