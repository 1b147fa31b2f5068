"""Programs that tests start, kill, and leave nothing of."""

import os
import signal
import subprocess
import sys


def run_program(path, *arguments):
    """Run a program of its own, in a group of its own: what it leaves behind goes with it.

    Returns:
        what it printed.
    """
    process = subprocess.Popen(
        [sys.executable, path, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    try:
        out, _ = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, out
    return out
