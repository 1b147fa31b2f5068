"""Solutions as values: equal, hashed, copied, saved; a score never outlives its vectors."""

import copy
import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, load_file, save_file

import prototokens as pt
from prototokens.engine.decode import decode_ids, generate_from
from prototokens.engine.inputs import Cramming
from prototokens.errors import FileError, UsageError
from prototokens.ptok.solutions import pack_solutions, unpack_solutions
from prototokens.solution import METADATA

LAYOUTS = ["keyed:2", "paper", "mixed:3", "alternating", "free"]


@pytest.fixture(scope="module")
def solution(tiny_llama):
    return pt.fit(tiny_llama, [[5, 9, 2, 7]], prefix=[3])[0]


def copies(one):
    return [pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one), replace(one)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_are_equal_and_hash_alike(tiny_llama, layout):
    (one,) = pt.fit(tiny_llama, [[5, 9, 2]], layout=layout, recipe=pt.Recipe.named("fast", steps=2))
    for other in copies(one):
        assert other == one
        assert hash(other) == hash(one)
        assert other.layout == one.layout
    assert len({one, *copies(one)}) == 1


def test_memory_vectors_are_copied_too(tiny_llama):
    recipe = pt.Recipe.named("fast", steps=2)
    (one,) = pt.fit(tiny_llama, [[5, 9, 2]], method=Cramming(2), recipe=recipe)
    assert all(other == one for other in copies(one))


def test_a_layout_with_an_importable_function_is_pickled_and_others_are_copied(solution):
    own = pt.Layout("own", 2, arrange_own)
    assert pickle.loads(pickle.dumps(own)) == own
    assert not own.recordable
    local = pt.Layout("local", 2, lambda n: arrange_own(n))
    assert copy.deepcopy(local) == local
    assert copy.deepcopy(replace(solution, layout=local)).layout == local


def arrange_own(length):
    return [number % 2 for number in range(length)], list(range(length))


def test_solutions_of_other_values_are_not_equal(solution):
    moved = solution.protos.clone()
    moved[0, 0] = moved[0, 0].nextafter(torch.tensor(9.0))
    for other in (
        replace(solution, protos=moved),
        replace(solution, seed=1),
        replace(solution, ids=(5, 9, 2, 8)),
        replace(solution, fingerprint="0"),
        replace(solution, layout=pt.Layout.named("alternating")),
        solution.protos,
    ):
        assert other != solution
    assert replace(solution, tokens=("a", "b", "c", "d")) == solution


@pytest.mark.parametrize("name", ["protos", "ids", "layout", "excluded"])
def test_a_score_is_not_carried_over_to_vectors_that_were_not_scored(solution, name):
    assert solution.exact
    other = {
        "protos": torch.zeros_like(solution.protos),
        "ids": (5, 9, 2, 8),
        "layout": pt.Layout.named("alternating"),
        "excluded": (1,),
    }
    stale = replace(solution, **{name: other[name]})
    assert (stale.correct, stale.margins, stale.exact) == (None, (), False)
    assert not stale.exact_where_scored
    assert math.isnan(stale.margin)
    assert math.isnan(stale.accuracy)
    assert "not scored" in repr(stale)
    assert replace(stale, seed=3).correct is None
    with pytest.raises(UsageError, match=r"score them with prototokens\.score"):
        stale.right_tokens  # noqa: B018
    assert stale == pickle.loads(pickle.dumps(stale))


def test_a_score_that_is_given_with_new_vectors_is_kept(solution):
    zeros = torch.zeros_like(solution.protos)
    known = replace(solution, protos=zeros, correct=1, margin=-2.0)
    assert (known.correct, known.margin, known.margins) == (1, -2.0, ())
    assert math.isnan(replace(solution, protos=zeros, correct=1).margin)
    fresh = replace(solution, protos=zeros, scored=None)
    assert (fresh.correct, fresh.margin) == (solution.correct, solution.margin)
    assert replace(replace(solution, protos=zeros), correct=4).exact


def test_margins_are_of_each_scored_token(tiny_llama, solution):
    assert len(solution.margins) == solution.length
    assert min(solution.margins) == solution.margin
    rows = pt.fit(tiny_llama, [[5, 9, 2], [7, 7, 1, 8, 3], [4]], rows=2)
    for row in rows:
        assert min(row.margins) == row.margin
        assert sum(margin > 0 for margin in row.margins) == row.correct


def test_the_summary_is_one_line(solution):
    assert repr(solution).startswith("Solution(4 tokens in 2 x 32 'keyed:2', 4 of 4 right, margin")
    assert "\n" not in repr(replace(solution, failure="two\nlines"))
    assert len(repr(solution)) < 100


def test_html_escapes_tokens_and_colours_margins(solution):
    drawn = replace(solution, tokens=("<b>", "&", "c", "d"), excluded=(), margins=(2.0, -1, 0.1, 3))
    html = drawn._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.count("background") == 4
    assert "margin -1" in html
    assert "background" not in replace(drawn, ids=(1, 2, 3, 4))._repr_html_()
    assert ">5 </span>" in replace(solution, tokens=())._repr_html_()


@pytest.mark.parametrize("layout", [*LAYOUTS, "memory"])
def test_a_file_gives_the_solution_back(tiny_llama, tmp_path, layout):
    recipe = pt.Recipe.named("fast", steps=2)
    asked = {"method": Cramming(2, (3,))} if layout == "memory" else {"layout": layout}
    (one,) = pt.fit(tiny_llama, [[5, 9, 2]], recipe=recipe, seed=-4, **asked)
    one.save(tmp_path / "one.safetensors")
    assert pt.Solution.load(tmp_path / "one.safetensors") == one


def test_an_unscored_solution_is_saved_as_such(solution, tmp_path):
    stale = replace(solution, protos=solution.protos * 2)
    stale.save(tmp_path / "one")
    assert pt.Solution.load(tmp_path / "one") == stale


def test_a_layout_without_a_name_is_not_saved(solution, tmp_path):
    own = replace(solution, layout=pt.Layout("own", 2, arrange_own))
    with pytest.raises(UsageError, match="cannot store layout 'own'"):
        own.save(tmp_path / "one")


DAMAGE = {
    "format": 2,
    "layout": "papr",
    "prefix": [-1],
    "ids": [],
    "correct": 5,
    "margins": [1.0],
    "margin": "wide",
    "seed": 0.5,
    "tokens": ["a"],
    "excluded": [4],
    "steps": -1,
    "failure": 3,
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_in_words(solution, tmp_path, name):
    path = tmp_path / "one"
    solution.save(path)
    values = json.loads(metadata(path)) | {name: DAMAGE[name]}
    save_file(load_file(path), path, metadata={METADATA: json.dumps(values)})
    with pytest.raises(FileError, match=r"damaged|cannot be used"):
        pt.Solution.load(path)


def metadata(path):
    content = path.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    return json.loads(header)["__metadata__"][METADATA]


def test_other_files_are_refused_in_words(solution, tmp_path):
    path = tmp_path / "one"
    with pytest.raises(FileError, match="cannot be read"):
        pt.Solution.load(path)
    path.write_bytes(b"no safetensors file")
    with pytest.raises(FileError, match="not a whole safetensors file"):
        pt.Solution.load(path)
    save_file({"protos": solution.protos}, path)
    with pytest.raises(FileError, match="not the file of a solution"):
        pt.Solution.load(path)
    solution.save(path)
    words = metadata(path)
    for protos in (solution.protos.half(), solution.protos[:1], solution.protos / 0):
        save_file({"protos": protos.contiguous()}, path, metadata={METADATA: words})
        with pytest.raises(FileError, match="protos"):
            pt.Solution.load(path)


@pytest.fixture(scope="module")
def other_weights(tiny_llama):
    model = copy.deepcopy(tiny_llama.model)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    return pt.FrozenLM(model, tiny_llama.tokenizer, name="others")


def test_vectors_of_another_model_are_refused_in_words(tiny_llama, other_weights, solution):
    assert solution.fingerprint == tiny_llama.fingerprint
    with pytest.raises(UsageError, match="'others' has fingerprint"):
        pt.decode(other_weights, solution)
    with pytest.raises(UsageError, match="fitted to a model with fingerprint"):
        decode_ids(other_weights, [solution])
    assert pt.decode(other_weights, solution, any_model=True) is not None
    old = replace(solution, fingerprint="")
    assert (
        pt.decode(other_weights, [old, old])
        == [pt.decode(other_weights, solution, any_model=True)] * 2
    )


def test_memory_vectors_of_another_model_are_refused_too(tiny_llama, other_weights):
    recipe = pt.Recipe.named("fast", steps=2)
    rows = pt.fit(tiny_llama, [[5, 9, 2]], method=Cramming(2), recipe=recipe)
    with pytest.raises(UsageError, match="fitted to a model with fingerprint"):
        generate_from(other_weights, rows)
    assert len(generate_from(other_weights, rows, any_model=True)[0]) == 3


@pytest.mark.parametrize("what", ["text", 3, None, [3], {"a": 1}])
def test_what_cannot_be_decoded_is_named(tiny_llama, what):
    with pytest.raises(TypeError, match=r"decode\(\) takes a Solution, a list"):
        pt.decode(tiny_llama, what)


def test_decode_wants_a_frozen_model(tiny_llama, solution):
    with pytest.raises(TypeError, match=r"decode\(\) takes a FrozenLM as lm"):
        pt.decode(tiny_llama.model, solution)


def test_stored_solutions_of_earlier_versions_are_read(solution):
    content = pack_solutions([solution])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    targets = [solution.ids]
    assert unpack_solutions(load(content), header, solution.layout, targets) == (solution,)
    (values,) = json.loads(header["solutions"])
    for name in ("fingerprint", "margins", "excluded"):
        del values[name]
    old = {"solutions": json.dumps([values])}
    (read,) = unpack_solutions(load(content), old, solution.layout, targets)
    assert read == replace(solution, fingerprint="", margins=())
    assert read.exact
