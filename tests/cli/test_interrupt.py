"""A run that is stopped, in real processes.

Solved chunks are saved, and the same command continues from there.
"""

import signal
import subprocess
import sys
import time

import pytest

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely. " * 8
# As the command line, but what is solved is saved at every step, so that the test need not wait for
# it, and each save takes its
# time: on a busy machine the fit would be over before the signal is sent.
COMMAND = """
import sys, time
import prototokens.cli as cli, prototokens.ptok.resume as partial
save = partial.save_partial
partial.save_partial = lambda *given: (save(*given), time.sleep(0.2))
sys.modules["prototokens.cli.encode_run"].SAVE_EVERY = 0.0
cli.main()
"""


def start(folder, output):
    arguments = ["encode", "--text", TEXT, "-o", output, "--model", folder, "--rows", 1]
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    # In the background of a shell a process inherits that Ctrl-C is ignored, and the test is of one
    # that is not.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heard
    )


def stop(process, partial, number):
    """Send a signal once something is solved; returns exit status, output and messages."""
    end = time.monotonic() + 120
    while not partial.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing was solved in two minutes"
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_fit_is_taken_up_again(folder, tmp_path, encode, decode, number):
    output, partial = tmp_path / "x.ptok", tmp_path / "x.ptok.partial"
    status, out, err = stop(start(folder, output), partial, number)
    assert out == ""
    assert not output.exists()
    assert partial.exists()
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 130
        assert "Traceback" not in err
        assert "prototokens: stopped: " in err
        assert f"are solved and kept in {partial}; the same command goes on from there" in err
        assert list(tmp_path.iterdir()) == [partial]

    again = encode("--text", TEXT, "-o", output, "--json")
    assert again.status == 0, again.err
    assert f"tokens from {partial}" in again.err
    assert again.json["exact"] is True
    assert not partial.exists()
    assert decode(output).out == TEXT.encode()
