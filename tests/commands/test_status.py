"""How commands end: statuses, one printable line, quiet pipes, and systems that lack something."""

import os
import subprocess
import sys
import textwrap

import pytest

from mixbench.cli import main
from mixbench.commands.status import status_of
from mixbench.errors import LONGEST, MEMORY, STAYS, ending, sentence
from mixbench.files import WriteError


def raising(error):
    def command():
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def noted(error, note=STAYS):
    error.add_note(note)
    return error


FULL = "cannot write x: the disk is full (No space left on device)"
DENIED = (13, "Permission denied", "c.yaml")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("lr must be a number"), 2, "error: lr must be a number"),
        (noted(ValueError("a.png cannot be read")), 2, f"error: a.png cannot be read; {STAYS}"),
        (WriteError(28, FULL), 1, f"error: {FULL}"),
        (
            OSError(28, "No space left on device"),
            1,
            "error: the disk is full (No space left on device)",
        ),
        (PermissionError(*DENIED), 2, "error: c.yaml: permission denied"),
        (noted(PermissionError(*DENIED)), 1, f"error: c.yaml: permission denied; {STAYS}"),
        (OSError(5, "Input/output error", "c"), 1, "error: c: input/output error"),
        (ChildProcessError("a loader process died"), 1, "error: a loader process died"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (noted(KeyboardInterrupt()), 130, f"interrupted; {STAYS}"),
        (MemoryError(), 1, f"error: {MEMORY}"),
        (OutOfMemoryError("CUDA out of memory. Tried"), 1, f"error: {MEMORY}"),
    ],
)
def test_an_error_is_a_status_and_a_line(error, status, line, capsys):
    assert status_of(raising(error)) == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_fault_of_ours_is_raised_for_its_traceback(capsys):
    with pytest.raises(KeyError):
        status_of(raising(noted(KeyError("x"))))
    assert capsys.readouterr().err == f"stopped: KeyError: 'x'; {STAYS}\n"


def test_a_line_is_short_and_printable(capsys):
    text = "begin \x1b[31m\x00\udc80" + "x" * 10**6 + "\nthe way\tout"
    assert status_of(raising(ValueError(text))) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line[:-1].isprintable() and len(line[:-1]) <= LONGEST
    assert line.startswith("error: begin \\x1b[31m\\x00\\udc80xxx")
    assert line.endswith("xxx the way out\n")
    assert len(sentence("x" * LONGEST)) == LONGEST and " ... " not in sentence("x" * LONGEST)


def test_help_ends_as_it_did():
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--help"])
    assert caught.value.code == 0
    assert ending(ValueError()).sentence == "error: ValueError"


COMMAND = [sys.executable, "-m", "mixbench"]


@pytest.mark.parametrize("argv", [["--list"], ["--help"], ["--print-recipe"], ["--lst"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads(argv, unbuffered):
    """Status 141 as of a process that the signal ends, or what it would have been."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [*COMMAND, *argv], stdout=writer, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(writer)
    if argv == ["--lst"]:
        assert done.returncode == 2 and done.stderr.startswith("error: unknown option")
    else:
        assert done.returncode in (0, 141) and done.stderr == ""


def test_nobody_reads_the_errors_either():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, "--lst"], stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert done.returncode == 141 and done.stdout == b""


def test_a_broken_pipe_elsewhere_is_told(capsys):
    assert status_of(raising(BrokenPipeError(32, "Broken pipe"))) == 1
    assert capsys.readouterr().err == "error: broken pipe\n"


def test_names_that_the_terminal_lacks_are_shown_otherwise():
    code = "from mixbench.commands.status import status_of; status_of(lambda: print('é\\udc80'))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout == b"\\xe9\\udc80\n" and done.stderr == b""


def without(code, tmp_path):
    """Run code where Windows' Python would run it: without some modules and functions."""
    hidden = textwrap.dedent("""
        import os, sys
        for name in ("fcntl", "resource", "grp", "pwd"):
            sys.modules[name] = None
        for name in ("sched_getaffinity", "sysconf", "O_NOFOLLOW"):  # torch asks Linux for more
            if hasattr(os, name):
                delattr(os, name)
        import select
        del select.poll
        from mixbench.cli import main
    """)
    return subprocess.run(
        [sys.executable, "-c", hidden + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["list"], ["--list"], ["--print-recipe"], ["report", "--help"], ["zoo"]],
)
def test_a_system_without_locks_shows_and_lists(argv, tmp_path):
    done = without(f"sys.exit(main({argv!r}))", tmp_path)
    assert done.returncode == 0 and done.stdout
    assert "Error" not in done.stderr


def test_a_system_without_locks_reports_and_does_not_measure(tmp_path):
    from tests.support.rows import full_tables, write_run

    tables = full_tables()
    write_run(tmp_path / "run", tables.runs, tables.speed)
    done = without("sys.exit(main(['report', 'run']))", tmp_path)
    assert done.returncode == 0 and (tmp_path / "run" / "report.html").is_file(), done.stderr
    done = without("sys.exit(main(['--strategies', 'none', '--out', 'new']))", tmp_path)
    last = done.stderr.splitlines()[-1]  # another package may warn that it has no locks either
    assert done.returncode == 2 and last.startswith("error: this system has no file locks")
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
