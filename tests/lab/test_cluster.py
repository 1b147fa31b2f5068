"""The runner on Ray: a sentence where Ray is missing."""

import sys

import pytest

from prototokens.errors import MissingExtraError
from prototokens.lab.cluster import Cluster


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"prototokens\[ray\]"):
        Cluster()
