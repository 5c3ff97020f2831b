import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import resnet_kit as rk
from resnet_kit.data import Loaders
from resnet_kit.features import features_of
from resnet_kit.models.resnets import cifar_resnet


@pytest.fixture
def digits():
    return rk.named_dataset("digits", batch_size=64)


@pytest.fixture
def net():
    rk.seed_everything(0)
    return cifar_resnet(8, in_channels=1)


def small_resnet() -> nn.Module:
    rk.seed_everything(0)
    return torchvision.models.resnet18(num_classes=2)


def of_folder(folder, size: int = 16, **options) -> Loaders:
    options = {"workers": 0, "mean": (0.5,) * 3, "std": (0.2,) * 3, **options}
    return rk.image_folders(folder, size=size, **options)


def rows(loader) -> torch.Tensor:
    return loader.dataset.features


@pytest.mark.usefixtures("on_cpu")
def test_features_are_what_the_head_gets_in_order(digits, net):
    features = rk.extract_features(net, digits, precision="fp32")
    assert rows(features.train).shape == (1, 1350, 64) and features.classes == digits.classes
    assert torch.equal(features.train.dataset.labels[0], digits.plain("train").dataset.labels)
    with torch.no_grad():
        net.eval()
        first, _ = next(iter(digits.plain("train")))
        x = torch.relu(net.bn1(net.conv1(first)))
        x = net.layer3(net.layer2(net.layer1(x))).mean((2, 3))
    assert torch.equal(rows(features.train)[0, :64], x)
    assert repr(features) == (
        "Features(train 1350, val 150, test 297 pictures; 64 numbers each; 1 view)"
    )


@pytest.mark.usefixtures("on_cpu")
def test_a_head_trained_on_features_gives_the_live_models_logits(digits, net):
    features = rk.extract_features(net, digits, precision="fp32", batch_size=64)
    before = {k: v.clone() for k, v in net.state_dict().items() if not k.startswith("fc")}
    head, criterion = rk.head_of(net), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    history = rk.train_and_eval(head, 20, criterion, optimizer, features.train, features.val)
    assert history.best_accuracy > 0.6, "even random features tell digits apart"
    net.eval()
    with torch.no_grad():
        for (inputs, labels), (vectors, same) in zip(digits.test, features.test, strict=True):
            assert torch.equal(labels, same) and torch.equal(net(inputs), net.fc(vectors))
    assert all(torch.equal(before[name], net.state_dict()[name]) for name in before)


def test_half_precision_features_are_close_and_the_model_stays_as_it_was(digits, net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    exact = rows(rk.extract_features(net, digits, precision="fp32").train)
    half = rows(rk.extract_features(net, digits, precision="bf16").train)
    assert half.dtype == torch.float32 and not torch.equal(exact, half)
    assert (exact - half).abs().max() < 0.05 * exact.abs().max()
    assert all(torch.equal(before[name], t.cpu()) for name, t in net.state_dict().items())
    assert net.conv1.weight.is_contiguous()


def test_modes_and_hooks_are_as_before(digits, net):
    net.train()
    net.bn1.eval()
    rk.extract_features(net, digits)
    assert net.training and not net.bn1.training and not net.fc._forward_pre_hooks


@pytest.mark.usefixtures("on_cpu")
def test_views_are_other_augmentations_of_every_picture_and_take_turns(digits, net):
    features = rk.extract_features(net, digits, views=3, precision="fp32")
    found, labels = features.train.dataset.features, features.train.dataset.labels
    assert found.shape == (3, 1350, 64)
    assert torch.equal(labels.sort(1).values[0], labels.sort(1).values[2])
    assert not torch.equal(found[0].sum(0), found[1].sum(0))
    indices = torch.tensor([5, 7])
    for epoch, view in ((1, 0), (2, 1), (3, 2), (4, 0)):
        assert torch.equal(features.train.dataset[epoch, indices][0], found[view, indices])
    again = rk.extract_features(net, digits, views=3, precision="fp32")
    assert torch.equal(again.train.dataset.features, found)
    with pytest.raises(ValueError, match="views is 0; expected a whole number of at least 1"):
        rk.extract_features(net, digits, views=0)


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v3_small", "vgg11_bn"])
def test_any_torchvision_like_backbone_will_do(arch, folder):
    model = torchvision.models.get_model(arch, num_classes=2)
    loaders = of_folder(folder, size=32)
    features = rk.extract_features(model, loaders, precision="fp32")
    head = rk.head_of(model)
    assert rows(features.val).shape == (1, 5, head.in_features) and features.test is None
    live = rk.evaluate(model, loaders.val).probabilities
    assert np.allclose(rk.evaluate(head, features.val).probabilities, live, atol=1e-6)
    half = rk.extract_features(model, loaders, precision="bf16")
    assert torch.allclose(rows(half.val), rows(features.val), atol=0.05, rtol=0.1)


@pytest.mark.parametrize("probe", [rk.svm_probe, rk.knn_probe, rk.logistic_probe])
def test_probes_learn_and_give_an_estimator(probe, net):
    digits = rk.named_dataset("digits", val_from_train=0.6, batch_size=64)
    features = rk.extract_features(net, digits, precision="fp32")
    result, estimator = probe(features)
    assert result.accuracy > 0.85 and len(result.labels) == 900
    inputs = rows(features.val)[0].cpu().numpy()
    assert np.array_equal(estimator.predict(inputs), result.predictions)
    assert np.allclose(result.probabilities.sum(1), 1, atol=1e-5)
    test, _ = probe(features, split="test")
    assert len(test.labels) == 297 and test.classes == digits.classes


def test_probes_of_two_classes_use_every_view(folder):
    features = rk.extract_features(small_resnet(), of_folder(folder), views=2)
    result, estimator = rk.svm_probe(features)
    assert result.probabilities.shape == (5, 2)
    inputs = rows(features.val)[0].cpu().numpy()
    assert np.array_equal(estimator.predict(inputs), result.predictions)
    assert estimator[-1].shape_fit_[0] == 22
    with pytest.raises(ValueError, match="no split 'test'; this data set has: train, val"):
        rk.svm_probe(features, split="test")


@pytest.mark.parametrize("probe", [rk.svm_probe, rk.knn_probe, rk.logistic_probe])
@pytest.mark.parametrize("known", [(0, 2), (0, 2, 3)])
def test_a_class_without_training_pictures_is_never_said_and_shifts_none(probe, known):
    rng, centres = np.random.default_rng(0), 9 * torch.eye(4)
    labels = torch.from_numpy(rng.choice(known, 40))
    noise = torch.from_numpy(rng.normal(size=(40, 4))).float()
    parts = dict.fromkeys(("train", "val"), ((centres[labels] + noise)[None], labels[None]))
    result, _ = probe(features_of(parts, tuple("abcd"), batch_size=8, seed=0))
    assert result.accuracy > 0.9 and result.probabilities.shape == (40, 4)
    assert not result.probabilities[:, 1].any()


def test_the_borders_of_a_linear_kernel_are_straight():
    rng = np.random.default_rng(0)
    inside = torch.from_numpy(rng.normal(size=(80, 2))).float()
    around = 6 * nn.functional.normalize(torch.from_numpy(rng.normal(size=(80, 2))).float())
    part = torch.cat([inside, around])[None], torch.arange(2).repeat_interleave(80)[None]
    features = features_of(
        dict.fromkeys(("train", "val"), part), ("in", "out"), batch_size=8, seed=0
    )
    assert rk.svm_probe(features)[0].accuracy > 0.95
    assert rk.svm_probe(features, kernel="linear")[0].accuracy < 0.8, "a circle needs a bend"
    with pytest.raises(ValueError, match="kernel"):
        rk.svm_probe(features, kernel="poly")


def test_a_class_of_one_picture_needs_no_cross_validation(folder):
    for path in sorted((folder / "train" / "b").iterdir())[1:]:
        path.unlink()
    features = rk.extract_features(small_resnet(), of_folder(folder))
    assert rk.svm_probe(features)[1].get_params()["svc__C"] == 1.0
    assert len(rk.knn_probe(features)[0].labels) == 5


def test_views_of_growing_pictures_have_the_full_size(net):
    images, labels = np.random.default_rng(0).integers(0, 256, (20, 8, 8)), torch.arange(20) % 10
    split = torch.from_numpy(images).byte(), labels
    data = rk.array_loaders(train=split, val=split, size={1: 4, 3: 8}, augment="none")
    found = rk.extract_features(net, data, views=2, precision="fp32")
    for view in rows(found.train):
        assert torch.allclose(view.sum(0), rows(found.val)[0].sum(0), atol=1e-3)


def test_labels_beyond_a_head_that_is_not_used_are_taken(digits):
    net = cifar_resnet(8, num_classes=2, in_channels=1)
    features = rk.extract_features(net, digits, progress=False)
    assert features.train.dataset.labels.max() == 9
