"""Vectors as files of other programs, and back."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import prototokens as pt
from prototokens.engine.decode import generate_from
from prototokens.engine.inputs import Cramming
from prototokens.errors import FileError, UsageError
from prototokens.exchange.adapter import read_adapter, write_adapter
from prototokens.exchange.inputs import METADATA, inputs_of, write_inputs
from prototokens.measure import inside

ROOT = Path(__file__).parents[2]
FAST = pt.Recipe.named("fast", steps=60)


@pytest.fixture(scope="module")
def memory(tiny_llama):
    return pt.fit(tiny_llama, "Call me", method=Cramming(2), recipe="fast", steps=300)


@pytest.mark.parametrize("layout", ["keyed:2", "free", "mixed:3"])
def test_exported_inputs_decode_with_the_model_alone(layout, tiny_llama, tmp_path):
    encoded = pt.encode(
        tiny_llama,
        "Call me Ishmael.",
        layout=layout,
        chunk_length=6,
        prefix=[7, 3],
        recipe=pt.Recipe.named("fast", steps=8),
        inexact="patch",
    )
    assert write_inputs(encoded, tmp_path / "x.safetensors") == len(encoded.header.chunks)
    tensors, model = load_file(tmp_path / "x.safetensors"), tiny_llama.model
    before = model.get_input_embeddings()(tensors["prefix"])
    ids = []
    for chunk in range(len(encoded.header.chunks)):
        if f"{chunk}.tokens" in tensors:
            ids += tensors[f"{chunk}.tokens"].tolist()
            continue
        inputs = torch.cat([before, tensors[f"{chunk}.vectors"]])
        logits = model(inputs_embeds=inputs[None]).logits[0, len(before) :]
        tokens = logits[tensors[f"{chunk}.read"]].argmax(-1).tolist()
        for position, token in tensors.get(f"{chunk}.patches", torch.empty(0, 2)).tolist():
            tokens[position] = token
        ids += tokens
    assert tiny_llama.detokenize(ids) == "Call me Ishmael."


def test_the_metadata_names_the_text_by_its_hash(tiny_llama, tmp_path):
    encoded = pt.encode(tiny_llama, "Call me", recipe=FAST)
    write_inputs(encoded, tmp_path / "x.safetensors")
    raw = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    values = json.loads(header["__metadata__"][METADATA])
    assert values["sha256"] == encoded.header.text.sha256
    assert (values["chunks"], values["d_model"]) == (1, tiny_llama.d_model)


def test_text_with_edits_is_not_exported(tiny_llama, tmp_path):
    encoded = pt.encode(tiny_llama, b"Call\xff me", recipe=FAST)
    with pytest.raises(UsageError, match="tokenizer does not give"):
        write_inputs(encoded, tmp_path / "x.safetensors")


def test_an_adapter_comes_back_as_the_same_vectors(memory, tiny_llama, tmp_path):
    write_adapter(tiny_llama, memory, tmp_path / "adapter")
    solution = read_adapter(tiny_llama, tmp_path / "adapter", memory.length)
    assert torch.equal(solution.protos, memory.protos)
    assert solution.ids == tuple(generate_from(tiny_llama, [memory])[0])


@pytest.mark.filterwarnings("ignore")  # PEFT warns of versions and of positions
@pytest.mark.parametrize("prefix", ["none", [7, 3]], ids=["no prefix", "prefix"])
def test_peft_generates_the_same_text(prefix, tiny_folder, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    from transformers import AutoModelForCausalLM

    lm = pt.FrozenLM.from_pretrained(tiny_folder, dtype="float32")
    method = Cramming(2, lm.prefix_ids(prefix))
    solution = pt.fit(lm, "Call me", method=method, recipe="fast", steps=300)
    write_adapter(lm, solution, tmp_path / "adapter")
    expected = generate_from(lm, [solution])[0]
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    nothing = torch.empty(1, 0, dtype=torch.int64)
    with torch.no_grad():
        first = adapted(input_ids=nothing).logits[0, -1].argmax()[None, None]
    made = adapted.generate(
        input_ids=first,
        attention_mask=torch.ones_like(first),
        max_new_tokens=len(expected) - 1,
        min_new_tokens=len(expected) - 1,
        do_sample=False,
        use_cache=False,  # with it, PEFT 0.21 places later tokens elsewhere under transformers 5.24
        pad_token_id=0,
    )
    assert made[0].tolist() == expected


def test_vectors_of_one_step_are_no_adapter(tiny_llama, tmp_path):
    solution = pt.fit(tiny_llama, "Call me", recipe=FAST)
    with pytest.raises(UsageError, match="stand at every position"):
        write_adapter(tiny_llama, solution, tmp_path / "adapter")


def test_an_adapter_of_another_kind_or_width_is_refused(memory, tiny_llama, tmp_path):
    folder = tmp_path / "adapter"
    config, weights = write_adapter(tiny_llama, memory, folder)
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "peft_type": "LORA"}))
    with pytest.raises(FileError, match="LORA"):
        read_adapter(tiny_llama, folder, 3)
    config.write_text("{")
    with pytest.raises(FileError, match="not JSON"):
        read_adapter(tiny_llama, folder, 3)
    config.write_text(json.dumps(values))
    save_file({"prompt_embeddings": torch.zeros(2, 5)}, weights)
    with pytest.raises(UsageError, match="width 5"):
        read_adapter(tiny_llama, folder, 3)
    save_file({"prompt_embeddings": torch.full((2, 32), torch.nan)}, weights)
    with pytest.raises(FileError, match="finite"):
        read_adapter(tiny_llama, folder, 3)
    weights.unlink()
    with pytest.raises(FileError, match="cannot be read"):
        read_adapter(tiny_llama, folder, 3)


def test_inputs_are_the_models_inputs(tiny_llama):
    solution = pt.fit(tiny_llama, "Call me", layout="keyed:2", recipe=FAST)
    inputs = inputs_of(solution)
    keys = solution.layout.keys(solution.length, tiny_llama.d_model)
    assert torch.equal(inputs.vectors[1], solution.protos[1] * keys[1])
    logits = tiny_llama.model(inputs_embeds=inputs.vectors[None]).logits[0]
    assert tuple(logits[inputs.read].argmax(-1).tolist()) == solution.ids


@pytest.mark.filterwarnings("ignore")  # of libraries that load the model
@pytest.mark.parametrize("library", ["nnsight", "transformer_lens"])
def test_the_example_traces_an_export_with_another_library(library, tmp_path):
    pytest.importorskip(library, reason=f"{library} is not installed")
    script = runpy.run_path(str(ROOT / "docs" / "examples" / "logit_lens.py"))
    lm = pt.FrozenLM.from_pretrained("builtin", dtype="float32")
    solution = pt.fit(lm, "The sea was calm.")
    inputs, folder = inputs_of(solution), str(Path(pt.__file__).parent / "builtin")
    with torch.no_grad():
        found = script["LIBRARIES"][library](folder, inputs.vectors[None])
    lens = inside.logit_lens(lm, solution)
    for depth, logits in enumerate(found, 1):
        assert logits[0, inputs.read].argmax(-1).tolist() == lens.ids[depth].tolist()
