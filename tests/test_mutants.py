"""What `benchmarks/mutants.py` decides before and after the tests run."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

CODE = '''\
LIMIT = 3


class Thing:
    size: int = 224

    def area(
        self, factor: float = 1.0, more: int | None = None
    ) -> float:
        """Return it."""
        if factor > LIMIT and (
            more is None
        ):
            return 0.0
        total = (
            self.size
            * factor
        )
        return total
'''


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import mutants

    return mutants


@pytest.mark.parametrize(
    "line, looked_at",
    [(1, (1, 19)), (5, (1, 19)), (8, (10, 19)), (12, (11, 13)), (16, (15, 18)), (19, (19, 19))],
    ids=["constant", "attribute", "signature", "condition", "within a statement", "one line"],
)
def test_a_mutant_is_tried_with_the_tests_of_its_statement(mutants, line, looked_at):
    lines = mutants.lines_to_look_at(CODE, line)
    assert (lines[0], lines[-1]) == looked_at


def test_type_hints_are_known(mutants):
    lines, found = CODE.splitlines(), []
    for (line, start), (last, end) in mutants.hints(CODE):
        assert line == last
        found.append(lines[line - 1][start:end])
    assert sorted(found) == ["float", "float", "int", "int | None"]


def test_files_that_import_a_constant_are_among_those_to_try(mutants, tmp_path):
    (tmp_path / "tests").mkdir()
    for name, code in (("test_a", "from resnet_kit.data.files import X"), ("test_b", "import os")):
        (tmp_path / "tests" / f"{name}.py").write_text(code)
    assert mutants.files_that_name(tmp_path, "resnet_kit/data/files.py") == {"tests/test_a.py"}


def test_a_sample_is_found_again_in_code_that_changed(mutants, tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "kit/data").mkdir(parents=True)
    (tmp_path / "kit/data/a.py").write_text("new = 0\nx = 1 + 2\ny = 3 + 4\n", encoding="utf-8")
    now = [
        {"module": "kit/data/a.py", "line": line, "operator": "core/Add_Sub", "occurrence": number}
        for number, line in enumerate((2, 3))
    ]
    changes = {2: "x = 1 + 2  →  x = 1 - 2", 3: "y = 3 + 4  →  y = 3 - 4"}
    monkeypatch.setattr(mutants, "change_of", lambda mutant, code: changes[mutant["line"]])
    tried = {
        "kit/data/a.py:1 Add_Sub 0": {"outcome": "survived", "tests": 5, "change": changes[2]},
        "kit/data/a.py:2 Add_Sub 1": {"outcome": "killed", "tests": 5, "change": changes[3]},
        "kit/data/a.py:3 Add_Sub 2": {
            "outcome": "killed",
            "tests": 5,
            "change": "z = 5 + 6  →  z = 5 - 6",
        },
        "kit/data/a.py:4 Add_Sub 3": {
            "outcome": "survived",
            "tests": 5,
            "change": "u = 7  →  u = 8",
        },
    }
    found, again = mutants.looked_up(tried, now)
    assert [about["outcome"] for about in found.values()] == ["survived", "killed", "gone", "gone"]
    assert again == {"kit/data/a.py:1 Add_Sub 0": now[0]}
    rows = mutants.rows_of(found, 2, 0, 1.0)
    assert (rows[0]["value"], rows[0]["n"]) == (0.5, 2), "what is gone does not count"
    found["kit/data/a.py:1 Add_Sub 0"] = {**tried["kit/data/a.py:2 Add_Sub 1"], "now": "a new test"}
    now, first, *_ = mutants.rows_of(found, 2, 0, 1.0)
    assert (now["value"], first["value"]) == (1.0, 0.5) and "before tests were" in first["metric"]


def test_the_record_holds_the_share_of_each_room_and_every_survivor(mutants):
    killed = {"outcome": "killed", "tests": 7, "change": "a + b  →  a - b"}
    survived = {**killed, "outcome": "survived"}
    tried = {
        "resnet_kit/data/images.py:3 Add_Sub 0": killed,
        "resnet_kit/training/loop.py:5 Add_Sub 1": survived,
        "resnet_kit/training/loop.py:6 Add_Sub 2": killed,
    }
    rows = mutants.rows_of(tried, 900, 0, 12.0)
    shares = {row["data"]: (row["value"], row["n"]) for row in rows[:3]}
    assert shares == {
        "resnet_kit": (pytest.approx(2 / 3), 3),
        "resnet_kit/data": (1.0, 1),
        "resnet_kit/training": (0.5, 2),
    }
    [survivor] = rows[3:]
    assert (survivor["data"], survivor["value"]) == ("resnet_kit/training/loop.py:5", 7)
    assert (
        mutants.difference("x = 1\ny = a + b\n", "x = 1\ny = a - b\n") == "y = a + b  →  y = a - b"
    )
