"""The page, served as a user would serve it.

By a process of its own, so that Gradio's warnings are not this suite's.
"""

import contextlib
import json
import os
import subprocess
import sys

import pytest


@contextlib.contextmanager
def explore(*arguments, cwd, clean=True):
    """Run `prototokens explore` at a free port; gives its address.

    Afterwards it must have reported no failure, unless `clean` is false: a request that no
    browser makes is one.
    """
    command = [
        sys.executable,
        "-m",
        "prototokens",
        "explore",
        "--port",
        "0",
        "--json",
        *map(str, arguments),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=cwd
    ) as server:
        yield json.loads(server.stdout.readline())["address"]
        server.terminate()
        errors = server.stderr.read().decode()
    assert not (clean and "Traceback" in errors), errors


@pytest.fixture(scope="module")
def served_page():
    return explore
