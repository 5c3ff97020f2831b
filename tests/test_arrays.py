import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

import resnet_kit as rk
from conftest import small_net, tensor_loader, without_times
from resnet_kit.data import TransformedLoader
from resnet_kit.data.arrays import ColorJitter, Crop, Flip, ResizedCrop


def noise(count=10, side=16, channels=3):
    shape = (count, side, side, channels) if channels else (count, side, side)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return images, np.arange(count) % 2


def loaders_of(images=None, labels=None, **options):
    if images is None:
        images, labels = noise()
    options = {"batch_size": 4, **options}
    return rk.array_loaders(train=(images, labels), val=noise(6, images.shape[1]), **options)


def epoch_of(loader, epoch):
    """The batches of an epoch, put back in the order of the pictures."""
    loader.sampler.set_epoch(epoch)
    order = torch.cat([indices for _, indices in loader.sampler])
    loader.sampler.set_epoch(epoch)
    return torch.cat([images for images, _ in loader]).cpu()[order.argsort()]


def test_arrays_become_loaders_like_any_other():
    images, labels = noise()
    loaders = rk.array_loaders(
        train=(images, labels), val=noise(6), test=noise(5), classes=["cat", "dog"], batch_size=4
    )
    text = "Loaders(train 10, val 6, test 5 pictures of 16 px; 2 classes: cat, dog)"
    assert repr(loaders) == text and loaders.files is None
    assert [len(y) for _, y in loaders.train] == [4, 4, 2] and len(loaders.train) == 3
    x, y = next(iter(loaders.val))
    assert x.shape == (4, 3, 16, 16) and x.dtype == torch.float32 and y.dtype == torch.int64
    stats = rk.mean_std(images)
    assert loaders.mean == stats.mean and loaders.std == stats.std
    result = rk.evaluate(small_net(2), loaders.test, progress=False)
    assert result.classes == ("cat", "dog") and len(result.labels) == 5


def test_validation_and_plain_pictures_are_in_order_and_only_normalised():
    images, labels = noise()
    loaders = loaders_of(images, labels)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    expected = v2.Normalize(loaders.mean, loaders.std)(expected)
    for _ in range(2):
        plain = torch.cat([x for x, _ in loaders.plain("train")]).cpu()
        assert torch.allclose(plain, expected, atol=1e-6)
    assert torch.cat([y for _, y in loaders.plain("train")]).tolist() == labels.tolist()
    picture, label = loaders.plain("train").dataset[3]
    assert torch.equal(picture.cpu(), plain[3]) and label == 1
    assert not torch.allclose(epoch_of(loaders.train, 1), expected, atol=1e-6)


def test_every_picture_comes_once_per_epoch_with_its_label():
    images = np.repeat(np.arange(10, dtype=np.uint8), 16 * 16).reshape(10, 16, 16)
    loaders = rk.array_loaders(
        train=(images, np.arange(10)), val=noise(channels=0), mean=[0], std=[1 / 255],
        augment=[Flip()], batch_size=4,
    )  # fmt: skip
    orders = []
    for _ in range(2):
        pairs = [(round(x.item()), y.item()) for b, t in loaders.train for x, y in
                 zip(b[:, 0, 0, 0], t, strict=True)]  # fmt: skip
        assert all(value == label for value, label in pairs)
        assert sorted(pairs) == [(i, i) for i in range(10)]
        orders.append(pairs)
    assert orders[0] != orders[1]


@pytest.mark.usefixtures("on_cpu")
def test_random_numbers_follow_from_seed_epoch_and_index():
    def augmented(epoch, **options):
        return epoch_of(loaders_of(augment=[ResizedCrop(0.3)], **options).train, epoch)

    first = augmented(2)
    assert torch.equal(first, augmented(2))
    assert torch.equal(first, augmented(2, batch_size=10))
    for other in (augmented(3), augmented(2, seed=1)):
        assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_copies_of_a_picture_in_one_batch_are_augmented_independently():
    images, labels = noise(1)[0].repeat(64, 0), np.zeros(64, int)
    loaders = loaders_of(images, labels, augment=[ResizedCrop(0.3)], batch_size=64, classes="ab")
    batch, _ = next(iter(loaders.train))
    assert len({picture.cpu().numpy().tobytes() for picture in batch}) == 64
    flips = loaders_of(images, labels, augment=[Flip()], batch_size=64, classes="ab")
    kinds = [picture.cpu().numpy().tobytes() for picture in next(iter(flips.train))[0]]
    assert len(set(kinds)) == 2 and 20 <= kinds.count(kinds[0]) <= 44


@pytest.mark.usefixtures("on_cpu")
def test_progressive_sizes_are_for_training_and_validation_is_at_the_last():
    loaders = loaders_of(size={1: 8, 3: 12, 4: 20})
    assert [epoch_of(loaders.train, e).shape[2] for e in range(1, 6)] == [8, 8, 12, 20, 20]
    assert loaders.size == next(iter(loaders.val))[0].shape[2] == 20
    images = torch.from_numpy(noise()[0]).permute(0, 3, 1, 2)
    resized = V.resize(images.float() / 255, [20, 20], antialias=True)
    expected = v2.Normalize(loaders.mean, loaders.std)(resized)
    assert torch.allclose(torch.cat([x for x, _ in loaders.plain()]), expected, atol=1e-6)


def test_grey_pictures_stay_grey_or_become_rgb_for_weights():
    images, labels = noise(channels=0)
    grey = rk.array_loaders(train=(images, labels), val=(images, labels))
    assert next(iter(grey.train))[0].shape == (10, 1, 16, 16) and len(grey.mean) == 1
    source = rk.weights("resnet18", None)
    rgb = rk.array_loaders(train=(images, labels), val=(images, labels), like=source, size=16)
    batch = next(iter(rgb.val))[0].cpu()
    restored = (
        batch * torch.tensor(source.std)[:, None, None] + torch.tensor(source.mean)[:, None, None]
    )
    assert batch.shape == (10, 3, 16, 16)
    assert torch.allclose(restored, torch.from_numpy(images)[:, None] / 255, atol=1e-6)


def test_crop_is_a_padded_crop_at_every_place():
    images = torch.rand(25, 3, 8, 8)
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    cropped = Crop(2)(images, (places + 0.5) / 5)
    padded = nn.functional.pad(images, [2] * 4)
    for picture, source, (top, left) in zip(cropped, padded, places.tolist(), strict=True):
        assert torch.equal(picture, source[:, top : top + 8, left : left + 8])


def test_resized_crop_is_torchvisions():
    images = torch.rand(3, 3, 16, 16)
    whole = ResizedCrop(0.25)(images, torch.tensor([[1, 0.5, 0.3, 0.9]] * 3))
    assert torch.allclose(whole, images, atol=1e-5)
    # the smallest part, 8 x 8 pixels: at the top left, the bottom right, in the middle
    numbers = torch.tensor([[0, 0.5, 0, 0], [0, 0.5, 1, 1], [0, 0.5, 0.5, 0.5]])
    found = ResizedCrop(0.25)(images, numbers)
    for picture, source, place in zip(found, images, (0, 8, 4), strict=True):
        crop = V.resized_crop(source, place, place, 8, 8, [16, 16], antialias=True)
        # inside, because this one looks at the pixels around the part and that one does not
        assert torch.allclose(picture[:, 2:-2, 2:-2], crop[:, 2:-2, 2:-2], atol=1e-4)


def test_steps_have_the_strengths_that_their_classes_name():
    assert (Crop(), ResizedCrop(), ColorJitter()) == (Crop(4), ResizedCrop(0.25), ColorJitter(0.4))


def test_color_jitter_is_torchvisions():
    images = torch.rand(4, 3, 8, 8) * 0.5
    assert torch.allclose(ColorJitter(0.4)(images, torch.full((4, 3), 0.5)), images, atol=1e-6)
    brighter, paler = torch.tensor([[1.0, 0.5, 0.5]] * 4), torch.tensor([[0.5, 0.5, 0.0]] * 4)
    assert torch.allclose(ColorJitter(0.4)(images, brighter), V.adjust_brightness(images, 1.4))
    found = ColorJitter(0.4)(images, paler)
    assert torch.allclose(found, V.adjust_saturation(images, 0.6), atol=1e-6)
    for channels in (1, 4):  # saturation is of RGB alone
        even = torch.full((1, channels, 4, 4), 0.5)
        assert torch.allclose(ColorJitter(0.4)(even, torch.tensor([[0.5, 1, 1]])), even)


def train_digits(train, val, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    history = rk.train_and_eval(
        model, 8, nn.CrossEntropyLoss(), optimizer, train, val, scheduler=scheduler, seed=seed,
        progress=False,
    )  # fmt: skip
    return history.rows[-1]["val_accuracy"]


class Padded(TensorDataset):
    """What a user would write: each picture padded with black and cropped by torchvision."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        crop = v2.RandomCrop(8, padding=1, fill=image.min().item())
        return crop(image), label


def test_training_is_as_good_as_with_an_equivalent_dataloader():
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    stats = rk.mean_std(images[:1200])
    ours, theirs = [], []
    for seed in range(3):
        loaders = rk.array_loaders(
            train=(images[:1200], labels[:1200]), val=(images[1200:], labels[1200:]),
            augment=[Crop(1)], batch_size=64, seed=seed,
        )  # fmt: skip
        ours.append(train_digits(loaders.train, loaders.val, seed))
        pixels = torch.from_numpy(images)[:, None] / 255
        pixels, targets = (pixels - stats.mean[0]) / stats.std[0], torch.from_numpy(labels)
        loader = DataLoader(Padded(pixels[:1200], targets[:1200]), batch_size=64, shuffle=True)
        theirs.append(train_digits(loader, loaders.val, seed))
    assert min(ours + theirs) > 0.9
    assert abs(np.mean(ours) - np.mean(theirs)) < 0.02, (ours, theirs)


def test_arrays_are_copied_and_numpy_numbers_are_taken():
    images, labels = noise(channels=0)
    loaders = rk.array_loaders(
        train=(images[..., ::-1], labels[::-1]), val=(images, labels), mean=np.array([0.5]),
        std=np.array([0.25]), batch_size=np.int64(4), size=np.int64(16),
    )  # fmt: skip
    before = [(x.clone(), y.clone()) for x, y in loaders.plain()]
    images[:], labels[:] = 0, 7
    for (x, y), (old_x, old_y) in zip(loaders.plain(), before, strict=True):
        assert torch.equal(x, old_x) and torch.equal(y, old_y) and x.dtype == torch.float32
    assert type(loaders.size) is int and loaders.mean == (0.5,)


def test_a_single_last_picture_joins_the_batch_before_it():
    for count, sizes in ((9, [4, 5]), (10, [4, 4, 2]), (8, [4, 4]), (1, [1])):
        loaders = loaders_of(*noise(count), batch_size=4, classes="ab")
        for loader in (loaders.train, loaders.plain()):
            assert [len(y) for _, y in loader] == sizes and len(loader) == len(sizes)


def test_transformed_loaders_are_copied_whole():
    loader = TransformedLoader(tensor_loader(), v2.MixUp(num_classes=3))
    for copied in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert next(iter(copied))[1].shape == (8, 3)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("mixed", [False, True])
def test_resumed_run_equals_an_uninterrupted_one(tmp_path, mixed):
    def run(epochs, folder, resume=False):
        torch.manual_seed(0)
        model = small_net(2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loaders = loaders_of(size={1: 8, 2: 16})
        train = loaders.train
        if mixed:
            train = TransformedLoader(train, v2.CutMix(num_classes=2))
        return rk.train_and_eval(
            model, epochs, nn.CrossEntropyLoss(), optimizer, train, loaders.val, progress=False,
            checkpoint=tmp_path / folder, resume=resume, precision="fp32",
        )  # fmt: skip

    run(1, "a")
    resumed, whole = run(3, "a", resume=True), run(3, "b")
    assert without_times(resumed) == without_times(whole)


def test_batch_transforms_compose_and_keep_the_rest_of_the_loader():
    loader = tensor_loader(shuffle=True)

    def double(images, labels):
        return images * 2, labels

    mixed = TransformedLoader(TransformedLoader(loader, double), double)
    images = torch.cat([x for x, _ in mixed])
    assert images.abs().sum() == pytest.approx(
        4 * torch.cat([x for x, _ in loader]).abs().sum().item(), rel=1e-5
    )
    assert len(mixed) == len(loader) and mixed.dataset is loader.dataset
    assert mixed.sampler is loader.sampler


def test_mixup_and_cutmix_train_with_any_loader():
    mix = v2.RandomChoice([v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)])
    for loader in (tensor_loader(), loaders_of(classes="abc").train):
        mixed = TransformedLoader(loader, mix)
        shares = next(iter(mixed))[1]
        assert shares.shape[1] == 3 and torch.allclose(shares.sum(1), torch.ones(len(shares)))
        model = small_net(3)
        history = rk.train_and_eval(
            model, 2, nn.CrossEntropyLoss(label_smoothing=0.1),
            torch.optim.SGD(model.parameters(), lr=0.1), mixed, tensor_loader(), progress=False,
        )  # fmt: skip
        assert len(history.rows) == 2 and np.isfinite(history.rows[-1]["train_loss"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": (np.zeros((2, 4, 4), np.float32), [0, 1])}, "expected uint8 pictures"),
        ({"train": (np.zeros((2, 4, 5), np.uint8), [0, 1])}, "5 x 4 pixels; expected square"),
        ({"train": (np.zeros((2, 3, 4, 4), np.uint8), [0, 1])}, "expected square ones"),
        ({"train": (np.zeros((0, 4, 4), np.uint8), np.zeros(0, int))}, "train is empty"),
        ({"train": (np.zeros((2, 4, 4), np.uint8), [0])}, "2 pictures and labels of shape"),
        ({"train": (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0])}, "one whole number per picture"),
        ({"train": (np.zeros((2, 4, 4), np.uint8), [0, -1])}, "labels from -1 to 0; expected 0 to"),
        ({"val": (np.zeros((2, 4, 4), np.uint8), [0, 7])}, "val has labels from 0 to 7"),
        ({"val": (np.zeros((2, 8, 8), np.uint8), [0, 1])}, "expected one shape"),
        ({"classes": ["a"]}, "labels from 0 to 1; expected 0 to 0 for 1 classes"),
        ({"mean": [0.5]}, "only one of mean and std"),
        ({"mean": [0.5, 0.5], "std": [1, 1]}, "for pictures of 1 channels"),
        ({"mean": [0.5], "std": [0]}, "deviations above 0"),
        ({"size": {2: 32}}, "size is {2: 32}; expected pixels"),
        ({"size": -4}, "size is -4"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"size": 8.0}, "size is 8.0"),
        ({"size": 0}, "size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"augment": Flip()}, "augment is Flip.* expected none, standard or a list"),
        ({"augment": [Flip]}, "objects with `draws`"),
        ({"augment": "strong"}, "augment is 'strong'; expected none, standard or a list"),
        ({"augment": [v2.RandomHorizontalFlip()]}, "objects with `draws`"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    grey = (np.arange(32, dtype=np.uint8).reshape(2, 4, 4), [0, 1])
    with pytest.raises(ValueError, match=message):
        rk.array_loaders(**{"train": grey, "val": grey, "augment": "none", **options})


def test_labels_that_begin_at_one_are_refused():
    images, _ = noise(8)
    with pytest.raises(ValueError, match="no picture has the label 0; .*begin at 1: subtract 1"):
        loaders_of(images, np.arange(8) % 4 + 1)
    assert len(loaders_of(images, np.arange(8) % 4 + 1, classes="abcde").classes) == 5


def test_rare_pictures_are_augmented_each_time_anew():
    images, _ = noise(41)
    labels = np.array([0] * 40 + [1])
    loaders = loaders_of(
        images, labels, augment=[ResizedCrop(0.3)], balanced=True, batch_size=41, classes="ab"
    )
    pictures, drawn = next(iter(loaders.train))
    rare = [picture.cpu().numpy().tobytes() for picture in pictures[drawn == 1]]
    assert len(rare) > 8 and len(set(rare)) == len(rare)


def test_grey_pictures_are_not_mirrored_unless_asked():
    grey, rgb = noise(channels=0), noise()
    for split, mirrored in ((grey, False), (rgb, True)):
        steps = rk.array_loaders(train=split, val=split).train.dataset.augment
        assert [type(step) for step in steps] == ([Crop, Flip] if mirrored else [Crop])


def test_fashion_is_mirrored_and_house_numbers_are_not(data_root):
    data_root.mkdir()
    for name, shape, mirrored in (("fashion_mnist", (28, 28), True), ("svhn", (32, 32, 3), False)):
        images, labels = np.zeros((40, *shape), np.uint8), np.arange(40) % 10
        np.savez(data_root / f"{name}.npz", train_images=images, train_labels=labels,
                 test_images=images, test_labels=labels)  # fmt: skip
        steps = rk.named_dataset(name, val_from_train=0.5).train.dataset.augment
        assert (Flip() in steps) == mirrored


def test_pictures_may_be_given_for_scoring_only():
    images, labels = noise()
    source = rk.weights("resnet18", None)
    loaders = rk.array_loaders(test=(images, labels), like=source, size=16, classes=["cat", "dog"])
    assert repr(loaders) == "Loaders(test 10 pictures of 16 px; 2 classes: cat, dog)"
    assert (loaders.train, loaders.val) == (None, None)
    assert len(rk.evaluate(small_net(2), loaders.test, progress=False).labels) == 10
    with pytest.raises(ValueError, match="no split 'train'; this data set has: test"):
        loaders.plain("train")
    with pytest.raises(ValueError, match="not known how to normalise; give like="):
        rk.array_loaders(test=(images, labels))
    with pytest.raises(ValueError, match="no pictures are given"):
        rk.array_loaders()
