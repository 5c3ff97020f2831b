import json

import pytest

import resnet_kit as rk
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
