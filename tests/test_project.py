"""What holds for the project as a whole: floors, dependencies, the README's commands."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "resnet_kit"
MODULES = sorted(PACKAGE.rglob("*.py"))
ORDER_OF_DRAWN = (
    "outlines", "paints", "pen", "backgrounds", "pets", "insects", "things", "flowers",
    "cats", "dogs",
)  # fmt: skip


def module_name(path: Path) -> str:
    """The name inside the package: "data.images", or "data" for the room itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def order_of_modules() -> list[str]:
    """The modules in the order of the package's README, each room after what is in it."""
    names = re.findall(r"^\|[^|]*\| `([\w.]+)` \|", (PACKAGE / "README.md").read_text(), re.M)
    order = []
    for name in names:
        order += [f"drawn.{inner}" for inner in ORDER_OF_DRAWN] if name == "drawn" else []
        order.append(name)
    for room in ("models", "data", "evaluation", "training"):
        last = max(order.index(name) for name in order if name.startswith(f"{room}."))
        order.insert(last + 1, room)
    return order


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, by their names inside the package."""
    known, found = {module_name(other) for other in MODULES}, set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(path.relative_to(PACKAGE).parts[: -node.level])
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in known else ".".join(base))
    return found


def test_the_readme_of_the_package_names_every_module():
    assert sorted(order_of_modules()) == sorted(map(module_name, MODULES))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_downwards(path):
    order = order_of_modules()
    own = order.index(module_name(path))
    for module in imported_modules(path):
        assert order.index(module) < own, f"{module_name(path)} imports {module}"


def code_lines(path: Path) -> int:
    """How many lines hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(text))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    strings = [n.body[0] for n in nodes if isinstance(n, documented) and ast.get_docstring(n)]
    lines = {i for s in strings for i in range(s.lineno, s.end_lineno + 1)}
    numbered = enumerate(text.splitlines(), 1)
    return sum(i not in lines and bool(x.split("#")[0].strip()) for i, x in numbered)


def test_the_package_stays_small():
    lines = {p.stem: code_lines(p) for p in MODULES if p.parent.name != "drawn"}
    assert sum(lines.values()) < 4300, lines


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def test_requirements_hold_all_that_the_package_needs():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer reads TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=]", name)[0] for name in project["dependencies"]}
    given = {re.split(r"[<>=]", x)[0] for x in (ROOT / "requirements.txt").read_text().split("\n")}
    assert needed - {"numpy", "pillow"} <= given  # torchvision brings these two


def test_readme_has_one_line_to_open_and_one_to_test():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    assert len(lines) == 2 and "jupyter lab" in lines[0]
    assert lines[1].endswith("pytest --nbval-lax")


def test_the_tables_are_what_the_results_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results_table

    assert results_table.headlines() in (ROOT / "README.md").read_text(encoding="utf-8")
    every_row = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert every_row == results_table.all_results()
    for path in (ROOT / "results").glob("*.json"):
        assert f"({path.name})" in every_row


def test_no_output_keeps_source_that_is_not_ours():
    found = 0
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "torchvision-source" in cell["metadata"].get("tags", []):
                found += 1
                assert not cell["outputs"], f"{path.name}: clear the outputs of {cell['id']}"
    assert found


def test_no_committed_text_names_a_path_of_a_machine():
    paths = re.compile(r"(?<![\w.:/~-])/(?:home|Users|root|tmp|work)/")
    for pattern in ("*.md", "*.py", "*.ipynb", "*.json"):
        for path in ROOT.rglob(pattern):
            parts = path.relative_to(ROOT).parts
            if not any(part.startswith(".") or part in ("data", "build") for part in parts):
                found = paths.findall(path.read_text(encoding="utf-8"))
                assert path.name == "test_project.py" or not found, path
