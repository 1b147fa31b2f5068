"""Imports go from left to right through the layers of the package, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "prototokens"
# From the top down. A module imports only from its own layer and from those below it.
LAYERS = (
    "__init__ __main__",
    "cli explorer",
    "corpus training lab bench encoding decoding exchange fitting scoring",
    "encoder planning ptok measure",
    "engine",
    "lm",
    "keys layout options recipe solution",
    "errors _util _version samples",
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(module):
    """The modules of this package that a module imports, anywhere in it.

    Except those for type checkers.
    """
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "prototokens" and len(parts) > 1:
                found = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
                yield next((one for one in found if one in MODULES), f"{parts[1]}.__init__")


GRAPH = {module: set(imports_of(module)) & set(MODULES) for module in MODULES}


def package_of(module):
    return module.partition(".")[0]


def test_every_module_has_a_layer():
    assert {package_of(module) for module in MODULES} == set(RANK)


def test_imports_never_point_to_a_higher_layer():
    wrong = [
        f"{a} -> {b}"
        for a, others in GRAPH.items()
        for b in others
        if RANK[package_of(b)] < RANK[package_of(a)]
    ]
    assert wrong == []


def test_there_is_no_cycle_of_modules_or_of_packages():
    packages = {package_of(module): set() for module in MODULES}
    for module, others in GRAPH.items():
        packages[package_of(module)] |= {package_of(other) for other in others} - {
            package_of(module)
        }
    for graph in (GRAPH, packages):
        TopologicalSorter(graph).prepare()  # raises CycleError with the modules of the cycle
