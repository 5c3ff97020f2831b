import importlib.util
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

import resnet_kit as rk
from conftest import write_picture
from resnet_kit import classifier
from resnet_kit.data.images import picture_files
from resnet_kit.files import read_weights
from resnet_kit.models.resnets import cifar_resnet


@pytest.fixture
def of_files(folder):
    """A small net for the classes a and b, and its loaders."""
    rk.seed_everything(0)
    source = rk.weights("resnet18", None)
    loaders = rk.image_folders(folder, like=source, size=16, workers=0)
    return cifar_resnet(8, num_classes=2), loaders


@pytest.fixture
def of_torchvision(of_files):
    """The same loaders, and torchvision's ResNet-18 with the package's weights."""
    return rk.pretrained(rk.weights("resnet18", "tiny"), num_classes=2), of_files[1]


@pytest.fixture
def of_arrays():
    rk.seed_everything(0)
    return cifar_resnet(8, in_channels=1), rk.named_dataset("digits")


def test_predictions_are_those_of_evaluate(of_torchvision, tmp_path):
    model, loaders = of_torchvision
    path = rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, calibrate=False)
    clf = rk.load_classifier(path)
    table = clf.predict(list(loaders.files["val"]))
    live = rk.evaluate(model, loaders.val)
    assert table["predicted"].tolist() == [live.classes[k] for k in live.predictions]
    assert np.allclose(table["confidence"], live.probabilities.max(1), atol=1e-6)
    assert table["picture"].tolist() == [str(file) for file in loaders.files["val"]]
    assert list(table.columns) == ["picture", "predicted", "confidence"]
    assert repr(clf).startswith("Classifier(resnet18, 16 px, 2 classes: a, b; val accuracy ")


def test_a_path_that_cannot_be_written_is_refused_before_val_is_scored(
    of_files, tmp_path, monkeypatch
):
    monkeypatch.setattr(classifier, "evaluate", None)  # whoever calls it fails otherwise
    with pytest.raises(ValueError, match=r"written as \.safetensors, not ab\.pt"):
        rk.save_classifier(tmp_path / "ab.pt", *of_files)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        rk.save_classifier(tmp_path / "file" / "ab.safetensors", *of_files)


@pytest.mark.usefixtures("on_cpu")
def test_arrays_and_cifar_nets_come_back_exactly(of_arrays, tmp_path):
    model, data = of_arrays
    path = rk.save_classifier(tmp_path / "d.safetensors", model, data, calibrate=False)
    clf = rk.load_classifier(path)
    images = data.test.dataset.images[:40, 0].cpu().numpy()
    table = clf.predict(list(images), top_k=3, batch_size=16)
    with torch.no_grad():
        inputs = torch.stack([data.test.dataset[i][0] for i in range(40)])
        expected = torch.cat([model.eval()(part).softmax(1) for part in inputs.split(16)])
    assert np.array_equal(table["confidence"].to_numpy(np.float32), expected.max(1).values.numpy())
    best = expected.topk(3).indices
    names = table[["predicted", "class 2", "class 3"]].to_numpy()
    assert [[data.classes[k] for k in row] for row in best] == names.tolist()
    assert (table["confidence 2"] >= table["confidence 3"]).all()


def load_and_predict(path: Path, pictures: Path) -> pd.DataFrame:
    return rk.load_classifier(path).predict(pictures)


@pytest.mark.usefixtures("on_cpu")
def test_a_fresh_process_predicts_bit_for_bit_the_same(of_files, folder, tmp_path, elsewhere):
    model, loaders = of_files
    path = rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, calibrate=True)
    here = load_and_predict(path, folder / "eval")
    assert elsewhere(load_and_predict, path, folder / "eval").equals(here) and len(here) == 5


def test_any_kind_of_picture_will_do(of_files, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", *of_files))
    file = write_picture(tmp_path / "one.png", seed=5, size=(40, 30))
    picture = Image.open(file)
    pixels = np.asarray(picture)
    wanted = clf.predict(file)["confidence"][0]
    for given in (str(file), [file], picture, pixels, pixels[None], [picture], [pixels]):
        assert clf.predict(given)["confidence"].tolist() == [wanted]
    grey = Image.fromarray(pixels[..., 0])
    assert clf.predict([grey, np.asarray(grey)])["confidence"].nunique() == 1
    turned = picture.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise before it is shown
    turned.save(tmp_path / "turned.png", exif=exif)
    assert clf.predict(tmp_path / "turned.png")["confidence"][0] == wanted


def test_nothing_to_predict_is_refused(of_files, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", *of_files))
    for nothing in ([], np.zeros((0, 16, 16, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"no pictures in (list|ndarray); expected a file"):
            clf.predict(nothing)


def test_what_cannot_be_read_gets_a_row_with_its_problem(of_files, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", *of_files))
    good = write_picture(tmp_path / "new" / "a.png")
    (tmp_path / "new" / "b.jpg").write_bytes(b"no picture")
    table = clf.predict(tmp_path / "new", batch_size=1)
    assert table["predicted"].isna().tolist() == [False, True]
    assert "cannot read" in table["problem"][1] and table["problem"].isna()[0]
    table = clf.predict([good, tmp_path / "missing.jpg", np.zeros((3, 4), np.float32)])
    assert table["problem"].isna().tolist() == [True, False, False]
    assert clf.predict([good])["confidence"][0] == table["confidence"][0]


def test_predictions_are_shown_beside_their_pictures(of_files, folder, tmp_path):
    model, loaders = of_files
    path = rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, calibrate=True)
    clf = rk.load_classifier(path)
    (folder / "eval" / "a" / "0.png").write_bytes(b"no picture")
    table = clf.predict(folder / "eval")
    figure = clf.plot(folder / "eval", n=4)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    good = table[:4].dropna(subset="predicted")
    assert titles == [f"{r.predicted} {r.confidence:.0%}" for r in good.itertuples()]
    assert len(good) == 3
    with pytest.raises(ValueError, match="none of the first 1 pictures can be read: cannot read"):
        clf.plot([folder / "eval" / "a" / "0.png"])


def test_names_have_no_sorting_prefix_in_figures_and_are_the_folders_in_tables(folder, tmp_path):
    for split in ("train", "eval"):
        (folder / split / "a").rename(folder / split / "0_cat")
        (folder / split / "b").rename(folder / split / "1_dog")
    loaders = rk.image_folders(folder, size=16, workers=0)
    model = cifar_resnet(8, num_classes=2)
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "x.safetensors", model, loaders))
    table = clf.predict(folder / "eval", top_k=2)
    assert clf.classes == ("0_cat", "1_dog") and {*table["predicted"]} <= {*clf.classes}
    titles = [axes.get_title() for axes in clf.plot(folder / "eval").axes]
    rows = table.itertuples()
    assert titles == [f"{row.predicted[2:]} {row.confidence:.0%}" for row in rows]


def test_calibration_lowers_the_loss_and_unlike_pictures_are_marked(of_arrays, tmp_path):
    model, data = of_arrays
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rk.train_and_eval(model, 4, nn.CrossEntropyLoss(), optimizer, data.train, data.val)
    with torch.no_grad():
        model.fc.weight.mul_(5)  # far too sure of itself
        model.fc.bias.mul_(5)
    path = rk.save_classifier(tmp_path / "d.safetensors", model, data, calibrate=True)
    clf = rk.load_classifier(path)
    assert clf.about["temperature"] > 2 and 0 < clf.about["false_alarms"] < 0.15
    digits = list(data.test.dataset.images[:, 0].cpu().numpy())
    table = clf.predict(digits)
    actual = [data.classes[k] for k in data.test.dataset.labels]
    right = (table["predicted"] == actual).mean()
    plain = rk.evaluate(model, data.test)
    assert abs(table["confidence"].mean() - right) < abs(
        plain.probabilities.max(1).mean() - plain.accuracy
    )
    assert table["unlike"].mean() == pytest.approx(clf.about["false_alarms"])
    noise = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    assert clf.predict(list(noise))["unlike"].mean() > 3 * table["unlike"].mean()


@pytest.mark.usefixtures("on_cpu")
def test_the_file_says_what_it_was_made_of(of_torchvision, tmp_path):
    model, loaders = of_torchvision
    path = rk.save_classifier(tmp_path / "a.safetensors", model, loaders)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["resnet_kit"])
    assert about["built"] == {"name": "resnet18"} and about["classes"] == ["a", "b"]
    assert about["versions"]["torch"] == torch.__version__
    again = rk.save_classifier(tmp_path / "b.safetensors", model, loaders)
    assert again.read_bytes() == path.read_bytes()


def test_loading_leaves_the_random_numbers_alone(of_files, tmp_path):
    path = rk.save_classifier(tmp_path / "ab.safetensors", *of_files)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    rk.load_classifier(path)
    assert torch.equal(torch.rand(4), expected)


def test_models_of_unknown_make_need_their_name(of_torchvision, tmp_path):
    model, loaders = of_torchvision
    del model.built
    with pytest.raises(ValueError, match=r"not known how to build this ResNet again; give its nam"):
        rk.save_classifier(tmp_path / "ab.safetensors", model, loaders)
    with pytest.raises(ValueError, match="the model does not fit this ResNet"):
        rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, arch="resnet34")
    assert not list(tmp_path.glob("*.safetensors"))
    path = rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, arch="resnet18")
    assert rk.load_classifier(path).about["built"] == {"name": "resnet18"}


def test_other_files_are_refused(of_arrays, tmp_path):
    model, data = of_arrays
    with pytest.raises(FileNotFoundError, match=r"no file .*none.safetensors"):
        rk.load_classifier(tmp_path / "none.safetensors")
    weights = rk.save_weights(model, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="is no classifier; expected a file that save_classifier"):
        rk.load_classifier(weights)
    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match="holds more than tensors"):
        rk.load_classifier(tmp_path / "whole.pth")
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "d.safetensors", model, data))
    with pytest.raises(ValueError, match="top_k is 11; expected 1 to 10"):
        clf.predict(np.zeros((8, 8), np.uint8), top_k=11)
    for nothing in ([], 5, None):
        with pytest.raises(ValueError, match="no pictures in"):
            clf.predict(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no pictures in .*empty"):
        clf.predict(tmp_path / "empty")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The tensors and the metadata of a classifier's file."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    split = images, np.arange(20) % 10
    data = rk.array_loaders(train=split, val=split)
    path = tmp_path_factory.mktemp("written") / "d.safetensors"
    return read_weights(rk.save_classifier(path, cifar_resnet(8, in_channels=1), data))


LEFT_OUT = "left out"


def rewritten(written, path: Path, change: dict) -> Path:
    """Write the file with other metadata, and with the digest that belongs to them."""
    tensors, about = written
    changed = {k: v for k, v in (about | change).items() if k != "digest" and v != LEFT_OUT}
    digest = {"digest": classifier.digest_of_file(tensors, changed)}
    return rk.save_weights(tensors, path, metadata=changed | digest)


def test_a_file_that_is_written_again_is_loaded(written, tmp_path):
    """What the next test refuses is refused for its change alone."""
    assert rk.load_classifier(rewritten(written, tmp_path / "d.safetensors", {})).classes


@pytest.mark.parametrize(
    "change",
    [
        {"built": {"name": "resnet99"}},
        {"built": {"name": "cifar_resnet", "x": 1}},
        {"built": {"name": "cifar_resnet", "depth": 8, "in_channels": -1}},
        {"built": None},
        {"classes": 3},
        {"classes": [1, 2]},
        {"classes": ["a", "a"]},
        {"mean": [0.5, 0.5]},
        {"mean": [float("nan")]},
        {"std": [0.0]},
        {"size": 0},
        {"size": 2.5},
        {"size": True},
        {"size": 10**9},
        {"resize": 10**30},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"temperature": 1e-320},
        {"temperature": 10**30},
        {"limit": LEFT_OUT},
        {"limit": float("inf")},
        {"val_accuracy": LEFT_OUT},
        {"val_accuracy": "high"},
    ],
    ids=str,
)
def test_consistent_files_of_nonsense_are_refused(written, tmp_path, change):
    path = rewritten(written, tmp_path / "d.safetensors", change)
    with pytest.raises(ValueError, match="makes no sense|of another make|no classifier 'resnet99'"):
        rk.load_classifier(path)


def test_onnx_gives_the_same_probabilities(of_torchvision, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [export] is not installed")
    pytest.importorskip("onnxscript", reason="the extra [export] is not installed")
    model, loaders = of_torchvision
    clf = rk.load_classifier(
        rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, calibrate=True)
    )
    path = clf.export_onnx(tmp_path / "ab.onnx")
    session = onnxruntime.InferenceSession(str(path))
    images = torch.rand(5, 3, 16, 16)
    found = session.run(None, {"pictures": images.numpy()})[0]
    mean, std = (torch.tensor(clf.about[x])[:, None, None] for x in ("mean", "std"))
    with torch.no_grad():
        logits = model.eval().cpu()((images - mean) / std) / clf.about["temperature"]
    assert np.allclose(found, logits.softmax(1).numpy(), atol=1e-4)


def test_lists_of_any_kind_and_wrong_items_are_taken(of_files, folder, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", *of_files))
    files = picture_files(folder / "eval")
    wanted = clf.predict(files)
    names = pd.Series([str(file) for file in files])
    for given in (names, names.to_numpy(), (file for file in files)):
        assert clf.predict(given).equals(wanted)
    table = clf.predict([files[0], None])
    assert table["problem"].isna().tolist() == [True, False]


def test_a_model_that_its_name_does_not_bring_back_is_refused(of_torchvision, tmp_path):
    model, loaders = of_torchvision
    model.maxpool = nn.Identity()  # for small pictures; no weight tells
    with pytest.raises(ValueError, match="computes something else than a resnet18 with its weigh"):
        rk.save_classifier(tmp_path / "ab.safetensors", model, loaders)
    assert not list(tmp_path.glob("*.safetensors"))


def test_pictures_with_transparency_are_refused_when_saving(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 4), dtype=np.uint8)
    split = images, np.arange(20) % 10
    data = rk.array_loaders(train=split, val=split)
    with pytest.raises(ValueError, match="pictures of 4 channels; expected grey or RGB"):
        rk.save_classifier(tmp_path / "d.safetensors", cifar_resnet(8, in_channels=4), data)


def test_a_net_without_a_linear_head_predicts_too(of_files, folder, tmp_path):
    _, loaders = of_files
    larger = rk.image_folders(folder, size=32, workers=0)
    model = rk.pretrained(rk.weights("squeezenet1_1", None), num_classes=2)
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "s.safetensors", model, larger))
    assert clf.predict(loaders.files["val"][0])["predicted"][0] in ("a", "b")


def test_tensors_as_read_image_gives_them_are_pictures(of_files, tmp_path):
    model, loaders = of_files
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", model, loaders))
    files = list(loaders.files["val"][:2])
    pictures = [rk.read_image(file) for file in files]
    expected = clf.predict(files)["confidence"].tolist()
    assert clf.predict(pictures)["confidence"].tolist() == expected
    one = clf.predict(pictures[0])
    assert len(one) == 1 and np.allclose(one["confidence"][0], expected[0], atol=1e-5)
    with pytest.raises(ValueError, match="batch_size is 0"):
        clf.predict(files, batch_size=0)


def test_several_threads_may_ask_at_once(of_arrays, tmp_path):
    model, data = of_arrays
    path = rk.save_classifier(tmp_path / "d.safetensors", model, data, calibrate=True)
    clf = rk.load_classifier(path)
    images = list(data.test.dataset.images[:9, 0].cpu().numpy())
    counts = [3, 5, 7, 9] * 3
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda n: clf.predict(images[:n]), counts))
    assert [len(table) for table in tables] == counts


def test_broken_weights_are_not_kept(of_arrays, tmp_path):
    model, data = of_arrays
    nn.init.constant_(model.fc.weight, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        rk.save_classifier(tmp_path / "d.safetensors", model, data)


def test_numpys_numbers_are_kept_as_numbers(folder, tmp_path):
    mean, std = np.full(3, 0.5, np.float32), torch.full((3,), 0.25)
    loaders = rk.image_folders(folder, size=np.int64(16), mean=mean, std=std, workers=0)
    model = cifar_resnet(8, num_classes=2)
    assert rk.load_classifier(rk.save_classifier(tmp_path / "x.safetensors", model, loaders))


def test_a_classifiers_file_given_as_weights_says_what_it_is(of_files, tmp_path):
    path = rk.save_classifier(tmp_path / "ab.safetensors", *of_files)
    with pytest.raises(ValueError, match="load_classifier"):
        rk.load_weights(of_files[0], path)


def test_what_is_not_there_is_refused_and_addresses_too(of_files, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", *of_files))
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*none.jpg"):
        clf.predict("none.jpg")
    with pytest.raises(ValueError, match="https://x.org/a.jpg is an address; download it first"):
        clf.predict("https://x.org/a.jpg")


def test_bytes_open_files_and_stacks_of_grey_pictures_are_read(of_files, of_arrays, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "ab.safetensors", *of_files))
    file = write_picture(tmp_path / "one.png", seed=5, size=(40, 30))
    wanted = clf.predict(file)["confidence"].tolist()
    data = file.read_bytes()
    for given in (data, io.BytesIO(data), [data], [io.BytesIO(data)]):
        assert clf.predict(given)["confidence"].tolist() == wanted
    with file.open("rb") as opened:
        assert clf.predict(opened)["confidence"].tolist() == wanted
    assert len(clf.plot(io.BytesIO(data)).axes) == 1
    digits = rk.load_classifier(rk.save_classifier(tmp_path / "d.safetensors", *of_arrays))
    images = of_arrays[1].test.dataset.images[:5, 0].cpu()
    one_by_one = digits.predict(list(images.numpy()))
    for given in (images.numpy(), images):
        assert digits.predict(given).equals(one_by_one)


def test_without_a_test_split_false_alarms_are_not_known(of_files, folder, tmp_path):
    model, loaders = of_files
    path = rk.save_classifier(tmp_path / "a.safetensors", model, loaders)
    assert loaders.test is None and rk.load_classifier(path).about["false_alarms"] is None


def test_confidences_without_a_mistake_stay_as_they_are(of_arrays, tmp_path, capsys):
    model, data = of_arrays
    images, labels = data.val.dataset.images, data.val.dataset.labels
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    few = images[:40, 0].cpu(), labels[:40]
    data = rk.array_loaders(train=few, val=few, test=few, classes="0123456789", augment="none")
    rk.train_and_eval(
        model, 40, nn.CrossEntropyLoss(), optimizer, data.train, data.val, progress=False
    )
    assert rk.evaluate(model, data.val).accuracy == 1
    path = rk.save_classifier(tmp_path / "d.safetensors", model, data)
    assert rk.load_classifier(path).about["temperature"] == 1
    assert "val has no mistake to learn from" in capsys.readouterr().out


def test_the_preparation_of_the_weights_is_kept(folder, tmp_path):
    source = replace(rk.weights("resnet18", None), resize=80, size=64, interpolation="bicubic")
    loaders = rk.image_folders(folder, like=source, size=32, workers=0)
    model = cifar_resnet(8, num_classes=2)
    path = rk.save_classifier(tmp_path / "a.safetensors", model, loaders, calibrate=False)
    clf = rk.load_classifier(path)
    assert (clf.about["resize"], clf.about["interpolation"]) == (40, "bicubic")
    live = rk.evaluate(model, loaders.val).probabilities.max(1)
    assert np.allclose(clf.predict(list(loaders.files["val"]))["confidence"], live, atol=1e-6)


def test_the_export_says_what_it_needs(of_arrays, tmp_path, monkeypatch):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "d.safetensors", *of_arrays))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'resnet_kit\[export\]'"):
        clf.export_onnx(tmp_path / "d.onnx")


def test_classifiers_loaders_and_features_can_be_kept_in_sets(of_arrays, tmp_path):
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "d.safetensors", *of_arrays))
    features = rk.extract_features(*of_arrays, progress=False)
    assert len({clf, of_arrays[1], features, clf}) == 3 and clf == clf


def test_a_classifier_is_scored_by_the_names_of_classes(of_files, folder, tmp_path):
    model, loaders = of_files
    clf = rk.load_classifier(
        rk.save_classifier(tmp_path / "ab.safetensors", model, loaders, calibrate=False)
    )
    expected = rk.evaluate(model, loaders.val, progress=False)
    found = rk.evaluate(clf, loaders.val, progress=False)
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert found.accuracy == expected.accuracy and found.files == loaders.files["val"]
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    for split in ("train", "eval"):  # now b comes before the other class
        (folder / split / "a").rename(folder / split / "z")
    other = rk.image_folders(folder, size=224, workers=0)
    with pytest.raises(ValueError, match="does not know the class z; it knows 2 classes: a, b"):
        rk.evaluate(clf, other.val)
    clf.about["classes"] = ["z", "b"]
    turned = rk.evaluate(clf, other.val, progress=False)
    assert turned.accuracy == expected.accuracy and turned.classes == ("z", "b")


def test_a_classifier_of_arrays_is_scored_too(of_arrays, tmp_path):
    model, data = of_arrays
    path = rk.save_classifier(tmp_path / "d.safetensors", model, data, calibrate=False)
    expected = rk.evaluate(model, data.test, progress=False)
    found = rk.evaluate(rk.load_classifier(path), data.test, progress=False)
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)
    with pytest.raises(ValueError, match="loader is .*; expected one of image_folders"):
        rk.evaluate(rk.load_classifier(path), [1, 2])


def test_a_single_picture_that_cannot_be_read_raises(of_files, tmp_path):
    model, loaders = of_files
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "a.safetensors", model, loaders))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="broken.png: it is no picture"):
        clf.predict(tmp_path / "broken.png")
    with pytest.raises(ValueError, match="floating-point picture has no fixed range"):
        clf.predict(Image.new("F", (4, 4)))
    assert clf.predict([tmp_path / "broken.png"])["problem"].notna().all()
    with pytest.raises(ValueError, match="no pictures in dict; expected a file"):
        clf.predict({"a": loaders.files["val"][0]})
    data = loaders.files["val"][0].read_bytes()
    views = [bytearray(data), memoryview(data), io.BytesIO(data)]
    found = [clf.predict(view)["confidence"].tolist() for view in views]
    assert found == [clf.predict(data)["confidence"].tolist()] * 3


@pytest.mark.usefixtures("no_heif")
def test_predicting_a_folder_says_what_is_left_out(of_files, folder, tmp_path, capsys):
    model, loaders = of_files
    clf = rk.load_classifier(rk.save_classifier(tmp_path / "a.safetensors", model, loaders))
    (folder / "eval" / "a" / "x.heic").touch()
    assert len(clf.predict(folder / "eval")) == 5
    assert "no pictures of a kind that is read here: 1 .heic." in capsys.readouterr().out
