"""The drawn pictures: the same for the same arguments, different otherwise, and no give-away."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import resnet_kit as rk
from resnet_kit import drawn

ALL = (*drawn.ANIMALS, *drawn.THINGS, drawn.FLOWERS[0], drawn.FLOWERS[-1])
COUNTS = {
    "train": {"0_cat": 3, "1_dog": 2, "2_ants": 2, "bees": 1},
    "eval": {"0_cat": 2, "bees": 2},
}


def thumbnails(images: np.ndarray, side: int) -> np.ndarray:
    """The mean colours of a `side` x `side` grid on each picture, as float rows."""
    n, size = images.shape[:2]
    blocks = images.reshape(n, side, size // side, side, size // side, 3).mean(axis=(2, 4))
    return blocks.reshape(n, -1)


@pytest.fixture(scope="module")
def animals() -> tuple[np.ndarray, np.ndarray]:
    return drawn.draw_arrays(drawn.ANIMALS, 60, size=32)


@pytest.mark.parametrize("name", ALL)
def test_every_class_is_drawn_with_contrast(name):
    picture = drawn.draw(name, 0, size=48)
    assert picture.shape == (48, 48, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 8


def test_ten_things_are_sorted_and_differ_from_the_animals():
    assert len(drawn.THINGS) == 10
    assert list(drawn.THINGS) == sorted(drawn.THINGS)
    assert len(set(ALL)) == len(ALL)


def test_flowers_are_all_combinations_of_petals_shape_and_colour():
    parts = [set(x) for x in zip(*(name.split() for name in drawn.FLOWERS), strict=True)]
    assert [len(x) for x in parts] == [4, 3, 4] and len(set(drawn.FLOWERS)) == 4 * 3 * 4
    images, labels = drawn.draw_arrays(["8 round red", "8 round blue"], 8, size=32)
    red, blue = (images[labels == label].mean((0, 1, 2)) for label in (0, 1))
    assert red[0] > blue[0] + 10 and blue[2] > red[2] + 10


@pytest.mark.parametrize(("size", "shape"), [(16, (16, 16)), ((40, 56), (40, 56)), (97, (97, 97))])
def test_size_is_a_side_or_height_and_width(size, shape):
    picture = drawn.draw("bees", 3, size=size)
    assert picture.shape == (*shape, 3)
    assert picture.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("name", ALL)
def test_same_arguments_give_the_same_bytes(name):
    assert np.array_equal(drawn.draw(name, 5, size=40), drawn.draw(name, 5, size=40))


def test_threads_and_order_change_nothing():
    jobs = [(name, index) for index in range(3) for name in drawn.ANIMALS]
    alone = [drawn.draw(*job, size=40) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: drawn.draw(*job, size=40), reversed(jobs)))
    assert np.array_equal(alone, together[::-1])


def test_global_random_state_is_neither_used_nor_changed():
    np.random.seed(1)
    first, state = drawn.draw("cat", 1, size=32), np.random.get_state()[1].copy()
    np.random.seed(2)
    assert np.array_equal(first, drawn.draw("cat", 1, size=32))
    np.random.seed(1)
    assert np.array_equal(state, np.random.get_state()[1])


def test_index_seed_and_class_each_give_another_picture():
    picture = drawn.draw("ants", 0, size=32)
    others = [
        drawn.draw("ants", 1, size=32),
        drawn.draw("ants", 0, seed=1, size=32),
        drawn.draw("bees", 0, size=32),
    ]
    assert all(np.abs(picture - other.astype(float)).mean() > 5 for other in others)


@pytest.mark.parametrize("name", ALL)
def test_another_size_shows_the_same_scene(name):
    large, small = drawn.draw(name, 2, size=192), drawn.draw(name, 2, size=96)
    a, b = thumbnails(np.stack([large]), 12), thumbnails(np.stack([small]), 12)
    other = thumbnails(np.stack([drawn.draw(name, 3, size=96)]), 12)
    assert np.abs(a - b).mean() < 8
    assert np.abs(a - b).mean() < 0.25 * np.abs(a - other).mean()


def test_no_two_backgrounds_are_alike(animals):
    """The border of a picture is mostly background: no two borders are near each other."""
    images, _ = animals
    cells = thumbnails(images, 8).reshape(-1, 8, 8, 3)
    border = np.ones((8, 8), bool)
    border[1:-1, 1:-1] = False
    rows = cells[:, border].reshape(len(images), -1)
    apart = np.abs(rows[:, None] - rows[None]).mean(axis=2)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() > 2.5


def test_colour_does_not_give_the_class_away(animals):
    """The nearest class mean in colour space is hardly better than guessing one of four."""
    images, labels = animals
    pixels = images.reshape(len(images), -1, 3).astype(float)
    colours = np.concatenate([pixels.mean(1), pixels.std(1)], axis=1)
    train = np.arange(len(images)) < 160
    means = np.stack([colours[train & (labels == k)].mean(0) for k in range(4)])
    guess = np.linalg.norm(colours[~train, None] - means, axis=2).argmin(1)
    assert (guess == labels[~train]).mean() < 0.5


def test_nearest_thumbnail_does_not_give_the_class_away(animals):
    images, labels = animals
    rows = thumbnails(images, 8)
    rows = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(1)] == labels).mean() < 0.6


def test_arrays_interleave_the_classes():
    images, labels = drawn.draw_arrays(("car", "fish"), 3, size=16, seed=4)
    assert images.shape == (6, 16, 16, 3)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(images[3], drawn.draw("fish", 1, seed=4, size=16))


def test_arrays_of_no_pictures_keep_their_shape():
    images, labels = drawn.draw_arrays(("car",), 0, size=16)
    assert images.shape == (0, 16, 16, 3)
    assert labels.shape == (0,)


def test_folder_has_the_counts_names_and_shapes_asked_for(tmp_path):
    cv2 = pytest.importorskip("cv2")
    root = drawn.draw_folder(tmp_path / "deep" / "animals", COUNTS, size=32, progress=False)
    assert root == tmp_path / "deep" / "animals"
    assert [p.name for p in root.parent.iterdir()] == ["animals"]
    found = {s: {f: len(list((root / s / f).iterdir())) for f in COUNTS[s]} for s in COUNTS}
    assert found == COUNTS
    assert (root / "train" / "0_cat" / "cat.0000.jpg").is_file()
    shapes = [cv2.imread(str(path)).shape for path in root.rglob("*.jpg")]
    assert {min(shape[:2]) for shape in shapes} == {32}
    assert max(max(shape[:2]) for shape in shapes) <= 45
    assert len(set(shapes)) > 3


def test_no_picture_is_in_a_folder_twice(tmp_path):
    root = drawn.draw_folder(tmp_path / "animals", COUNTS, size=32, progress=False)
    files = [path.read_bytes() for path in root.rglob("*.jpg")]
    assert len(set(files)) == len(files) == 12


def test_folder_is_the_same_again_and_another_with_another_seed(tmp_path):
    def contents(name: str, seed: int) -> dict:
        root = drawn.draw_folder(tmp_path / name, COUNTS, seed=seed, size=32, progress=False)
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.jpg")}

    first = contents("a", 0)
    assert first == contents("b", 0)
    assert not set(first.values()) & set(contents("c", 1).values())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch, error):
    original = drawn.draw

    def broken(name, index, **options):
        if (name, index) == ("cat", 2):
            raise error("stop")
        return original(name, index, **options)

    monkeypatch.setattr(drawn, "draw", broken)
    with pytest.raises(error):
        drawn.draw_folder(tmp_path / "animals", COUNTS, size=32, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match=r"exists already; delete it or choose"):
        drawn.draw_folder(tmp_path, COUNTS, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cow", 0, 64), "no class 'cow' can be drawn; choose from: cat, dog, ants, bees, boat"),
        (("cat", -1, 64), "index is -1; pictures are numbered from 0"),
        (("cat", 0, 15), "size is 15 x 15 pixels; both sides must be at least 16"),
        (("cat", 0, (64, 8)), "size is 64 x 8 pixels; both sides must be at least 16"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    name, index, size = arguments
    with pytest.raises(ValueError, match=message):
        drawn.draw(name, index, size=size)


def test_folder_of_an_unknown_class_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="no class 'cow'"):
        drawn.draw_folder(tmp_path / "farm", {"train": {"0_cow": 1}}, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_faster_process_may_draw_a_kept_folder_first(data_root, monkeypatch):
    def late(folder, counts, *, progress):
        folder.mkdir(parents=True)
        raise FileExistsError(folder)

    monkeypatch.setattr(drawn, "draw_folder", late)
    assert drawn.kept_folder("cats", {}).is_dir()
    monkeypatch.setattr(drawn, "draw_folder", lambda *_, **__: (data_root / "no" / "dir").mkdir())
    with pytest.raises(FileNotFoundError, match="no/dir"):
        drawn.kept_folder("dogs", {})


def test_planted_troubles_are_as_many_as_asked_for_and_found(tmp_path):
    counts = {"train": {"0_cat": 12, "1_dog": 8}, "test": {"0_cat": 2, "1_dog": 2}}
    root = drawn.draw_folder(tmp_path / "pets", counts, size=64, progress=False)
    drawn.plant_troubles(root, swapped=0.1)
    report = rk.inspect_folder(root, progress=False)
    assert sorted(report.problems()["problem"]) == ["ignored", "unreadable"]
    assert sorted(report.leaks()["kind"]) == ["mirrored", "near"]
    pictures = [file for file in (root / "train").rglob("*.jpg") if file.stem != "cut"]
    moved = [x for x in pictures if x.name.split(".")[0] != x.parent.name[2:]]
    assert len(pictures) == 20 and len(moved) == 2
