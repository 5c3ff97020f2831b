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
