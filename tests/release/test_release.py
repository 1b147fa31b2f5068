"""What a release rests on.

One version, a light import, no import beyond the declared dependencies, and CI that is one script.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import prototokens

ROOT = Path(__file__).parents[2]
PAGE = {
    f"prototokens.explorer.{name}"
    for name in ("page", "opening", "encode", "decode", "space", "inside", "results", "gate")
}
# Refuses what the bare installation does not bring to this package's own imports: other libraries
# look for more by themselves.
GUARD = """
import builtins, importlib, sys
from importlib.metadata import packages_distributions
allowed, names = set(sys.argv[1].split(",")), sys.argv[2].split(",")
def is_allowed(distributions):
    return bool(allowed & {name.lower().replace("_", "-") for name in distributions})
refused = {top for top, of in packages_distributions().items() if not is_allowed(of)}
plain = builtins.__import__
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = str((globals or {}).get("__name__"))
    if level == 0 and name.partition(".")[0] in refused and importer.startswith("prototokens"):
        words = f"{importer} imports {name}, which no dependency brings"
        raise ModuleNotFoundError(words, name=name)
    return plain(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
for name in names:
    importlib.import_module(name)
assert {"matplotlib", "gradio"} <= refused and not {"torch", "prototokens"} & refused
print(len(names))
"""


def needed(name, seen):
    """The distributions that a bare installation brings.

    What is asked for without extras, and what that asks for.
    """
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return seen
    try:
        requirements = metadata.requires(key) or []
    except metadata.PackageNotFoundError:
        return seen  # for other systems
    seen.add(key)
    for requirement in requirements:
        if "extra ==" not in requirement:
            needed(re.match(r"[\w.-]+", requirement)[0], seen)
    return seen


def test_all_but_the_page_is_imported_without_extras():
    paths = [
        path.relative_to(ROOT / "src").with_suffix("") for path in (ROOT / "src").rglob("*.py")
    ]
    names = (
        {".".join(path.parts).removesuffix(".__init__") for path in paths}
        - PAGE
        - {"prototokens.__main__"}
    )
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        GUARD,
        ",".join(needed("prototokens", set())),
        ",".join(sorted(names)),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (ran.returncode, ran.stdout.strip()) == (0, str(len(names))), ran.stderr[-800:]


def test_importing_the_package_is_light_and_does_nothing():
    code = (
        "import sys, os; before = dict(os.environ); import prototokens;"
        " assert os.environ == before; print(sorted(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    for heavy in (
        "torch",
        "transformers",
        "numpy",
        "matplotlib",
        "gradio",
        "huggingface_hub",
        "click",
    ):
        assert f"'{heavy}'" not in ran.stdout


def test_the_version_has_one_place():
    assert metadata.version("prototokens") == prototokens.__version__
    literal = re.compile(rf"""["']{re.escape(prototokens.__version__)}["']""")
    holders = [
        path
        for path in (ROOT / "src").rglob("*.py")
        if literal.search(path.read_text(encoding="utf-8"))
    ]
    assert [path.name for path in holders] == ["_version.py"]
    assert prototokens.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_is_typed_and_its_public_names_are_few():
    assert (ROOT / "src" / "prototokens" / "py.typed").is_file()
    assert len(prototokens.__all__) <= 16
    assert all(getattr(prototokens, name) is not None for name in prototokens.__all__)
    for path in (ROOT / "src").rglob("*.py"):
        assert "type: ignore" not in path.read_text(encoding="utf-8"), path
    for name in prototokens.__all__:  # what users call is typed without a single exception
        module = sys.modules.get(getattr(getattr(prototokens, name), "__module__", ""))
        if module is not None and module.__file__:
            assert "pyright: ignore" not in Path(module.__file__).read_text(encoding="utf-8"), name


def test_the_workflow_is_the_script():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"^\s+- run: (.*)$", workflow, re.MULTILINE) == ["bash .ci/run"]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(?:make|check) ([a-z-]+)", script, re.MULTILINE))
    assert {"setup", "lint", "types", "docs", "demo", "release", "test", "test-browser"} <= targets
    assert targets <= set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
