import hashlib
import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import resnet_kit as rk
from conftest import write_picture
from resnet_kit.data import quarantine
from resnet_kit.data.quarantine import move_files, moves_of
from resnet_kit.drawn import draw
from resnet_kit.evaluation import Evaluation

CLASSES = ("0_cat", "1_dog")


@pytest.fixture
def pets(tmp_path):
    """Pictures of noise, 0.png and so on: train 3 + 3 and val 2 + 2 of the classes."""
    seed = 0
    for split, count in (("train", 3), ("val", 2)):
        for name in CLASSES:
            for index in range(count):
                write_picture(tmp_path / "pets" / split / name / f"{index}.png", seed, (80, 64))
                seed += 1
    return tmp_path / "pets"


def digests(root) -> dict[str, str]:
    """The sha256 of every file below a folder, by its path."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def suspects_table(root, *names: str) -> pd.DataFrame:
    """A table as `label_suspects` returns it: each file is taken for the other class."""
    labels = [name.split("/")[-2] for name in names]
    return pd.DataFrame(
        {
            "file": [root / name for name in names],
            "label": labels,
            "suggested": [CLASSES[1 - CLASSES.index(label)] for label in labels],
            "label_chance": 0.02,
            "suggested_chance": 0.9,
        }
    )


@pytest.fixture
def cleaning(pets):
    """Three suspects: two cats of train and a dog of val."""
    names = "train/0_cat/0.png", "train/0_cat/1.png", "val/1_dog/1.png"
    return rk.clean(suspects_table(pets, *names))


def inspect(root):
    return rk.inspect_folder(root, progress=False)


def test_nothing_is_touched_until_apply_and_undo_restores_every_byte(pets, cleaning, capsys):
    before = digests(pets.parent)
    cleaning.set_aside(0)
    cleaning.relabel(2, "0_cat")
    cleaning.set_aside(1)
    cleaning.keep(1)
    assert digests(pets.parent) == before
    cleaning.apply()
    said = capsys.readouterr().out
    assert said == (
        "1 picture set aside, 1 given another class. "
        "The name was taken, so there is now val/0_cat/1_2.png.\n"
    )
    after = digests(pets.parent)
    assert after.pop("pets_quarantine/moved.json")
    moved = {
        "pets/train/0_cat/0.png": "pets_quarantine/train/0_cat/0.png",
        "pets/val/1_dog/1.png": "pets/val/0_cat/1_2.png",
    }
    assert after == {moved.get(name, name): digest for name, digest in before.items()}
    assert cleaning.to_frame()["state"].tolist() == ["moved", "", "moved"]
    cleaning.undo()
    assert digests(pets) == {name[5:]: digest for name, digest in before.items()}
    assert capsys.readouterr().out == "2 files moved back.\n"
    assert cleaning.to_frame()["decision"].tolist() == ["set aside", "keep", "another class"]
    cleaning.apply()
    assert digests(pets.parent).keys() - after.keys() == {"pets_quarantine/moved.json"}


@pytest.mark.parametrize("restarted", ["clean", "report"])
def test_a_new_session_undoes_what_an_earlier_one_did(pets, cleaning, restarted):
    before = digests(pets)
    cleaning.set_aside(0)
    cleaning.relabel(1, "1_dog")
    cleaning.apply()
    inspect(pets).quarantine("val/0_cat/0.png")
    if restarted == "clean":
        rk.clean(inspect(pets)).undo()
    else:
        assert inspect(pets).undo_quarantine() == 3
    assert digests(pets) == before


def test_the_table_says_what_others_see_in_the_labels_of_folders(pets, cleaning):
    table = cleaning.to_frame()
    assert table["file"].tolist()[2] == "val/1_dog/1.png"
    assert table["label"].tolist() == ["0_cat", "0_cat", "1_dog"]
    assert table["suggested"].tolist() == ["1_dog", "1_dog", "0_cat"]
    assert table["why"][0] == "the other pictures say: dog 90.0%, cat 2.0%"
    assert set(table["decision"]) == {""} and "0 set aside" in repr(cleaning)
    cleaning.relabel(table.index[table["label"] == "0_cat"], "1_dog")
    assert "2 another class, 1 undecided; 0 moved" in repr(cleaning)
    assert cleaning.to_frame()["new_class"].tolist() == ["1_dog", "1_dog", ""]


def evaluation_of(root, wrong: dict[str, float]) -> Evaluation:
    """Predictions for val; files of `wrong` are taken for the other class, so confidently."""
    files = tuple(sorted((root / "val").glob("*/*.png")))
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    probabilities = np.eye(2, dtype=np.float32)[labels]
    for place, file in enumerate(files):
        if confidence := wrong.get(file.relative_to(root).as_posix()):
            probabilities[place] = 1 - confidence
            probabilities[place, 1 - labels[place]] = confidence
    return Evaluation(0.1, labels, probabilities, CLASSES, files)


def test_the_mistakes_of_an_evaluation_are_suspects_the_most_confident_first(pets):
    wrong = {"val/0_cat/1.png": 0.7, "val/1_dog/0.png": 0.9}
    table = rk.clean(evaluation_of(pets, wrong)).to_frame()
    assert table["file"].tolist() == ["val/1_dog/0.png", "val/0_cat/1.png"]
    assert table["suggested"].tolist() == ["0_cat", "1_dog"]
    assert table["why"].tolist() == ["the model says: cat 90.0%", "the model says: dog 70.0%"]


def test_a_model_scored_on_a_folder_leads_to_its_files(pets):
    loaders = rk.image_folders(pets, size=16, mean=[0] * 3, std=[1] * 3, announce=False)
    model = rk.cifar_resnet(8, num_classes=2)
    result = rk.evaluate(model, loaders.val, progress=False)
    cleaning = rk.clean(result)
    assert len(cleaning.to_frame()) == (~result.correct).sum() > 0
    assert all((pets / name).is_file() for name in cleaning.to_frame()["file"])


def test_a_mistake_without_probabilities_suggests_no_class(pets):
    result = evaluation_of(pets, {})
    result.probabilities[0] = np.nan
    assert rk.clean(result).to_frame()["suggested"].tolist() == [""]


def test_copies_and_problems_of_a_report_are_suspects(tmp_path):
    pets = tmp_path / "pets"
    for split in ("eval", "train"):
        for label, name in enumerate(CLASSES):
            for index in range(2):
                seed = 10 * label + index + 100 * (split == "train")
                (pets / split / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw(name[2:], seed, size=96)).save(
                    pets / split / name / f"{index}.png"
                )
    copies = {
        "eval/0_cat/copy.png": "train/0_cat/0.png",  # leaks: that outside train is suspect
        "train/1_dog/copy.png": "train/1_dog/0.png",  # the second of two
        "train/1_dog/cat.png": "train/0_cat/1.png",  # either can be wrong
    }
    for copy, original in copies.items():
        shutil.copy(pets / original, pets / copy)
    (pets / "train/0_cat/broken.jpg").write_bytes(b"no picture")
    (pets / "train/0_cat/notes.txt").write_text("no picture either, and never read as one")
    Image.new("RGB", (20, 20), "black").save(pets / "train/1_dog/dark.png")
    table = rk.clean(inspect(pets)).to_frame().set_index("file")
    assert table["copy_of"].to_dict() == {
        "train/0_cat/broken.jpg": "",
        "train/1_dog/cat.png": "train/0_cat/1.png",
        "train/0_cat/1.png": "train/1_dog/cat.png",
        "eval/0_cat/copy.png": "train/0_cat/0.png",
        "train/1_dog/copy.png": "train/1_dog/0.png",
        "train/1_dog/dark.png": "",
    }
    assert table.index[0] == "train/0_cat/broken.jpg", "what stops a training comes first"
    why = table["why"]
    assert why["train/0_cat/broken.jpg"].startswith("unreadable: it is no picture")
    assert why["train/1_dog/cat.png"] == "exact copy in two classes"
    assert why["eval/0_cat/copy.png"] == "exact copy in two splits"
    assert why["train/1_dog/copy.png"] == "exact copy"
    assert "small: 20 x 20 pixels; dark: " in why["train/1_dog/dark.png"]


def test_a_folder_without_splits_is_cleaned_too(pets):
    root = pets / "train"
    root.rename(pets.parent / "all")
    root = pets.parent / "all"
    cleaning = rk.clean(suspects_table(root, "0_cat/2.png"))
    cleaning.relabel(0, "1_dog")
    cleaning.apply()
    assert (root / "1_dog/2_2.png").is_file() and (root / "1_dog/2.png").is_file()
    assert moves_of(root) == [("0_cat/2.png", "1_dog/2_2.png")]


def test_folders_inside_a_class_are_kept_and_names_may_repeat(pets):
    deep = write_picture(pets / "train/0_cat/1_dog/0_cat/a.png", 50)
    table = suspects_table(pets, deep.relative_to(pets).as_posix())
    cleaning = rk.clean(table)
    cleaning.relabel(0, "1_dog")
    cleaning.apply()
    assert (pets / "train/1_dog/1_dog/0_cat/a.png").is_file()


def test_two_files_of_one_name_find_room_in_one_class(pets):
    write_picture(pets / "train/2_bee/0.png", 70)
    write_picture(pets / "train/2_bee/9.png", 71)
    cleaning = rk.clean(suspects_table(pets, "train/0_cat/0.png", "train/1_dog/0.png"))
    cleaning.relabel([0, 1], "2_bee")
    before = digests(pets)
    cleaning.apply()
    after = digests(pets)
    assert after["train/2_bee/0.png"] == before["train/2_bee/0.png"]
    assert after["train/2_bee/0_2.png"] == before["train/0_cat/0.png"]
    assert after["train/2_bee/0_3.png"] == before["train/1_dog/0.png"]
    cleaning.undo()
    assert digests(pets) == before


def test_a_name_that_is_taken_in_the_quarantine_gets_a_number(pets, cleaning):
    cleaning.set_aside(0)
    cleaning.apply()
    write_picture(pets / "train/0_cat/0.png", 60)
    again = rk.clean(suspects_table(pets, "train/0_cat/0.png"))
    again.set_aside(0)
    again.apply()
    folder = pets.with_name("pets_quarantine") / "train/0_cat"
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "0_2.png"]
    with pytest.raises(FileExistsError, match=r"0\.png is the place of two files; nothing"):
        again.undo()
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "0_2.png"]


def test_what_is_gone_or_changed_is_said_and_left_alone(pets, cleaning, capsys):
    (pets / "train/0_cat/0.png").unlink()
    write_picture(pets / "train/0_cat/1.png", 99, (50, 40))
    cleaning.set_aside([0, 1, 2])
    cleaning.apply()
    assert capsys.readouterr().out == (
        "1 picture set aside, 0 given another class. Left alone: "
        "train/0_cat/0.png is gone, train/0_cat/1.png was changed meanwhile.\n"
    )
    assert cleaning.to_frame()["state"].tolist() == ["is gone", "was changed meanwhile", "moved"]
    (pets.with_name("pets_quarantine") / "val/1_dog/1.png").unlink()
    cleaning.undo()
    assert capsys.readouterr().out == "0 files moved back; 1 no longer where it was put.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_an_interrupted_apply_loses_nothing_and_knows_what_it_did(
    pets, cleaning, monkeypatch, error
):
    before, move = digests(pets), shutil.move

    def second_fails(source, target):
        if source.name == "1.png":
            raise error
        move(source, target)

    monkeypatch.setattr(quarantine.shutil, "move", second_fails)
    cleaning.set_aside([0, 1, 2])
    with pytest.raises(error):
        cleaning.apply()
    assert moves_of(pets) == [("train/0_cat/0.png", "../pets_quarantine/train/0_cat/0.png")]
    assert cleaning.to_frame()["state"].tolist() == ["moved", "", ""]
    monkeypatch.undo()
    cleaning.apply()
    assert cleaning.to_frame()["state"].tolist() == ["moved"] * 3 and len(moves_of(pets)) == 3
    cleaning.undo()
    assert digests(pets) == before


def test_an_apply_or_undo_that_was_killed_can_be_undone(pets, monkeypatch):
    before = digests(pets)
    chain = {"train/0_cat/0.png": "train/1_dog/7.png", "train/1_dog/0.png": "train/0_cat/0.png"}
    with (
        monkeypatch.context() as patched
    ):  # the journal of a killed process names more than was done
        patched.setattr(quarantine.shutil, "move", lambda source, target: None)
        move_files(pets, {"train/0_cat/2.png": "train/1_dog/8.png"})
    for name, place in chain.items():
        move_files(pets, {name: place})
    assert len(moves_of(pets)) == 3
    steps = []

    def killed_after_the_first(source, target):
        if steps:
            raise SystemExit
        steps.append(os.rename(source, target))

    with monkeypatch.context() as patched:
        patched.setattr(quarantine.shutil, "move", killed_after_the_first)
        with pytest.raises(SystemExit):
            quarantine.undo_moves(pets)
    assert digests(pets) != before and len(moves_of(pets)) == 2
    assert quarantine.undo_moves(pets) == 1
    assert digests(pets) == before and moves_of(pets) == []


def test_files_that_moved_through_each_others_places_are_undone(pets):
    before = digests(pets)
    for name, place in (("0_cat/0", "0_cat/7"), ("1_dog/0", "0_cat/0"), ("0_cat/0", "1_dog/8")):
        move_files(pets, {f"train/{name}.png": f"train/{place}.png"})
    assert quarantine.undo_moves(pets) == 3 and digests(pets) == before


def test_an_interrupted_undo_knows_what_is_back(pets, cleaning, panel, monkeypatch):
    before, move = digests(pets), shutil.move
    cleaning.set_aside([0, 1])
    cleaning.apply()

    def second_fails(source, target):
        if source.name == "0.png":
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(quarantine.shutil, "move", second_fails)
    panel.undo.click()
    assert panel.said.value == "Stopped: you interrupted it."
    assert cleaning.to_frame()["state"].tolist() == ["moved", "", ""]
    assert panel.undo.description == "Undo all (1)" and panel.apply.description == "Apply (1)"
    monkeypatch.undo()
    cleaning.undo()
    assert digests(pets) == before


def test_nothing_is_overwritten_even_where_a_file_appears_at_the_last_moment(pets):
    before = digests(pets)
    with pytest.raises(FileExistsError, match=r"1\.png is there already; .*0\.png was not moved"):
        move_files(pets, {"train/0_cat/0.png": "train/1_dog/1.png"})
    assert digests(pets) == before and moves_of(pets) == []


def test_journals_of_earlier_versions_are_undone(pets):
    before = digests(pets)
    folder = inspect(pets).quarantine("train/0_cat/0.png")
    (folder / "moved.json").write_text(json.dumps(["train/0_cat/0.png"]))
    rk.clean(inspect(pets)).undo()
    assert digests(pets) == before


def test_wrong_decisions_are_refused_and_change_nothing(cleaning):
    with pytest.raises(ValueError, match="new_class is 'dog'; expected one of: 0_cat, 1_dog"):
        cleaning.relabel(0, "dog")
    with pytest.raises(ValueError, match="row is 3; expected a number of one of the 3 rows"):
        cleaning.set_aside([0, 3])
    with pytest.raises(ValueError, match=r"val/1_dog/1\.png is in 1_dog already; keep"):
        cleaning.relabel([0, 2], "1_dog")
    assert set(cleaning.to_frame()["decision"]) == {""}
    cleaning.set_aside(0)
    cleaning.apply()
    with pytest.raises(ValueError, match=r"0\.png was moved already; undo\(\) brings it back"):
        cleaning.keep(0)


def test_what_is_no_list_of_suspects_is_refused(pets):
    with pytest.raises(TypeError, match="suspects is a str; expected the report of"):
        rk.clean("pets")
    with pytest.raises(TypeError, match="suspects is a DataFrame; expected the report of"):
        rk.clean(inspect(pets).duplicates())
    table = suspects_table(pets, "train/0_cat/0.png")
    with pytest.raises(ValueError, match="the table is empty: no picture is suspect"):
        rk.clean(table[:0])
    with pytest.raises(ValueError, match="the table has no column file"):
        rk.clean(table.drop(columns="file"))
    with pytest.raises(ValueError, match=r"0\.png lies in no folder of its class \(1_dog\)"):
        rk.clean(table.assign(label="1_dog"))
    result = evaluation_of(pets, {})
    with pytest.raises(ValueError, match="the pictures of this evaluation come from no files"):
        rk.clean(Evaluation(0.1, result.labels, result.probabilities, CLASSES))


def test_without_ipywidgets_there_is_a_table_and_a_word(cleaning, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.delitem(sys.modules, "resnet_kit.panel", raising=False)
    bundle = cleaning._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "text/html"}
    assert "pip install ipywidgets" in bundle["text/plain"]
    assert "pip install ipywidgets" in bundle["text/html"] and "<table" in bundle["text/html"]
    cleaning.set_aside(0)
    cleaning.apply()
    assert cleaning.to_frame()["state"][0] == "moved"


@pytest.fixture
def panel(cleaning):
    """The buttons of a cleaning that is shown."""
    pytest.importorskip("ipywidgets", reason="the buttons need ipywidgets")
    bundle = cleaning._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "<table" in bundle["text/html"]
    return cleaning._panel


def test_buttons_decide_apply_and_undo(pets, cleaning, panel):
    before = digests(pets)
    assert panel.counter.value == "<b>1 of 3</b> · 0 decided" and panel.back.disabled
    assert panel.classes.value == "1_dog" and "Class: cat" in panel.text.value
    assert ("dog", "1_dog") in panel.classes.options and panel.apply.disabled
    panel.decisions["another class"].click()
    panel.decisions["set aside"].click()
    panel.decisions["keep"].click()
    assert panel.counter.value == "<b>3 of 3</b> · 3 decided" and panel.next.disabled
    assert digests(pets) == before and panel.apply.description == "Apply (2)"
    panel.apply.click()
    assert "1 picture set aside, 1 given another class" in panel.said.value
    assert panel.apply.disabled and panel.undo.description == "Undo all (2)"
    panel.back.click()
    assert "Decision: set aside (done)" in panel.text.value and panel.decisions["keep"].disabled
    assert bytes(panel.picture.image.value).startswith(b"\xff\xd8"), "it is shown where it is now"
    panel.undo.click()
    assert digests(pets) == before and panel.undo.disabled
    assert not panel.decisions["keep"].disabled and panel.apply.description == "Apply (2)"


def test_buttons_follow_decisions_made_by_code(cleaning, panel):
    cleaning.set_aside([0, 1])
    assert panel.apply.description == "Apply (2)" and "2 decided" in panel.counter.value
    assert "Decision: set aside" in panel.text.value


def test_a_class_has_to_be_chosen_before_it_is_given(cleaning, panel):
    panel.classes.value = ""
    panel.decisions["another class"].click()
    assert "Choose the class" in panel.said.value and not cleaning.waiting()


def test_buttons_say_what_went_wrong(pets, cleaning, panel):
    cleaning.set_aside(0)
    pets.with_name("pets_quarantine").write_text("a file in its place")
    panel.apply.click()
    assert panel.said.value.startswith("Stopped: ") and "pets_quarantine" in panel.said.value
    (pets / "train/0_cat/0.png").unlink()
    panel.go(0)
    assert panel.picture.image.layout.display == "none"
    assert "The file is gone." in panel.picture.line.value


def test_names_of_files_are_text_and_no_html(pets):
    name = "train/0_cat/<img src=x onerror=alert(1)>.png"
    write_picture(pets / name, 80)
    cleaning = rk.clean(suspects_table(pets, name))
    pytest.importorskip("ipywidgets", reason="the buttons need ipywidgets")
    bundle = cleaning._repr_mimebundle_()
    assert "<img" not in bundle["text/html"] and "<img" not in cleaning._panel.picture.line.value


def test_buttons_of_no_suspects_only_undo(pets):
    pytest.importorskip("ipywidgets", reason="the buttons need ipywidgets")
    report = inspect(pets)
    report.quarantine("val/0_cat/0.png")
    cleaning = rk.clean(inspect(pets))
    cleaning._repr_mimebundle_()
    panel = cleaning._panel
    assert "no suspect" in panel.counter.value and panel.decisions["keep"].disabled
    panel.undo.click()
    assert "1 file moved back." in panel.said.value and (pets / "val/0_cat/0.png").is_file()
