import json

import numpy as np
import pytest

import resnet_kit as rk
from resnet_kit.evaluation import Evaluation
from resnet_kit.results import ROW


def test_results_carry_where_they_come_from(tmp_path):
    row = {**dict.fromkeys(ROW), "value": 0.5, "extra": 1}
    path = tmp_path / "trial.json"
    rk.write_results(path, [row], command="python trial.py", curves={"a": [{"epoch": 1}]})
    found = rk.read_results(path)
    assert found == json.loads(path.read_text())
    assert found["name"] == "trial" and found["command"] == "python trial.py"
    assert set(found["versions"]) >= {"python", "torch", "torchvision"} and found["hardware"]
    assert found["rows"] == [row] and found["curves"] == {"a": [{"epoch": 1}]}


def test_incomplete_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a row lacks data, split"):
        rk.write_results(tmp_path / "a.json", [{"value": 1}], command="")
    assert not (tmp_path / "a.json").exists()


def test_an_evaluation_becomes_a_row():
    result = Evaluation(
        0.5, np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]], np.float32), ("a", "b")
    )
    about = {"data": "d", "split": "test", "model": "m", "recipe": "r", "seed": 3}
    row = rk.accuracy_row(result, **about)
    assert tuple(row) == ROW and row["value"] == 0.5 and row["n"] == 2 and row["seed"] == 3
    assert row["low"] < 0.5 < row["high"]
