"""What `fit` takes: one target or many, in every form; and what it refuses, in words."""

import numpy as np
import pytest
import torch

import prototokens as pt
from prototokens.encoder.encoder import Encoder
from prototokens.engine.progress import progress_bar
from prototokens.engine.rows import Start
from prototokens.errors import TextError, UsageError

IDS = [5, 9, 2, 7]
FEW = {"recipe": pt.Recipe.named("fast", steps=2)}

ONE = [
    IDS,
    tuple(IDS),
    torch.tensor(IDS),
    torch.tensor(IDS, dtype=torch.int32),
    np.array(IDS),
    list(torch.tensor(IDS)),
    [np.int64(token) for token in IDS],
]


@pytest.mark.parametrize("target", ONE)
def test_ids_in_every_form_are_one_target(tiny_llama, target):
    solution = pt.fit(tiny_llama, target, **FEW)
    assert solution.ids == tuple(IDS)
    assert solution == pt.fit(tiny_llama, [target], **FEW)[0]


def test_a_list_holds_texts_and_ids_in_every_form(tiny_llama):
    solutions = pt.fit(tiny_llama, ["abc", *ONE], **FEW)
    assert [one.ids for one in solutions[1:]] == [tuple(IDS)] * len(ONE)
    assert solutions[0].ids == tuple(tiny_llama.tokenize("abc"))
    assert "".join(solutions[0].tokens) == "abc"
    assert pt.fit(tiny_llama, []) == []


WRONG = [
    None,
    3,
    b"abc",
    {"a": 1},
    {1, 2},
    (token for token in IDS),
    torch.tensor([IDS]),
    np.array(3),
    torch.tensor([1.0, 2.0]),
    [1.0, 2.0],
    [True, False],
    [1, "a"],
    ["a", None],
    [[1], [2.5]],
    [torch.tensor([IDS])],
]


@pytest.mark.parametrize("targets", WRONG, ids=range(len(WRONG)))
def test_what_is_no_target_is_refused_in_words(tiny_llama, targets):
    with pytest.raises(TypeError, match=r"fit\(\) takes as targets a text, token ids"):
        pt.fit(tiny_llama, targets)


@pytest.mark.parametrize("empty", ["", torch.tensor([], dtype=torch.int64), [[]]])
def test_an_empty_target_is_refused(tiny_llama, empty):
    with pytest.raises(TextError, match="is empty"):
        pt.fit(tiny_llama, empty)


OPTIONS = {
    "layout": 3,
    "vectors": "2",
    "recipe": None,
    "steps": 1.5,
    "seed": "1",
    "share": 2,
    "prefix": 3,
    "start": 3,
    "mask": 3,
    "weights": 3,
    "rows": True,
    "method": "paper",
    "progress": 3,
    "finished": 3,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_another_type_is_named(tiny_llama, name):
    with pytest.raises(TypeError, match=rf"fit\(\) takes as {name} "):
        pt.fit(tiny_llama, IDS, **{name: OPTIONS[name]})


RANGE = [
    ({"vectors": 0}, "vectors must be from 1"),
    ({"steps": -1}, "steps must not be negative"),
    ({"vectors": 2, "layout": "paper"}, "layout and vectors"),
    ({"rows": 0}, "rows must be at least 1"),
    ({"seed": [1, 2]}, "2 seeds for 1 targets"),
    ({"start": "there"}, "start 'there' is none of"),
    ({"start": torch.zeros(3, 32)}, r"a start of shape \(3, 32\)"),
    ({"start": torch.zeros(2, 32) / 0}, "not finite"),
    ({"start": [None, None]}, "vectors for 2 targets, and there are 1"),
    ({"start": torch.zeros(2, 2, 32)}, "vectors for 2 targets, and there are 1"),
    ({"mask": [True]}, "1 values for a target of 4"),
    ({"weights": [1.0, 2.0]}, "weights has 2 values for a target of 4"),
    ({"weights": [1, 0, 1, 1]}, "above zero"),
    ({"weights": [1, float("inf"), 1, 1]}, "above zero"),
    ({"mask": [0, 0, 0, 0]}, "no token of a target"),
]


@pytest.mark.parametrize(("given", "words"), RANGE, ids=range(len(RANGE)))
def test_a_value_out_of_range_is_refused_in_words(tiny_llama, given, words):
    with pytest.raises(UsageError, match=words):
        pt.fit(tiny_llama, IDS, **given)


@pytest.mark.parametrize("lm", [None, "builtin"])
def test_a_model_is_wanted(lm):
    with pytest.raises(TypeError, match=r"fit\(\) takes a FrozenLM as lm, not .*from_pretrained"):
        pt.fit(lm, "abc")


def test_vectors_and_steps_stand_for_a_layout_and_a_recipe(tiny_llama):
    short = pt.fit(tiny_llama, IDS, vectors=3, steps=1)
    assert short.layout.name == "keyed:3"
    assert short.steps <= 1
    long = pt.fit(
        tiny_llama, IDS, layout="keyed:3", recipe=pt.Recipe.named("fast", steps=1), prefix="auto"
    )
    assert short == long
    assert pt.fit(tiny_llama, IDS, steps=0).layout.name == "keyed:2"


class TestStarts:
    def test_vectors_are_taken_in_every_form(self, tiny_llama):
        (first,) = pt.fit(tiny_llama, [IDS], steps=3)
        for start in (
            first.protos,
            first.protos.double().requires_grad_(),
            first.protos.numpy(),
            first,
            [first],
            (first,),
            first.protos[None],
            Start(first.protos),
            [Start(first.protos)],
        ):
            again = pt.fit(tiny_llama, IDS, start=start, steps=0)
            assert torch.equal(again.protos, first.protos)
            assert again.correct == first.correct

    def test_one_is_for_every_target_and_a_list_for_each(self, tiny_llama):
        (first,) = pt.fit(tiny_llama, [IDS], steps=3)
        for one in pt.fit(tiny_llama, [IDS, [1, 2]], start=first, steps=0):
            assert torch.equal(one.protos, first.protos)
        given, drawn = pt.fit(tiny_llama, [IDS, IDS], start=[first, None], steps=0)
        assert torch.equal(given.protos, first.protos)
        assert not torch.equal(drawn.protos, first.protos)

    def test_a_solution_brings_its_layout_and_prefix(self, tiny_llama):
        first = pt.fit(tiny_llama, IDS, layout="mixed:3", prefix=[4], steps=3)
        again = pt.fit(tiny_llama, IDS, start=first, steps=0)
        assert again.layout == first.layout
        assert again.margin == pytest.approx(first.margin, abs=1e-5)
        other = pt.fit(tiny_llama, IDS, start=first, layout="keyed:4", prefix="none", steps=0)
        assert (other.layout.name, other.layout.prefix) == ("keyed:4", ())

    def test_an_encoder_brings_its_layout(self, builtin):
        encoder = Encoder.for_model(builtin)
        text = "The sea was calm."
        for start in ("encoder", encoder):
            solution = pt.fit(builtin, text, start=start, steps=0)
            assert solution.layout.name == encoder.layout.name != "keyed:2"
            assert torch.equal(solution.protos, encoder(text).protos)

    def test_members_of_another_type_are_refused(self, tiny_llama):
        with pytest.raises(TypeError, match=r"fit\(\) takes as start .* not str 'random'"):
            pt.fit(tiny_llama, [IDS, IDS], start=[None, "random"])


@pytest.fixture(scope="module")
def builtin():
    return pt.FrozenLM.from_pretrained("builtin")


class TestMask:
    @pytest.mark.parametrize("form", [list, torch.tensor, np.array])
    def test_tokens_that_are_left_out_are_not_scored(self, tiny_llama, form):
        mask = [True, False, True, True]
        solution = pt.fit(tiny_llama, IDS, mask=form(mask))
        assert solution.excluded == (1,)
        assert solution.exact_where_scored
        assert not solution.exact
        assert len(solution.margins) == 3
        got = pt.decode_ids(tiny_llama, [solution]).ids[0]
        assert [a == b for a, b, scored in zip(got, IDS, mask, strict=True) if scored] == [True] * 3

    def test_what_is_left_out_changes_nothing(self, tiny_llama):
        """The gradient does not see a token that is not scored."""
        start = pt.fit(tiny_llama, IDS, steps=0)
        one, other = (
            pt.fit(tiny_llama, ids, mask=[1, 0, 1, 1], steps=5, start=start)
            for ids in (IDS, [5, 3, 2, 7])
        )
        assert torch.equal(one.protos, other.protos)
        assert one.steps > 0

    def test_a_list_has_a_mask_for_each_target(self, tiny_llama):
        masks = [None, [0, 1]]
        solutions = pt.fit(tiny_llama, [IDS, [1, 2]], mask=masks, steps=1)
        assert [one.excluded for one in solutions] == [(), (0,)]
        with pytest.raises(UsageError, match="mask has 1 members for 2 targets"):
            pt.fit(tiny_llama, [IDS, [1, 2]], mask=[None])


def test_a_bar_is_shown_and_gone(tiny_llama, capsys):
    pt.fit(tiny_llama, IDS, progress=True, steps=2)
    assert capsys.readouterr().out == ""
    plain = pt.fit(tiny_llama, IDS, progress=False, steps=2)
    assert plain == pt.fit(tiny_llama, IDS, steps=2)


def test_the_bar_counts_targets(tiny_llama):
    seen = []
    with progress_bar(lambda now: seen.append(now.total) or "soon") as show:
        pt.fit(tiny_llama, [IDS, [1, 2]], progress=show, steps=2)
    assert set(seen) == {2}


def test_solutions_that_finish_know_the_text_of_their_tokens(tiny_llama):
    seen = {}
    solutions = pt.fit(tiny_llama, ["ab", "cde"], finished=seen.__setitem__, steps=2)
    assert [seen[0], seen[1]] == solutions
    assert [seen[0].tokens, seen[1].tokens] == [("a", "b"), ("c", "d", "e")]


class TestWeights:
    """A factor on the loss of each token."""

    LONG = tuple(range(3, 67))  # more than two vectors of this model hold in so few steps

    def right(self, lm, weights, steps=150):
        found = pt.fit(lm, self.LONG, weights=weights, steps=steps, layout="paper")
        got = pt.decode_ids(lm, [found]).ids[0]
        return [a == b for a, b in zip(got, self.LONG, strict=True)]

    @pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor])
    def test_tokens_of_more_weight_come_out_first(self, tiny_llama, form):
        half = len(self.LONG) // 2
        first = self.right(tiny_llama, form([50.0] * half + [1.0] * half))
        second = self.right(tiny_llama, form([1.0] * half + [50.0] * half))
        assert sum(first[:half]) > sum(second[:half])
        assert sum(second[half:]) > sum(first[half:])

    def test_equal_weights_change_nothing_that_matters(self, tiny_llama):
        plain = pt.fit(tiny_llama, IDS)
        same = pt.fit(tiny_llama, IDS, weights=[1.0] * 4)
        assert torch.equal(plain.protos, same.protos)

    def test_a_list_has_weights_for_each_target_and_they_go_with_a_mask(self, tiny_llama):
        weights = [None, [1.0, 3.0]]
        apart = pt.fit(tiny_llama, [1, 2], weights=weights[1], steps=4, mask=[1, 0])
        both = pt.fit(
            tiny_llama, [IDS, [1, 2]], weights=weights, steps=4, mask=[None, [True, False]]
        )
        assert apart.excluded == both[1].excluded == (1,)
        torch.testing.assert_close(both[1].protos, apart.protos, rtol=1e-3, atol=1e-4)
        with pytest.raises(UsageError, match="weights has 1 members for 2 targets"):
            pt.fit(tiny_llama, [IDS, [1, 2]], weights=[None])
