"""Options of `fit` and `encode`: the same for callers, type checkers and the command line."""

import inspect

import pytest

import prototokens as pt
from prototokens import options
from prototokens._util.option_fields import Help, described, from_keywords, help_of
from prototokens.layout import Layout
from prototokens.options import EncodeKeywords, EncodeOptions, FitKeywords, FitOptions

PAIRS = [(FitOptions, FitKeywords), (EncodeOptions, EncodeKeywords)]


@pytest.mark.parametrize(("kind", "keywords"), PAIRS)
def test_type_checkers_know_each_field_by_its_name_and_type(kind, keywords):
    assert inspect.get_annotations(keywords).keys() == inspect.get_annotations(kind).keys()
    types = {
        name: getattr(hint, "__forward_arg__", hint)
        for name, hint in keywords.__annotations__.items()
    }
    assert types == inspect.get_annotations(kind)


@pytest.mark.parametrize(("kind", "keywords"), PAIRS)
def test_each_field_is_documented(kind, keywords):
    for name in inspect.get_annotations(kind):
        assert f"\n        {name}: " in kind.__doc__


def test_an_option_that_does_not_exist_is_named(tiny_llama):
    with pytest.raises(TypeError, match=r"fit\(\) has no option 'stepz': its options are layout, "):
        pt.fit(tiny_llama, "a", stepz=3)
    with pytest.raises(TypeError, match=r"encode\(\) has no option 'bit', 'lay': its .*, bits"):
        pt.encode(tiny_llama, "a", bit=3, lay="paper")


def test_fit_takes_no_layout_auto(tiny_llama):
    with pytest.raises(pt.errors.UsageError, match="name the layout of a fit"):
        pt.fit(tiny_llama, "a", layout="auto")


def test_names_are_resolved_or_refused():
    given = from_keywords(EncodeOptions, "encode", {"layout": "paper", "recipe": "paper"})
    assert given.resolve_layout() is Layout.named("paper")
    assert given.resolve_recipe() is pt.Recipe.named("paper")
    assert EncodeOptions().resolve_layout() is None
    with pytest.raises(pt.errors.UsageError, match="no layout 'papr'"):
        EncodeOptions(layout="papr").resolve_layout()
    with pytest.raises(pt.errors.UsageError, match="no recipe 'papr'"):
        FitOptions(recipe="papr").resolve_recipe()


def test_the_key_of_resumable_work_holds_what_solved_chunks_depend_on():
    layout = Layout.named("keyed:2").with_prefix([7])
    parts = EncodeOptions(layout=layout, recipe=pt.Recipe(), seed=3, start="random").key_parts()
    assert parts == {
        "layout": ["keyed:2", layout.key_version, [7]],
        "recipe": pt.Recipe().as_dict(),
        "seed": 3,
        "start": "random",
    }


def test_help_of_fields():
    default, shown = help_of(EncodeOptions)["certify"]
    assert (default, shown.choices) == ("standard", options.CERTIFY)
    assert help_of(FitOptions) == {}
    assert described("Words.", minimum=1) == {"help": Help("Words.", minimum=1), "in_key": False}
