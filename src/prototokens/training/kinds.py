"""Texts of other kinds than an encoder was trained on, to measure it where it may be weak."""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

from prototokens.lab.texts import Texts
from prototokens.lm.frozen_lm import FrozenLM

CODE, GERMAN = "Python source code", "German sentences"
# Modules of the standard library that every version has had for long, so that most texts stay the
# same from one version to the next.
MODULES = """
    argparse ast bdb calendar cmd codecs collections/__init__ configparser copy csv dataclasses
    difflib dis doctest email/message enum fnmatch fractions ftplib functools gettext glob gzip
    heapq http/client inspect ipaddress json/decoder linecache locale mailbox mimetypes netrc
    optparse pdb pickle platform plistlib pprint pydoc queue random sched selectors shelve shlex
    shutil smtplib socket socketserver statistics string subprocess tarfile tempfile textwrap
    threading timeit tokenize traceback typing unittest/case urllib/request uuid warnings weakref
    zipfile
"""
LINES = 60  # of source, cut out for a text
# A sentence is a phrase of each list: 12 x 12 x 12 x 10 of them.
WHO = """
    Der alte Müller|Die junge Lehrerin|Unser Nachbar|Ein müder Bäcker|Die Tochter des Schmieds|
    Kein Mensch im Dorf|Der Kapitän|Meine Großmutter|Das fröhliche Mädchen|Ein fremder Reisender|
    Die Königin|Der Förster
"""
DID = """
    erzählte gestern|vergaß am Morgen|suchte vergeblich|fand schließlich|verkaufte im Frühling|
    öffnete vorsichtig|trug über die Brücke|zeichnete heimlich|verschenkte zu Weihnachten|
    hörte hinter der Tür|brachte nach Hause|zerriss vor Ärger
"""
WHAT = """
    einen schweren Schlüssel|die Geschichte vom weißen Wolf|das kleine Boot|zwölf rote Äpfel|
    ein Lied ohne Worte|den Brief seines Bruders|eine zerbrochene Uhr|drei Säcke Mehl|
    das Bild der schönen Gärtnerin|einen Mantel aus grüner Wolle|den Weg durch den Wald|
    die letzten Kartoffeln
"""
WHY = """
    weil der Winter so lange dauerte|obwohl es in Strömen regnete|bevor der Zug abfuhr|
    als die Glocken zu läuten begannen|während die Kinder schliefen|damit niemand Hunger leidet|
    ohne ein einziges Wort zu sagen|nachdem der Sturm vorüber war|
    denn das Geld reichte nicht mehr|sodass alle darüber lachten
"""
SENTENCES = 12  # of a text, more than any length needs


def texts_of(
    kind: str, lm: FrozenLM, count: int, tokens: int, sources: Mapping[str, str], seed: int = 0
) -> list[tuple[int, ...]]:
    """Texts of a kind, as ids: the same ones for the same arguments.

    Args:
        kind: `CODE`: Python's standard library, from the beginning of a line; `GERMAN`: sentences
            of a small grammar; or a name among the sources.
        sources: by name, as `--texts` takes them.
    """
    if kind in sources:
        return [one.ids for one in Texts(lm, [sources[kind]], seed).passages(count, tokens)]
    generator = random.Random(f"{seed} {kind}")
    drawn = {CODE: code, GERMAN: german}[kind](generator)
    found: list[tuple[int, ...]] = []
    while len(found) < count:
        ids = tuple(lm.tokenize(next(drawn)))
        if len(ids) >= tokens:
            found.append(ids[:tokens])
    return found


def code(generator: random.Random) -> Iterator[str]:
    """Stretches of source, each from the beginning of a line that is not empty, without end."""
    library = Path(sysconfig.get_path("stdlib"))
    paths = [library / f"{name}.py" for name in MODULES.split()]
    modules = [path.read_text(encoding="utf-8").splitlines() for path in paths if path.is_file()]
    while True:
        lines = generator.choice(modules)
        first = generator.randrange(len(lines))
        if lines[first].strip():
            yield "\n".join(lines[first : first + LINES])


def german(generator: random.Random) -> Iterator[str]:
    """German sentences, without end."""
    parts = [[phrase.strip() for phrase in part.split("|")] for part in (WHO, DID, WHAT, WHY)]
    while True:
        drawn = [[generator.choice(part) for part in parts] for _ in range(SENTENCES)]
        yield " ".join(f"{who} {did} {what}, {why}." for who, did, what, why in drawn)
