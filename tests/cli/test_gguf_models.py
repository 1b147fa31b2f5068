"""A GGUF file as the model of a command."""

from gguf_files import write_gguf
from prototokens.ptok.encoded import EncodedText


def test_a_text_goes_round_and_the_encoded_file_names_no_folder(run, tmp_path):
    (tmp_path / "somewhere").mkdir()
    model = write_gguf(tmp_path / "somewhere" / "tiny.gguf")
    made = run(
        "encode",
        "--text",
        "the cat sat",
        "-o",
        tmp_path / "text.ptok",
        "--model",
        model,
        "--vectors",
        "2",
        "-q",
    )
    assert made.status == 0, made.err
    encoded = EncodedText.load(tmp_path / "text.ptok")
    assert encoded.header.model.name == "tiny.gguf"
    assert str(tmp_path).encode() not in (tmp_path / "text.ptok").read_bytes()
    assert run("decode", tmp_path / "text.ptok", "--model", model).out == b"the cat sat"


def test_a_damaged_file_is_one_sentence_and_status_2(run, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    refused = run(
        "encode",
        "--text",
        "the cat sat",
        "-o",
        tmp_path / "text.ptok",
        "--model",
        tmp_path / "bad.gguf",
    )
    assert (refused.status, refused.out) == (2, b"")
    assert refused.err.count("\n") == 1
    assert "is damaged or is no model in the GGUF format" in refused.err


def test_models_describes_one(run, tmp_path):
    described = run("models", write_gguf(tmp_path / "tiny.gguf", kind="Q8_0"), "--json").json
    assert (described["d_model"], described["vocabulary"], described["context"]) == (32, 260, 128)
