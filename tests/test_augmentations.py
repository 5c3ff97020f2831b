import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import resnet_kit as rk
from resnet_kit.data import ColorJitter, Crop, Flip

pytestmark = pytest.mark.usefixtures("on_cpu")
TRAINING = "what training gets:\nloaders.train"


def rows_of(figure) -> dict[str, list]:
    """The pictures `(title, array)` of a figure by the words at their left."""
    columns = figure.axes[0].get_gridspec().ncols
    rows = [figure.axes[start : start + columns] for start in range(0, len(figure.axes), columns)]
    return {
        label.texts[0].get_text(): [
            (axes.get_title(), np.asarray(axes.images[0].get_array()))
            for axes in places
            if axes.images
        ]
        for label, *places in rows
    }


def of_folder(folder, **options):
    return rk.image_folders(folder, size=16, mean=[0.4] * 3, std=[0.2] * 3, batch_size=4, **options)


def seen_in_training(loaders, file, epochs: int):
    """(epoch, picture) each time that a training meets a file, from the loader's own batches."""
    order = [index for index, name in enumerate(loaders.files["train"]) if name == file]
    for epoch in range(1, epochs + 1):
        loaders.train.sampler.set_epoch(epoch)
        keys = list(loaders.train.sampler)
        loaders.train.sampler.set_epoch(epoch)
        images = torch.cat([images for images, _ in loaders.train])
        for key, image in zip(keys, images, strict=False):  # the last one may be left out
            if key[1] == order[0]:
                yield f"epoch {epoch}", (image * 0.2 + 0.4).clamp(0, 1).permute(1, 2, 0).numpy()


def assert_shown_is_seen(shown, seen):
    assert [title for title, _ in shown] == [title for title, _ in seen] and len(shown) == 6
    for (_, ours), (_, theirs) in zip(shown, seen, strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("batch_size", [4, 5])  # 11 pictures: of 5 and 5 one is left
def test_what_is_shown_is_what_training_gets(folder, balanced, batch_size):
    how = {"size": 16, "mean": [0.4] * 3, "std": [0.2] * 3, "augment": "trivial", "seed": 3}
    loaders = rk.image_folders(folder, **how, batch_size=batch_size, balanced=balanced)
    file = loaders.files["train"][4]
    shown = rows_of(rk.show_augmentations(file, loaders))[TRAINING]
    seen = list(itertools.islice(seen_in_training(loaders, file, 40), 6))
    assert_shown_is_seen(shown, seen)
    assert len({picture.tobytes() for _, picture in shown}) > 1


def test_looking_leaves_the_loader_and_all_random_numbers_as_they_were(folder):
    loaders, again = of_folder(folder), of_folder(folder)
    rk.seed_everything(7)
    rk.show_augmentations(0, loaders, augment="trivial")
    assert torch.equal(torch.rand(3), (torch.manual_seed(7), torch.rand(3))[1])
    for (ours, _), (theirs, _) in zip(loaders.train, again.train, strict=True):
        assert torch.equal(ours, theirs)


def test_pictures_in_memory_are_shown_as_training_gets_them():
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    steps = [Crop(3), Flip(), ColorJitter(0.3)]
    data = rk.array_loaders(
        train=(images, np.arange(9) % 3), augment=steps, batch_size=4, size={1: 8, 3: 16}
    )
    shown = rows_of(rk.show_augmentations(5, data))[TRAINING]
    assert [picture.shape for _, picture in shown] == [(8, 8, 3)] * 2 + [(16, 16, 3)] * 4
    for epoch, (title, picture) in enumerate(shown, 1):
        data.train.sampler.set_epoch(epoch)
        orders = torch.cat([indices for _, indices in data.train.sampler])
        data.train.sampler.set_epoch(epoch)
        batches = torch.cat([images for images, _ in data.train])
        image = batches[int((orders == 5).nonzero())].permute(1, 2, 0).numpy()
        expected = (image * np.array(data.std) + np.array(data.mean)).clip(0, 1)
        assert title == f"epoch {epoch}" and np.allclose(picture, expected, atol=1e-5)


def test_every_augmentation_has_its_row_and_the_original_comes_first(folder):
    file = folder / "train" / "a" / "0.png"
    rows = rows_of(rk.show_augmentations(str(file), augment=v2.RandomRotation(90)))
    (first, original), *_ = rows["the picture"]
    assert next(iter(rows)) == "the picture" and first == "as it is"
    assert np.allclose(original, rk.read_image(file).permute(1, 2, 0).numpy() / 255)
    names = " ".join(rows)
    for word in ("75 %", "35 %", "8 %", "flip", "jitter", "TrivialAugment", '"trivial"', "your"):
        assert word in names
    assert all(len(row) == 6 for name, row in rows.items() if name != "the picture")
    assert {len({x.tobytes() for _, x in row}) > 1 for row in rows.values()} == {True}
    jitter = rows["colour jitter:\nbrightness, contrast,\nsaturation"]
    assert [title for title, _ in jitter] == [
        *("± 20 %", "± 20 %", "± 40 %", "± 40 %", "± 80 %", "± 80 %")
    ]


def test_the_picture_as_validation_sees_it_is_the_loaders_own(folder):
    loaders = of_folder(folder, augment="none")
    rows = rows_of(rk.show_augmentations(2, loaders))
    plain = loaders.plain("train").dataset[2][0].permute(1, 2, 0).numpy() * 0.2 + 0.4
    title, shown = rows["the picture"][1]
    assert title == "as val sees it" and np.allclose(shown, plain, atol=1e-6)
    assert all(np.allclose(picture, plain, atol=1e-6) for _, picture in rows[TRAINING])


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_arrays_and_tensors_are_pictures_too(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    figure = rk.show_augmentations(array)
    assert figure._repr_jpeg_().startswith(b"\xff\xd8")
    if len(shape) == 3:
        same = rows_of(rk.show_augmentations(torch.from_numpy(array).permute(2, 0, 1)))
        assert all(
            np.array_equal(a, b)
            for name, row in rows_of(figure).items()
            for (_, a), (_, b) in zip(row, same[name], strict=True)
        )


def test_what_cannot_be_shown_is_refused(folder):
    loaders = of_folder(folder)
    val = loaders.files["val"][0]
    with pytest.raises(ValueError, match=r"expected a picture that loaders.train has: a number"):
        rk.show_augmentations(val, loaders)
    with pytest.raises(ValueError, match="picture is 11; expected .* a number below 11"):
        rk.show_augmentations(11, loaders)
    with pytest.raises(ValueError, match="loaders is .*expected the Loaders of a whole data set"):
        rk.show_augmentations(val, loaders.train)
    with pytest.raises(ValueError, match="augment is the class RandomRotation; expected a name"):
        rk.show_augmentations(val, augment=v2.RandomRotation)
    with pytest.raises(ValueError, match="augment is 'more'; expected none, standard, trivial"):
        rk.show_augmentations(val, augment="more")
