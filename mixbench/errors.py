"""An exception as a user meets it: an exit status and one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from mixbench.files import WriteError, trouble
from mixbench.visible import shortened, visible

LONGEST = 500  # characters of a sentence
STAYS = "what was written so far stays, --resume goes on from there"
MISPLACED = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
MEMORY = "memory does not suffice: lower --micro-batch, --workers or --limit-train"


@dataclass(frozen=True)
class Ending:
    """How a command ends."""

    status: int
    sentence: str
    fault: bool = False  # nothing that a user did: the traceback says where


class OtherEnded(Exception):
    """Another process of the run has ended, and says how."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.ending = Ending(status, sentence)


def ending(error: BaseException) -> Ending:
    """How a command ends that raised `error`; notes of the error belong to its sentence."""
    if isinstance(error, OtherEnded):
        return error.ending
    stays = getattr(error, "__notes__", ())
    if isinstance(error, SystemExit):  # rich's, where nobody reads the screen
        return Ending(error.code if isinstance(error.code, int) else 1, "stopped")
    if isinstance(error, KeyboardInterrupt):
        return Ending(130, sentence("interrupted", *stays))
    if isinstance(error, ValueError):
        return Ending(2, sentence(f"error: {words(error)}", *stays))
    if isinstance(error, OSError):
        status = 2 if isinstance(error, MISPLACED) and not stays else 1
        return Ending(status, sentence(f"error: {words(error)}", *stays))
    if isinstance(error, MemoryError) or _lacks_memory(error):
        return Ending(1, sentence(f"error: {MEMORY}", *stays))
    name = type(error).__name__
    return Ending(1, sentence(f"stopped: {name}: {words(error)}", *stays), fault=True)


def _lacks_memory(error: BaseException) -> bool:
    """Whether torch had no memory, on a device or on the machine; torch is not imported for it."""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return "OutOfMemoryError" in kinds or "can't allocate memory" in str(error)


def words(error: BaseException) -> str:
    """What an exception says."""
    if isinstance(error, OSError) and error.errno is not None:
        name = "" if error.filename is None else f"{error.filename}: "
        return name + (str(error) if isinstance(error, WriteError) else trouble(error))
    return str(error) or type(error).__name__


def reason(error: BaseException, longest: int = 150) -> str:
    """What an exception says, on one line of at most so many characters; else its class."""
    return shortened(" ".join(str(error).split()), longest) or type(error).__name__


def sentence(*parts: str) -> str:
    """One printable line of at most LONGEST characters; its end, the way out, stays."""
    line = "; ".join(" ".join(part.split()) for part in parts)
    return shortened(visible(line), LONGEST)
