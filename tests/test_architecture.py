"""The house keeps its order: families, arrows that point one way, modules and functions of readable size."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "facegcn"
ROOT_MODULES = {"main", "create_bin", "model", "utils", "mesh_sampling"}
#: Which families a family may use, besides the core and itself (docs/architecture.md draws it).
ARROWS = {
    "core": {"backends"},
    "backends": set(),
    "mesh": set(),
    "texture": {"backends"},
    "networks": set(),
    "photos": {"backends"},
    "portraits": set(),
    "demo": {"mesh"},
    "export": set(),
    "identity": set(),
    "training": {"networks", "photos", "portraits"},
    "assets": {"demo", "identity", "mesh", "networks", "photos", "portraits"},
    "reconstruction": {"export", "identity", "photos", "texture", "training"},
    "benchmark": {"backends", "mesh", "photos", "portraits", "reconstruction", "training"},
    "api": {"assets", "backends", "photos", "reconstruction", "texture"},
    "app": {"api", "photos", "reconstruction"},
}
MOST_LINES, MOST_FUNCTION_LINES = 420, 65


def family(module: str) -> str:
    """core, api, or the name of the folder."""
    part = module.split(".")[1]
    return part if (PACKAGE / part).is_dir() or part == "api" else "core"


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imports(path: Path):
    """Dotted names of what a module imports, of packages the submodules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if (ROOT / (node.module or "").replace(".", "/")).is_dir():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found = set(imports(path))
    if path.name == "__main__.py":  # a root script that lives in the package
        return
    assert not {name.split(".")[0] for name in found} & ROOT_MODULES, "a library module imports a root script"
    by_name = {f'import_module("{name}")' for name in ROOT_MODULES}
    assert module == "facegcn.api" or not any(call in path.read_text() for call in by_name), "nor by its name"
    assert not any(name.endswith("__main__") for name in found), "nothing imports an entry point"
    used = {family(name) for name in found if name.startswith("facegcn.")}
    below = set() if family(module) == "backends" else {"core"}  # the core stands on the backends
    assert used <= ARROWS[family(module)] | below | {family(module)}


def test_families_are_the_folders_and_know_no_circle():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders == set(ARROWS) - {"core", "api"}
    order, waiting = [], dict(ARROWS)
    while waiting:
        free = [name for name, uses in waiting.items() if not uses - set(order)]
        assert free, f"a circle among {sorted(waiting)}"
        order += free
        waiting = {name: uses for name, uses in waiting.items() if name not in free}


@pytest.mark.parametrize("path", [*modules(), *(ROOT / f"{name}.py" for name in sorted(ROOT_MODULES))],
                         ids=lambda path: path.name)
def test_modules_and_functions_stay_readable(path):
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno - (docstring.count("\n") + 1 if docstring else 0)
            assert lines <= MOST_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_the_architecture_page_names_every_family_and_every_module_of_the_core():
    rows = [line for line in (ROOT / "docs" / "architecture.md").read_text().splitlines() if line.startswith("| ")]
    assert {row.split("`")[1].rstrip("/") for row in rows if row.startswith("| `")} == set(ARROWS) - {"core"}
    core, = (row for row in rows if row.startswith("| core"))
    listed = " ".join(re.findall(r"`([a-z_0-9 ]+)`", core.split("|")[2])).split()
    assert sorted(listed) == [path.stem for path in modules() if path.parent == PACKAGE and path.stem != "api"]


def test_the_architecture_page_names_only_what_is_there():
    """Every `module.function` or `module.Class.method` of docs/architecture.md is defined in that module."""
    places = {path.stem: path for path in [*modules(), *ROOT.glob("*.py")] if path.stem != "__main__"}
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_0-9]+)((?:\.\w+)+)`", text))
    named = {(module, rest[1:]) for module, rest in named if module in places and rest != ".py"}
    assert len(named) > 60
    for module, rest in sorted(named):
        scope = ast.parse(places[module].read_text()).body
        for name in rest.split("."):
            found = next((node for node in scope if getattr(node, "name", None) == name), None)
            assert found is not None, f"{module}.{rest}"
            scope = getattr(found, "body", [])
