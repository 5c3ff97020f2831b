"""How many small changes of the code do the tests notice?

    pip install -r benchmarks/requirements.txt
    python benchmarks/mutants.py STATE [--sample 300] [--seed 0] [--processes 2]

Cosmic Ray changes the code in one place (a + to a -, a < to a <=, a number by one, a condition to
its opposite, …). Such a mutant is killed when a test fails or does not end. A sample of all mutants
of `training`, `evaluation`, `data` and `models` is tried, changes of type hints left out: nothing
reads them while the code runs. Each mutant is tried with the tests that run the changed line, the
quick ones first, in copies of the committed tree.

STATE is a folder for which tests run which line (measured once for a commit, some minutes) and for
what was tried. Started again, after tests were added, it keeps its sample and tries those that
survived; a mutant whose line is no longer there is left out. The share that is killed then is of a
sample that tests were written for: only another seed says how many of all are. Writes
results/mutants.json: the share of killed ones, and each survivor as a row.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from xml.etree import ElementTree

import resnet_kit as rk
from resnet_kit.evaluation import wilson_interval
from resnet_kit.files import atomic_file

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("training", "evaluation", "data", "models")
SIGNATURES = (
    "tests/test_signatures.py::test_public_calls_are_what_they_were"  # runs no line of them
)
LEFT_OUT = ("test_benchmarks", "test_campaigns", "test_docstrings", "test_site")


def pytest(tree: Path, *arguments: str, seconds: float | None = None):
    """Run pytest in a copy of the tree, where that copy is the package."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environment, timeout=seconds, capture_output=True, text=True
    )


def measure_lines(tree: Path, state: Path) -> None:
    """Run all tests once and note which run which line, and how long each takes."""
    ignored = [f"--ignore=tests/{name}.py" for name in LEFT_OUT]
    options = ["--cov=resnet_kit", "--cov-context=test", "--cov-report=", "-n", "auto"]
    report = f"--junitxml={state / 'seconds.xml'}"
    done = pytest(tree, "tests", "--dist", "loadscope", *ignored, *options, report)
    if done.returncode != 0:
        raise SystemExit(f"tests fail before anything is changed:\n{done.stdout[-3000:]}")
    (tree / ".coverage").replace(state / "coverage")


def seconds_of_tests(state: Path) -> dict[str, float]:
    """Return how long each test took, by its name as pytest takes it."""
    cases = ElementTree.parse(state / "seconds.xml").iter("testcase")
    return {
        f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}": float(case.get("time"))
        for case in cases
    }


def tests_of_lines(state: Path, module: str) -> dict[int, set[str]]:
    """Return for each line of a module the tests that run it."""
    from coverage import CoverageData

    data = CoverageData(str(state / "coverage"))
    data.read()
    file = next(f for f in data.measured_files() if f.endswith(module))
    return {
        line: {context.rsplit("|", 1)[0] for context in contexts if context}
        for line, contexts in data.contexts_by_lineno(file).items()
    }


def lines_to_look_at(code: str, line: int) -> range:
    """Return the lines whose tests may notice a change in a line: those of its statement.

    A signature runs at import, before any test: the tests of its function's body count. Where a
    line is in no function, those of the whole module do.
    """
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    around = [node for node in nodes if node.lineno <= line <= node.end_lineno]
    functions = [node for node in around if isinstance(node, ast.FunctionDef)]
    if not functions:
        return range(1, len(code.splitlines()) + 1)
    function, inner = functions[-1], around[-1]
    if inner is function:
        return range(function.body[0].lineno, function.end_lineno + 1)
    end = inner.body[0].lineno - 1 if hasattr(inner, "body") else inner.end_lineno
    return range(inner.lineno, max(end, inner.lineno) + 1)


def files_that_name(tree: Path, module: str) -> set[str]:
    """Return the test files that name a module, as those do that import a constant from it."""
    dotted = module.removesuffix(".py").replace("/", ".")
    files = (tree / "tests").glob("*.py")
    return {f"tests/{f.name}" for f in files if dotted in f.read_text(encoding="utf-8")}


def hints(code: str) -> list[tuple]:
    """Return where the type hints of a module begin and end."""
    found = []
    for node in ast.walk(ast.parse(code)):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(hint, ast.AST):
                found.append(
                    ((hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset))
                )
    return found


def all_mutants(state: Path) -> list[dict]:
    """Return every mutant of the rooms, but for those of type hints."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import WorkDB, use_db

    paths = [p for room in ROOMS for p in sorted((ROOT / "resnet_kit" / room).glob("*.py"))]
    hints_of = {path: hints(path.read_text(encoding="utf-8")) for path in paths}
    with use_db(str(state / "mutants.sqlite"), WorkDB.Mode.create) as database:
        init(paths, database, {})
        changes = [item.mutations[0] for item in database.work_items]
    mutants = []
    for change in changes:
        start, module = tuple(change.start_pos), change.module_path.relative_to(ROOT).as_posix()
        if not any(begin <= start < end for begin, end in hints_of[change.module_path]):
            mutant = {"module": module, "line": start[0], "operator": change.operator_name}
            mutants.append({**mutant, "occurrence": change.occurrence})
    return sorted(mutants, key=name_of)


def name_of(mutant: dict) -> str:
    operator = mutant["operator"].removeprefix("core/")
    return f"{mutant['module']}:{mutant['line']} {operator} {mutant['occurrence']}"


def looked_up(tried: dict[str, dict], mutants: list[dict]) -> tuple[dict, dict]:
    """Return what was tried, as it stands in the present code, and the mutants to try again.

    A mutant is the same where the same operator makes the same change in the same module; one whose
    line is no longer there is gone. What was killed stays so: tests only came to it.
    """
    codes = {m["module"]: (ROOT / m["module"]).read_text(encoding="utf-8") for m in mutants}
    found, again = {}, {}
    for name, about in tried.items():
        module, old_line = name.split(" ")[0].split(":")
        before = about["change"].split("  →  ")[0]
        lines = codes.get(module, "").splitlines()
        there = [number for number, line in enumerate(lines, 1) if line.strip() == before]
        found[name] = about
        if about["outcome"] == "killed" and there:
            continue
        same = [
            mutant
            for mutant in mutants
            if mutant["module"] == module
            and mutant["line"] in there
            and mutant["operator"].removeprefix("core/") == name.split(" ")[1]
            and change_of(mutant, codes[module]) == about["change"]
        ]
        if same:
            again[name] = min(same, key=lambda mutant: abs(mutant["line"] - int(old_line)))
        else:
            found[name] = {**about, "outcome": "gone"}
    return found, again


def change_of(mutant: dict, code: str) -> str:
    """Return the first line that a mutant changes, before and after."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    operator = get_operator(mutant["operator"])()
    return difference(code, mutate_code(code, operator, mutant["occurrence"]))


def try_mutant(mutant: dict, tree: Path, state: Path, seconds: dict, known: set[str]) -> dict:
    """Change the copy in one place, run the tests that could notice it, and change it back."""
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator

    path = tree / mutant["module"]
    code = path.read_text(encoding="utf-8")
    by_line = tests_of_lines(state, mutant["module"])
    lines = lines_to_look_at(code, mutant["line"])
    tests = set().union(*(by_line.get(line, set()) for line in lines))
    files = {test.split("::")[0] for test in tests}
    tests |= {test for test in known - set(seconds) if test.split("::")[0] in files}
    if len(lines) == len(code.splitlines()):  # a line of no function, such as a constant's
        named = files_that_name(tree, mutant["module"])
        tests |= {test for test in known if test.split("::")[0] in named}
    if not tests & known:
        return {"outcome": "survived", "tests": 0, "change": "no test runs this line"}
    chosen = sorted((tests | {SIGNATURES}) & known, key=lambda test: seconds.get(test, 0.0))
    chosen_file = tree / "chosen.txt"
    chosen_file.write_text("\n".join(chosen), encoding="utf-8")
    limit = 60 + 5 * sum(seconds.get(test, 5.0) for test in chosen)
    operator = get_operator(mutant["operator"])()
    with use_mutation(path, operator, mutant["occurrence"]) as (_, changed):
        change = difference(code, changed)
        try:
            done = pytest(tree, "-x", f"@{chosen_file}", seconds=limit)
            outcome = "survived" if done.returncode == 0 else "killed"
        except subprocess.TimeoutExpired:
            outcome = "killed"
    return {"outcome": outcome, "tests": len(chosen), "change": change}


def difference(code: str, changed: str) -> str:
    """Return the first line that was changed, before and after."""
    pairs = zip(code.splitlines(), changed.splitlines(), strict=False)
    before, after = next((a, b) for a, b in pairs if a != b)
    return f"{before.strip()}  →  {after.strip()}"


def try_all(mutants: list[dict], sample: int, seed: int, trees: list[Path], state: Path) -> dict:
    """Try the sample, or what of it survived before; note each outcome as soon as it is known."""
    notes = state / "tried.json"
    earlier = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
    collected = pytest(trees[0], "tests", "--collect-only").stdout.splitlines()
    known = {line for line in collected if "::" in line}
    seconds, free = seconds_of_tests(state), Queue()
    for tree in trees:
        free.put(tree)
    if len(earlier) < min(sample, len(mutants)):  # the first time, or it was interrupted
        drawn = random.Random(seed).sample(mutants, min(sample, len(mutants)))
        left = {name_of(mutant): mutant for mutant in drawn if name_of(mutant) not in earlier}
        tried = dict(earlier)
    else:
        tried, left = looked_up(earlier, mutants)

    def run(name: str) -> None:
        tree = free.get()
        found = try_mutant(left[name], tree, state, seconds, known)
        tried[name] = {**found, "now": name_of(left[name])}
        free.put(tree)
        with atomic_file(notes) as temporary:
            temporary.write_text(json.dumps(tried, indent=1), encoding="utf-8")
        print(len(tried), name, tried[name], flush=True)

    with ThreadPoolExecutor(len(trees)) as pool:
        list(pool.map(run, left))
    return tried


def rows_of(tried: dict[str, dict], total: int, seed: int, seconds: float) -> list[dict]:
    """Return a row for all rooms, one for each room, and one for each survivor."""
    rooms = defaultdict(list)
    tried = {name: found for name, found in tried.items() if found["outcome"] != "gone"}
    for name, found in tried.items():
        for room in ("all", name.split("/")[1]):
            rooms[room].append(found["outcome"] == "killed")
    about = {"split": f"of {total} mutants", "seed": seed, "seconds": None}
    rows = [
        {
            **about, "data": "resnet_kit" if room == "all" else f"resnet_kit/{room}",
            "model": "mutants of one place", "recipe": "tests that run the changed line",
            "metric": "share killed", "value": sum(killed) / len(killed), "n": len(killed),
            **dict(zip(("low", "high"), wilson_interval(sum(killed), len(killed)), strict=True)),
        }
        for room, killed in rooms.items()
    ]  # fmt: skip
    rows[0]["seconds"] = seconds
    again = [found for found in tried.values() if "now" in found]
    if again:  # these survived at first, and tests were written for them
        share = (len(tried) - len(again)) / len(tried)
        low, high = wilson_interval(len(tried) - len(again), len(tried))
        metric = "share killed before tests were written for the survivors"
        first = {"metric": metric, "value": share, "low": low, "high": high, "seconds": None}
        rows.insert(1, {**rows[0], **first})
    survivors = {
        found.get("now", name): found
        for name, found in tried.items()
        if found["outcome"] == "survived"
    }
    rows += [
        {
            **about, "data": name.split(" ")[0], "model": name.split(" ", 1)[1],
            "recipe": found["change"], "metric": "tests that run this line, and pass",
            "value": found["tests"], "low": None, "high": None, "n": 1,
        }
        for name, found in sorted(survivors.items())
    ]  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("state", type=Path)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    start, state = time.perf_counter(), given.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    trees = [state / f"tree{number}" for number in range(given.processes)]
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=trees[0], capture_output=True, text=True, check=True
    ).stdout
    measured = state / "commit"
    if not measured.is_file() or measured.read_text(encoding="utf-8") != commit:
        measure_lines(trees[0], state)
        measured.write_text(commit, encoding="utf-8")
    mutants = all_mutants(state)
    tried = try_all(mutants, given.sample, given.seed, trees, state)
    rows = rows_of(tried, len(mutants), given.seed, time.perf_counter() - start)
    command = f"python benchmarks/mutants.py STATE --sample {given.sample} --seed {given.seed}"
    rk.write_results(ROOT / "results" / "mutants.json", rows, command=command)
    print(f"{rows[0]['value']:.1%} of {rows[0]['n']} killed")


if __name__ == "__main__":
    main()
