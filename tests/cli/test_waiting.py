"""How long a user waits: what needs no model imports no PyTorch, and refuses before it is imported.

Times of a busy machine say little, so each command runs in a process of its own that reports which
heavy libraries it has imported.
"""

import subprocess
import sys

import pytest

from prototokens.encoding import encode

HEAVY = ("torch", "transformers", "huggingface_hub", "matplotlib", "rich", "ray", "gradio")
CODE = f"""
import sys
from prototokens.cli import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write("\\nheavy: " + " ".join(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.fixture
def child(tmp_path):
    """A command in a process of its own: its status, standard error, and heavy libraries."""

    def run(*arguments):
        words = [sys.executable, "-c", CODE, *map(str, arguments)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        said, _, heavy = ran.stderr.rpartition("\nheavy:")
        return ran.returncode, said, heavy.split()

    return run


@pytest.mark.parametrize("bits", [32, 4])
def test_inspect_imports_neither_torch_nor_transformers(child, tiny_llama, tmp_path, bits):
    path = tmp_path / "x.ptok"
    encode(tiny_llama, "abcabc", bits=bits, certify="none").save(path)
    for words in ((path,), (path, "--json")):
        status, said, heavy = child("inspect", *words)
        assert (status, said, heavy) == (0, "", [])
