"""Standard streams that are closed, full, or read by nobody.

No failure passes for success, and no traceback is shown.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
CLOSED = b"prototokens: standard output is closed: nothing could be printed\n"


@pytest.fixture
def shell(tmp_path, folder, run):
    """Run a line of a shell in which PT is the command line and x.ptok a file that it made."""
    assert run("encode", "--text", "hi", "-o", tmp_path / "x.ptok", "--model", folder).status == 0

    def shell(line):
        variables = {"PT": f"{sys.executable} -m prototokens", "MODEL": str(folder)}
        return subprocess.run(
            ["bash", "-c", line],
            env={**os.environ, **variables},
            cwd=tmp_path,
            capture_output=True,
            timeout=300,
        )

    return shell


def test_a_closed_pipe_is_no_failure_and_has_no_message(shell):
    """As `head` leaves a pipe; 141 is what a shell reports of a program that was ended so."""
    for command in ("--help", "inspect x.ptok"):
        ran = shell(f"$PT {command} | true; echo ${{PIPESTATUS[0]}}")
        assert (ran.stdout.decode().split()[-1], ran.stderr) == ("141", b""), command


def test_a_reader_of_errors_that_has_gone(shell):
    ran = shell("{ $PT encde; echo $? >&3; } 3>&1 2>&1 >/dev/null | true")
    assert ran.stderr == b""


def test_a_closed_standard_output_is_an_error_where_something_was_to_be_printed(shell):
    for command in ("--help", "decode x.ptok --model $MODEL"):
        ran = shell(f"$PT {command} >&-")
        assert (ran.returncode, ran.stderr) == (2, CLOSED), command


def test_a_closed_standard_output_is_none_where_nothing_was(shell, run, tmp_path):
    ran = shell("$PT encode --text hi -o y.ptok --model $MODEL --quiet >&-")
    assert (ran.returncode, ran.stderr) == (0, b"")
    # No file that is opened has got the number of standard output, and what is printed in it.
    assert run("inspect", tmp_path / "y.ptok").status == 0


def test_closed_standard_errors_change_no_status(shell):
    assert shell("$PT --help 2>&-").returncode == 0
    assert shell("$PT encde 2>&-").returncode == 2
    assert shell("$PT --help >&- 2>&-").returncode == 2


@pytest.mark.skipif(
    not os.path.exists("/dev/full"), reason="needs a device that is always full: /dev/full"
)
def test_a_full_disk(shell):
    ran = shell("$PT --help >/dev/full")
    assert ran.returncode == 2
    assert (
        ran.stderr == b"prototokens: standard output cannot be written (No space left on device)\n"
    )
