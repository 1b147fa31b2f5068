"""`prototokens.measure` lists every function of its modules."""

import inspect

import pytest

import prototokens as pt
from prototokens import measure
from prototokens.measure import geometry, inside, metrics, quality, quantiles

MODULES = (metrics, quality, geometry, inside, quantiles)
FUNCTIONS = {
    name: function
    for module in MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
}


def test_every_function_is_listed_and_documented():
    names = {module.__name__.rpartition(".")[2] for module in MODULES}
    assert set(measure.__all__) == FUNCTIONS.keys() | names
    assert dir(measure) == sorted(measure.__all__)
    for name in measure.__all__:
        assert f"`{name}`" in measure.__doc__


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_listed_function_is_that_of_its_module(name):
    assert getattr(pt.measure, name) is FUNCTIONS[name]


def test_other_names_are_refused():
    assert "measure" in dir(pt)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        measure.nothing  # noqa: B018
