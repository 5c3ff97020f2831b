import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import rc_context, rcParams
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import resnet_kit as rk
from conftest import small_net, tensor_loader, write_picture
from resnet_kit import devices, figures
from resnet_kit.evaluation import Evaluation, wilson_interval
from resnet_kit.models.resnets import cifar_resnet
from resnet_kit.training import History


def evaluation(labels, probabilities, **options):
    probabilities = np.array(probabilities, np.float32)
    classes = tuple("abc"[: probabilities.shape[1]])
    return Evaluation(0.5, np.array(labels), probabilities, classes, **options)


EXAMPLE = evaluation(
    [0, 0, 1, 1, 2],
    [[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0.2, 0.8, 0], [0.95, 0.05, 0], [0.1, 0.1, 0.8]],
    files=tuple(Path(f"{index}.png") for index in range(5)),
)


def test_scores_are_derived_from_the_predictions():
    assert EXAMPLE.predictions.tolist() == [0, 1, 1, 0, 2]
    assert EXAMPLE.accuracy == 3 / 5
    assert EXAMPLE.confusion().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert EXAMPLE.per_class()["recall"].tolist() == [0.5, 0.5, 1.0]
    assert "60.0% of 5 pictures" in repr(EXAMPLE)


def test_precision_recall_and_f1_are_scikit_learns():
    from sklearn.metrics import precision_recall_fscore_support

    rng = np.random.default_rng(0)
    result = evaluation(rng.integers(0, 3, 50), rng.dirichlet([1, 1, 1], 50))
    expected = precision_recall_fscore_support(result.labels, result.predictions)
    table = result.per_class()
    for name, values in zip(("precision", "recall", "f1", "pictures"), expected, strict=True):
        assert table[name].tolist() == pytest.approx(values.tolist()), name


def test_mistakes_are_sorted_by_confidence_and_name_their_files():
    table = EXAMPLE.mistakes()
    assert table["picture"].tolist() == [3, 1]
    assert table["file"].tolist() == [Path("3.png"), Path("1.png")]
    assert table[["actual", "predicted"]].values.tolist() == [["b", "a"], ["a", "b"]]
    assert len(EXAMPLE.mistakes(1)) == 1


def test_tables_and_figures_show_classes_without_sorting_prefixes(tmp_path):
    files = tuple(write_picture(tmp_path / f"{index}.png", index) for index in range(5))
    classes = ("0_cat", "1_dog", "2_ants")
    result = replace(EXAMPLE, classes=classes, files=files)
    assert result.classes == classes and result.names == ("cat", "dog", "ants")
    assert result.per_class().index.tolist() == ["cat", "dog", "ants"]
    assert result.mistakes()[["actual", "predicted"]].values.tolist()[0] == ["dog", "cat"]
    assert set(result.confused_pairs()["actual"]) == {"cat", "dog"}
    confusion = result.plot_confusion().axes[0]
    for labels in (confusion.get_xticklabels(), confusion.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["cat", "dog", "ants"]
    assert result.plot_mistakes().axes[0].get_title() == "cat 95%\nis dog"


def test_pairs_are_counted_the_most_frequent_first():
    table = evaluation([0, 0, 0, 1, 2], [[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]])
    rows = table.confused_pairs().to_records(index=False).tolist()
    assert rows == [("a", "b", 2), ("b", "a", 1)]
    assert len(table.confused_pairs(1)) == 1 and EXAMPLE.confused_pairs()["times"].sum() == 2


def test_calibration_error_is_the_distance_of_confidence_and_accuracy():
    sure = evaluation([0] * 10, [[0.75, 0.25]] * 6 + [[0.25, 0.75]] * 4)
    assert sure.reliability()["pictures"].tolist() == [10]
    assert sure.calibration_error() == pytest.approx(0.75 - 0.6)
    axes = sure.plot_reliability().axes[0]
    assert "calibration error 15.0%" in axes.get_title(loc="left")
    assert [line.get_xydata().tolist() for line in axes.lines][-1] == [[75, 60]]
    assert (axes.get_xlabel(), [text.get_text() for text in axes.texts][-1]) == (
        "confidence in %",
        "10",
    )


def test_a_confidence_of_one_is_in_the_last_bin():
    certain = evaluation([0] * 4, [[1.0, 0.0]] * 2 + [[0.95, 0.05]] * 2)
    assert certain.reliability(10)["pictures"].to_dict() == {9: 4}


def test_temperature_makes_confidence_fit():
    sure = evaluation([0] * 10, [[0.99, 0.01]] * 7 + [[0.01, 0.99]] * 3)
    found = sure.with_temperature(sure.temperature())
    assert sure.temperature() > 2 and found.loss < sure.with_temperature(1.0).loss
    assert found.probabilities.max() == pytest.approx(0.7, abs=0.01)
    assert found.accuracy == sure.accuracy and found.calibration_error() < 0.02


def test_mcnemar_counts_where_only_one_is_right():
    one = evaluation([0] * 20, [[0.9, 0.1]] * 14 + [[0.1, 0.9]] * 6)
    other = evaluation([0] * 20, [[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10)
    assert rk.mcnemar(one, other) == (4, 0, pytest.approx(0.125))  # 4 of 4: two sides of 1/16
    assert rk.mcnemar(one, one) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="not of the same pictures"):
        rk.mcnemar(one, evaluation([1] * 20, [[0.9, 0.1]] * 20))


def test_interval_is_wilsons():
    # Agresti and Coull (1998): of 10 none right gives 0 to 0.2775.
    low, high = wilson_interval(0, 10)
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(0.2775, abs=1e-4)
    assert wilson_interval(0, 0) == (0, 1)


def test_class_without_pictures_is_no_error():
    table = evaluation([0, 0], [[0.9, 0.1], [0.8, 0.2]]).per_class()
    assert np.isnan(table.loc["b", "recall"]) and table.loc["b", "high"] == 1


def test_short_last_batch_is_weighted():
    model = small_net()
    whole = rk.evaluate(model, tensor_loader(10, batch_size=10))
    parts = rk.evaluate(model, tensor_loader(10, batch_size=8))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.accuracy == whole.accuracy == whole.correct.sum() / 10


def test_evaluate_changes_neither_weights_nor_modes():
    model = small_net()
    rk.freeze(model, "1")
    rk.train_mode(model)
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rk.evaluate(model, tensor_loader())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(t.cpu(), before[name]) for name, t in model.state_dict().items())


def test_evaluate_is_fp32_unless_asked(monkeypatch):
    kinds = []
    model = small_net()
    model[6].register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    monkeypatch.setattr(devices, "best_precision", lambda device: "bf16")
    rk.evaluate(model, tensor_loader(4))
    rk.evaluate(model, tensor_loader(4), precision="auto")
    assert kinds == [torch.float32, torch.bfloat16]


def test_files_are_named_only_in_a_fixed_order(folder):
    loaders = rk.image_folders(folder, size=16)
    model = small_net(2)
    assert rk.evaluate(model, loaders.val).files == loaders.files["val"]
    assert rk.evaluate(model, loaders.train).files is None
    assert rk.evaluate(model, loaders.plain("train")).files == loaders.files["train"]
    assert rk.evaluate(model, loaders.val).classes == ("a", "b")


def test_files_are_not_named_for_a_shuffled_batch_sampler(folder):
    dataset = rk.image_folders(folder, size=16).val.dataset
    shuffled = BatchSampler(RandomSampler(dataset), 2, False)
    loader = DataLoader(dataset, batch_sampler=shuffled)
    assert rk.evaluate(small_net(2), loader).files is None


def test_small_integer_labels_do_not_overflow():
    batch = [(torch.eye(100), torch.arange(100, dtype=torch.uint8))]
    result = rk.evaluate(nn.Identity(), batch)
    assert np.diag(result.confusion()).sum() == 100


def test_empty_loaders_and_wrong_heads_are_refused(folder):
    empty = DataLoader(TensorDataset(torch.zeros(0, 3, 4, 4), torch.zeros(0, dtype=torch.long)))
    with pytest.raises(ValueError, match="the loader is empty; expected at least one batch"):
        rk.evaluate(small_net(), empty)
    with pytest.raises(ValueError, match="3 outputs, but the data set has 2 classes: a, b"):
        rk.evaluate(small_net(3), rk.image_folders(folder, size=16).val)


def test_grey_pictures_for_a_colour_net_are_explained():
    grey = [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))]
    with pytest.raises(ValueError, match=r"have 1 channel\(s\).*expects 3; .*expand"):
        rk.evaluate(small_net(), grey)


def test_other_errors_of_a_model_pass_unchanged():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        rk.evaluate(nn.Linear(4, 2), [(torch.zeros(2, 5), torch.tensor([0, 1]))])


def test_a_model_with_several_outputs_is_explained():
    class Double(nn.Module):
        def forward(self, images):
            return images, images

    batch = [(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))]
    with pytest.raises(TypeError, match="returned a tuple; expected one tensor of logits"):
        rk.evaluate(Double(), batch)


def test_labels_beyond_the_head_are_explained():
    batch = [(torch.zeros(2, 3, 8, 8), torch.tensor([0, 7]))]
    with pytest.raises(ValueError, match="labels from 0 to 7.*3 outputs.*num_classes=8"):
        rk.evaluate(small_net(), batch)


def test_figures_show_themselves_once(folder):
    result = rk.evaluate(small_net(2), rk.image_folders(folder, size=16).val)
    figure = result.plot_confusion()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert not result.mistakes().empty, "the untrained net is wrong somewhere"
    mistakes = result.plot_mistakes(3)
    assert mistakes._repr_jpeg_().startswith(b"\xff\xd8") and mistakes._repr_png_ is None


@pytest.mark.usefixtures("on_cpu")
def test_mistakes_show_what_they_rest_on(folder):
    model, val = small_net(2), rk.image_folders(folder, size=16).val
    result = rk.evaluate(model, val)
    figure = result.plot_mistakes(3, model=model, loader=val)
    (first, beside), row = figure.axes[:2], result.mistakes(1).iloc[0]
    picture, _ = val.dataset[row["picture"]]
    label = result.classes.index(row["predicted"])
    heat = rk.grad_cam(model, picture[None], [label])[0]
    assert len(first.images) == 1 and len(beside.images) == 2
    assert np.allclose(beside.images[1].get_array(), heat, atol=1e-5)
    with pytest.raises(ValueError, match="Grad-CAM needs the loader"):
        result.plot_mistakes(3, model=model)


def test_a_wild_first_val_loss_does_not_flatten_the_rest():
    row = {"train_loss": 4.0, "val_loss": 3.0, "train_accuracy": 0.1, "val_accuracy": 0.1}
    rows = [row | {"epoch": epoch} for epoch in (1, 2, 3)]
    calm = figures.training_curves(rows).axes[0]
    assert calm.get_title(loc="left") == "loss" and calm.get_ylim()[1] < 5
    wild = figures.training_curves([rows[0] | {"val_loss": 784.0}, *rows[1:]]).axes[0]
    assert wild.get_ylim() == (0, 6) and "val up to 784, beyond" in wild.get_title(loc="left")


def test_figures_explain_what_they_cannot_draw():
    right = evaluation([0], [[1.0, 0.0]], files=(Path("a.png"),))
    with pytest.raises(ValueError, match="no mistake to draw"):
        right.plot_mistakes()
    with pytest.raises(ValueError, match="come from no files"):
        evaluation([0], [[0.0, 1.0]]).plot_mistakes()
    with pytest.raises(ValueError, match="no epoch was finished"):
        History().plot()
    with pytest.raises(ValueError, match="no pictures to draw"):
        rk.picture_grid([])


def test_grid_shows_its_pictures_and_paints_wrong_titles_orange():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    figure = rk.picture_grid([red] * 3, ["a", "b", "c"], wrong=[False, True, False], columns=2)
    shown = np.asarray(Image.open(io.BytesIO(figure._repr_jpeg_())), int)
    assert 0.2 < (np.abs(shown - [255, 0, 0]).max(-1) < 10).mean() < 0.8
    assert [axes.title.get_color() for axes in figure.axes][:3] == ["black", figures.VAL, "black"]


def test_grid_denormalises_and_clips():
    picture = torch.tensor([-1.0, 0.0, 9.0]).view(3, 1, 1).expand(3, 2, 2)
    figure = rk.picture_grid([picture], mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    shown = figure.axes[0].images[0].get_array()
    assert np.allclose(shown[0, 0], [0.3, 0.5, 1.0])


def test_use_style_sets_matplotlibs_defaults_and_plots_do_not():
    with rc_context():
        assert not EXAMPLE.plot_confusion().axes[0].spines["top"].get_visible()
        assert rcParams["axes.spines.top"] is True
        rk.use_style()
        assert rcParams["axes.spines.top"] is False


def test_what_is_not_a_number_is_not_right():
    nothing = np.full((2, 3), np.nan, np.float32)
    assert Evaluation(float("nan"), np.zeros(2, int), nothing, ("a", "b", "c")).accuracy == 0


def test_a_probe_and_a_net_are_compared_though_only_one_knows_its_files():
    labels, chances = np.array([0, 1]), np.eye(2, dtype=np.float32)
    files = (Path("a.png"), Path("b.png"))
    net, probe = (Evaluation(0.0, labels, chances, ("a", "b"), x) for x in (files, None))
    assert rk.mcnemar(net, probe) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="not of the same pictures"):
        rk.mcnemar(net, Evaluation(0.0, labels, chances, ("a", "b"), files[::-1]))


def test_scoring_leaves_the_callers_random_numbers_alone():
    data = rk.named_dataset("digits")
    net = rk.models.resnets.cifar_resnet(8, in_channels=1)
    features = rk.extract_features(net, data, progress=False)
    before = torch.get_rng_state()
    rk.evaluate(net, data.val, progress=False)
    rk.evaluate(rk.head_of(net), features.val, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_mistake_no_confidence_is_raised():
    right = evaluation([0, 1, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    assert right.temperature() == 1
    wrong = evaluation([0] * 10, [[0.6, 0.4]] * 9 + [[0.45, 0.55]])
    assert 0.1 < wrong.temperature() < 1


def test_a_temperature_at_its_bound_is_said(capsys):
    useless = evaluation([0, 1] * 20, [[0.01, 0.99], [0.99, 0.01]] * 20)
    assert 19 < useless.temperature() < 21
    said = capsys.readouterr().out
    assert (
        "No temperature from 0.05 to 20 makes the confidences of these 40 predictions fit" in said
    )
    assert "20 comes closest and is taken" in said


def test_evaluations_can_be_compared_and_kept_in_sets():
    other = evaluation(EXAMPLE.labels, EXAMPLE.probabilities)
    assert EXAMPLE == EXAMPLE and other != EXAMPLE and len({EXAMPLE, other}) == 2


def test_mistakes_of_pictures_without_files_are_drawn_from_their_loader():
    data = rk.named_dataset("digits")
    net = cifar_resnet(8, in_channels=1)
    result = rk.evaluate(net, data.val, progress=False)
    figure = result.plot_mistakes(2, loader=data.val)
    first = data.val.dataset.images[result.mistakes(1)["picture"][0], 0].cpu().numpy()
    assert np.allclose(figure.axes[0].images[0].get_array(), first / 255, atol=1e-5)
    assert len(result.plot_mistakes(2, loader=data.val, model=net).axes[1].images) == 2


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (lambda loaders: loaders, "loader is a Loaders; expected one loader .* loaders.train"),
        (lambda loaders: loaders.test, "loader is None; .*is None without a test split"),
        (lambda loaders: loaders.val.dataset, "expected one loader .* or a DataLoader"),
        (lambda loaders: "val", "loader is 'val'; expected one loader"),
    ],
)
def test_what_is_no_loader_is_refused_with_what_to_pass(folder, loader, message):
    loaders = rk.image_folders(folder, size=16)
    model = small_net(2)
    with pytest.raises(ValueError, match=message):
        rk.evaluate(model, loader(loaders))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = nn.CrossEntropyLoss()
    for given in ((loader(loaders), loaders.val), (loaders.train, loader(loaders))):
        with pytest.raises(ValueError, match=message):
            rk.train_and_eval(model, 1, criterion, optimizer, *given)
    with pytest.raises(ValueError, match=message):
        rk.find_lr(model, criterion, optimizer, loader(loaders))


def test_what_is_no_model_is_refused():
    for call in (
        lambda model: rk.evaluate(model, tensor_loader()),
        lambda model: rk.grad_cam(model, torch.zeros(1, 3, 8, 8)),
        lambda model: rk.freeze(model),
        rk.head_of,
    ):
        with pytest.raises(ValueError, match="model is 'resnet18'; expected a torch.nn.Module"):
            call("resnet18")
        with pytest.raises(ValueError, match="model is the class ReLU; expected a torch.nn"):
            call(nn.ReLU)


class Answering(nn.Module):
    """Answers with a function of the pictures; has one parameter."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.scale = answer, nn.Parameter(torch.ones(1))

    def forward(self, images):
        return self.answer(images) * self.scale


def pair(labels, images=None):
    return (torch.zeros(len(labels), 3, 8, 8) if images is None else images), labels


@pytest.mark.parametrize(
    ("answer", "batch", "message"),
    [
        (lambda x: x.mean((1, 2, 3))[:, None], pair(torch.zeros(4, 1)), "output for each of K > 1"),
        (lambda x: x.mean((1, 2, 3)), pair(torch.zeros(4)), r"returned shape \(4,\); expected"),
        (None, pair(torch.ones(4, 3)), "shares of classes .* add up to 1; several"),
        (None, pair(torch.rand(4)), r"labels of shape \(4,\) and torch.float32"),
        (None, pair(torch.zeros(4, 2, dtype=torch.long)), "expected one number a picture"),
        (None, {"image": 1, "label": 2}, r"a batch is a dict of 2; expected a pair"),
        (None, (1, 2, 3), "a batch is a tuple of 3; expected a pair"),
        (None, pair(("cat", "dog")), "a batch of Tensor and tuple; expected tensors"),
        (None, pair(torch.zeros(2, dtype=torch.long), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
         "inputs are torch.uint8; expected float32"),
    ],
)  # fmt: skip
def test_batches_and_outputs_that_no_accuracy_can_be_told_of_are_refused(answer, batch, message):
    model = Answering(answer or (lambda x: x.new_zeros(len(x), 3)))
    with pytest.raises(ValueError, match=message):
        rk.evaluate(model, [batch], progress=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        rk.train_and_eval(
            model, 1, nn.BCEWithLogitsLoss(), optimizer, [batch], [batch, batch], progress=False
        )


def test_labels_of_any_whole_type_are_taken_and_one_picture_is_explained():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    short = [(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 0], dtype=torch.int16))]
    history = rk.train_and_eval(
        model, 1, nn.CrossEntropyLoss(), optimizer, short, [*short], progress=False
    )
    assert history.stopped == "finished"
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    one = [(torch.zeros(1, 3, 8, 8), torch.tensor([0]))]
    with pytest.raises(ValueError, match="BatchNorm cannot learn from a batch of one picture"):
        rk.train_and_eval(net, 1, nn.CrossEntropyLoss(), optimizer, one, short, progress=False)


def test_confidences_that_are_no_numbers_are_refused():
    broken = Evaluation(1.0, np.array([0]), np.array([[np.nan, 0.5]], np.float32), ("a", "b"))
    with pytest.raises(ValueError, match="a probability is not a number"):
        broken.reliability()
