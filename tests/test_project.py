"""What holds for the project as a whole: floors, dependencies, the README's commands."""

import ast
import importlib
import itertools
import json
import os
import re
from pathlib import Path

import pytest

import resnet_kit as rk

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "resnet_kit"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def test_the_face_is_small_and_documented():
    assert sorted(rk.__all__) == rk.__all__ == dir(rk)
    assert len(rk.__all__) <= 60
    for name in rk.__all__:
        assert getattr(rk, name).__doc__, name


def test_a_function_of_the_face_is_never_shadowed_by_a_room():
    for name in rk.__all__:  # "doctor" is a module too
        assert callable(getattr(rk, name)), name


@pytest.mark.parametrize(
    ("room", "names"),
    [
        ("data", ["FolderReport", "Loaders", "Stats", "UnreadableImageError"]),
        ("evaluation", ["Evaluation"]),
        ("training", ["History", "LrSearch"]),
        ("models", ["Weights"]),
        ("features", ["Features"]),
        ("strategies", ["Comparison", "Run"]),
        ("classifier", ["Classifier"]),
        ("doctor", ["Checkup"]),
    ],
)
def test_results_can_be_imported_from_their_rooms(room, names):
    module = importlib.import_module(f"resnet_kit.{room}")
    for name in names:
        assert isinstance(getattr(module, name), type)


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
    assert lines[1].endswith("pytest --nbval-lax -n auto --dist loadscope")


def test_the_tables_are_what_the_results_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import results_table

    assert results_table.headlines() in (ROOT / "README.md").read_text(encoding="utf-8")
    every_row = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    assert every_row == results_table.all_results()
    for path in (ROOT / "results").glob("*.json"):
        assert f"({path.name})" in every_row


def cells_of(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_folded_answers_begin_with_a_line_that_says_so(path):
    for before, cell in itertools.pairwise(cells_of(path)):
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            heading = "".join(before["source"]).strip().splitlines()[-1]
            first = cell["source"][0].strip()
            assert first.startswith("#")
            assert "Answer" not in heading or first == "# " + heading.strip("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_verdicts_look_at_what_was_cut_short(path):
    """Interrupting a training does not stop Run All: the cells that compare must notice it."""
    sources = ["".join(cell["source"]) for cell in cells_of(path)]
    trains = any("train_and_eval(" in text or "compare_strategies(" in text for text in sources)
    checks = [text for text in sources if "assert" in text and "cut short" in text]
    whole = [text for text in sources if "assert" in text and '.stopped == "finished"' in text]
    assert not trains or checks or whole


def test_no_output_keeps_source_that_is_not_ours():
    found = 0
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "torchvision-source" in cell["metadata"].get("tags", []):
                found += 1
                assert not cell["outputs"], f"{path.name}: clear the outputs of {cell['id']}"
    assert found


def texts_of_the_project() -> list[Path]:
    """Files of text, without those in hidden folders, in the data root and in what was built."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if Path(folder) == ROOT:
            folders[:] = set(folders) - {"data", "build"}
        found += [Path(folder, x) for x in files if x.endswith((".md", ".py", ".ipynb", ".json"))]
    return found


def test_no_committed_text_names_a_path_of_a_machine():
    paths = re.compile(r"(?<![\w.:/~-])/(?:home|Users|root|tmp|work)/")
    texts = {path: path.read_text(encoding="utf-8") for path in texts_of_the_project()}
    assert PACKAGE / "data" / "images.py" in texts
    del texts[Path(__file__).resolve()]
    assert not [path for path, text in texts.items() if paths.search(text)]


@pytest.mark.parametrize("page", ["docs/promises.md", "docs/several.md", "docs/origins.md"])
def test_every_test_that_a_page_names_exists(page):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert not [name for name in named if f"def {name}(" not in text]
    assert page == "docs/several.md" or len(named) > 10


def prose_of(path: Path) -> str:
    """The text cells of a notebook."""
    texts = [c["source"] for c in cells_of(path) if c["cell_type"] == "markdown"]
    return "\n".join("".join(text) for text in texts)


def test_every_section_that_the_origins_name_exists():
    text = (ROOT / "docs" / "origins.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(\d\d) section (\d+)", text)) - {("03", "6")}  # the example
    prose = {path.name[:2]: prose_of(path) for path in NOTEBOOKS}
    assert len(named) > 30
    assert not [place for place in named if f"## {place[1]} · " not in prose[place[0]]]


def test_every_term_of_the_glossary_is_in_the_notebook_that_explains_it():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|.+/notebooks/(\w+\.ipynb)\) \|$", text, re.M)
    assert len(rows) > 30
    for term, notebook in rows:
        words = [word.strip(" )").removeprefix("learning ") for word in re.split("[,(]", term)]
        prose = " ".join(prose_of(ROOT / "notebooks" / notebook).lower().split())
        assert any(word.lower() in prose for word in words), f"{notebook}: {term}"


def test_the_readme_shows_what_its_example_gave(monkeypatch, tmp_path):
    shown = rk.read_results(ROOT / "results" / "readme_example.json")["rows"][0]["shown"]
    assert f"```\n{shown}\n```" in (ROOT / "README.md").read_text(encoding="utf-8")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_example

    program = 'size = 3\ndouble = lambda x: 2 * x\ndouble("my_pictures") * size\n'
    assert readme_example.run(program, tmp_path) == 6 * str(tmp_path)
    assert "rk.train_and_eval(" in readme_example.example()


def test_the_chinese_page_shows_the_same_program():
    def program(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
        return [line.split("  #")[0] for line in text.splitlines()]

    assert program("README.zh-CN.md") == program("README.md")


def test_the_versions_agree():
    given = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    cited = re.search(r"^version: (.+)", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert rk.__version__ == given == cited == latest
