"""A state of the page as an address: its parameters are read as any input, and bounded.

An address holds what a visitor has set, never a file or a result: whoever opens it has the page
compute it again, within the same limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from prototokens._util.numerals import whole_number
from prototokens.errors import UsageError
from prototokens.layout import Layout

TABS = ("encode", "decode", "space", "inside", "results")
STARTS = ("random", "encoder")
RECIPES = ("fast", "paper")
LAYOUT = "keyed:2"  # the default of `fit`
MAX_TEXT = 2000  # characters of a text in an address: browsers and servers take no long ones
MAX_NAME = 200  # of a file of results, in characters
STEPS = (100, 5000)  # that can be asked for, at least and at most
MAX_SEED = 2**31 - 1


class State(NamedTuple):
    """What an address asks for; None where it does not say.

    Attributes:
        tab: that is opened.
        text, model, layout, start, recipe, seed, steps: of the tab Encode.
        a, b: the texts of the tab Space.
        rows: a file of the tab Results.
    """

    tab: str | None = None
    text: str | None = None
    model: str | None = None
    layout: str | None = None
    start: str | None = None
    recipe: str | None = None
    seed: int | None = None
    steps: int | None = None
    a: str | None = None
    b: str | None = None
    rows: str | None = None


def read(asked: Mapping[str, str], models: tuple[str, ...], max_characters: int) -> State:
    """What the parameters of an address ask for; those of other names are left alone.

    Args:
        models: of the page: an address can load no other.
        max_characters: of a text.

    Raises:
        UsageError: a value that no visitor could have set.
    """
    most = min(max_characters, MAX_TEXT)
    texts = {name: _bounded(asked, name, most) for name in ("text", "a", "b")}
    layout = _bounded(asked, "layout", MAX_NAME)
    if layout is not None and layout != "auto":
        layout = Layout.named(layout).name
    return State(
        **texts,
        tab=_one_of(asked, "tab", TABS),
        model=_one_of(asked, "model", models),
        layout=layout,
        start=_one_of(asked, "start", STARTS),
        recipe=_one_of(asked, "recipe", RECIPES),
        seed=_number(asked, "seed", 0, MAX_SEED),
        steps=_number(asked, "steps", *STEPS),
        rows=_bounded(asked, "rows", MAX_NAME),
    )


def _bounded(asked: Mapping[str, str], name: str, most: int) -> str | None:
    value = asked.get(name)
    if value is not None and len(value) > most:
        raise UsageError(
            f"{name} in the address has {len(value):,} characters, and an address of this page"
            f" holds {most:,} of it: paste it into its field instead"
        )
    return value


def _one_of(asked: Mapping[str, str], name: str, known: tuple[str, ...]) -> str | None:
    value = asked.get(name)
    if value is not None and value not in known:
        raise UsageError(
            f"{name}={value!r:.60} in the address is none of {', '.join(known)}: choose one of them"
        )
    return value


def _number(asked: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    value = asked.get(name)
    if value is None:
        return None
    number = whole_number(value)
    if number is None or not least <= number <= most:
        raise UsageError(
            f"{name}={value!r:.60} in the address is no whole number from {least:,} to {most:,}"
        )
    return number


def script(defaults: Mapping[str, str | int]) -> str:
    """A JavaScript function that writes the state into the address, and copies it.

    Args:
        defaults: names and values in the order of the function's arguments; what has its default
            value is left out.
    """
    # Within a page's script nothing may look like the end of a script.
    known = json.dumps(dict(defaults)).replace("<", "\\u003c")
    return f"""(...values) => {{
  const defaults = {known}, here = new URL(location.href), asked = new URLSearchParams();
  for (const [name, value] of here.searchParams)
    if (name.startsWith('__')) asked.set(name, value);
  const tab = document.querySelector('button[role=tab][aria-selected=true]');
  const opened = tab ? tab.textContent.trim().toLowerCase() : 'encode';
  if (opened !== 'encode') asked.set('tab', opened);
  Object.keys(defaults).forEach((name, at) => {{
    const value = values[at];
    if (value === null || value === undefined || String(value) === String(defaults[name])) return;
    asked.set(name, value);
  }});
  here.search = asked.toString();
  const long = ['text', 'a', 'b'].some(name => (asked.get(name) || '').length > {MAX_TEXT});
  if (long) return '<p class="pt-note">A text of more than {MAX_TEXT:,} characters does not go'
    + ' into an address: send the .ptok file instead.</p>';
  history.replaceState(null, '', here);
  if (navigator.clipboard) navigator.clipboard.writeText(here.href).catch(() => {{}});
  return '<p class="pt-note">The address of this page now holds what is set here, and is copied:'
    + ' whoever opens it sees the same.</p>';
}}"""
