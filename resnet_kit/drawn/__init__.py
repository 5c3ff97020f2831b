"""Pictures drawn with OpenCV that stand in for photographs on a machine without internet.

Every picture is a scene: a background, a ground shadow, the subject, now and then something in
front of it, and a camera with its light, blur and noise. All classes share the same backgrounds,
coats, colours and sizes, so only the shape of the subject tells them apart.

One module for each kind of thing in it: `outlines` (plain arrays of points), `paints` (palettes
and textures), `pen` (paints an outline as a softly lit body), `backgrounds`, `pets` (what `cats`
and `dogs` share), `insects`, `things`, `flowers`. This file has the functions for users,
`draw`, `draw_arrays`, `draw_folder` and `plant_troubles`, then the scene and the camera.

Units: the short side of the picture is 1, the origin is its centre, y points down.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from ..settings import data_root, in_threads, progress_bar, quick_mode
from . import cats, dogs, flowers, insects, things
from .backgrounds import BACKGROUNDS, leaf, oddment
from .outlines import ellipse, limb
from .paints import BLACK, NATURAL, TILE_UNIT, Rng, Swatch, mix, tint
from .pen import Light, Pen, half_size, somewhere

ANIMALS = ("cat", "dog", "ants", "bees")
THINGS = (
    "boat",
    "butterfly",
    "car",
    "fish",
    "flower",
    "house",
    "mushroom",
    "snail",
    "tree",
    "umbrella",
)
FLOWERS = tuple(flowers.KINDS)
VERSION = 1  # raised whenever the pictures change, so that stale folders are drawn again

SUBJECTS: dict[str, Callable[[Pen, Rng], None]] = {
    "cat": cats.cat,
    "dog": dogs.dog,
    "ants": insects.ants,
    "bees": insects.bees,
    **{name: getattr(things, name) for name in THINGS},
    **flowers.KINDS,
}
NUMBERS = {name: number for number, name in enumerate(SUBJECTS)}  # a part of every seed


def draw(name: str, index: int, *, seed: int = 0, size: int | tuple[int, int] = 224) -> np.ndarray:
    """A drawn picture: uint8 RGB `(height, width, 3)`, always the same for the same arguments.

    `size` is the side of a square or `(height, width)`; other sizes show the same scene.
    Raises: ValueError for an unknown class, a negative index or a side under 16 pixels.
    """
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    _check(name, index, height, width)
    streams = np.random.SeedSequence([seed, NUMBERS[name], index]).spawn(3)
    behind, subject, camera = (np.random.default_rng(s) for s in streams)
    factor = 2 if min(height, width) >= 96 else 3  # a scene is painted larger, then shrunk
    angle = np.deg2rad(behind.uniform(-160, -20))
    light = (float(np.cos(angle)), float(np.sin(angle)))
    pixels = _background(height * factor, width * factor, light, behind)
    pen = Pen.over(pixels, light)
    _distractors(pen, behind)
    SUBJECTS[name](pen, subject)
    _in_front(pen, behind)
    return _camera(pixels, height, width, camera)


def _check(name: str, index: int, height: int, width: int) -> None:
    if name not in SUBJECTS:
        raise ValueError(f"no class {name!r} can be drawn; choose from: {', '.join(SUBJECTS)}")
    if index < 0:
        raise ValueError(f"index is {index}; pictures are numbered from 0")
    if min(height, width) < 16:
        raise ValueError(f"size is {height} x {width} pixels; both sides must be at least 16")


def draw_arrays(
    names: Sequence[str], per_class: int, *, size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 `(N, size, size, 3)` and labels int64 `(N,)`, the classes interleaved.

    Label k is `names[k]`; picture i shows class `i % len(names)`, so every slice is balanced.
    """
    jobs = [(name, index) for index in range(per_class) for name in names]
    images = list(in_threads(lambda job: draw(*job, seed=seed, size=size), jobs))
    labels = np.tile(np.arange(len(names), dtype=np.int64), per_class)
    return np.array(images, np.uint8).reshape(-1, size, size, 3), labels


def draw_folder(
    root: str | Path,
    counts: Mapping[str, Mapping[str, int]],
    *,
    seed: int = 0,
    size: int = 256,
    progress: bool = True,
) -> Path:
    """A new folder `root` of drawn JPEG files: split / class folder / file.

    `counts` says how many: `{"train": {"0_cat": 130, ...}, "eval": {...}}`; the class is what
    follows the first "_" in the folder's name, or the whole name. The short side of a picture is
    `size`, the long one up to 1.4 times that. No picture is in two splits.

    All or nothing: the files are drawn into a folder beside `root`, which takes its name when
    complete and goes away when anything fails.
    Raises: FileExistsError where `root` exists; ValueError for a class that cannot be drawn.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} exists already; delete it or choose a folder that is new")
    jobs = _folder_jobs(counts, size)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for folder in {path.parent for path, _, _ in jobs}:
            (partial / folder).mkdir(parents=True)
        _draw_files(partial, jobs, seed, size, progress)
        partial.chmod(0o755)
        partial.rename(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return root


def plant_troubles(root: Path, *, swapped: float = 0.05, seed: int = 0) -> None:
    """Give a new `draw_folder` with `train` and `test` the troubles that real folders have.

    In `train`: a file that was cut off, a text file, and a share of the pictures in the folder of
    another class. In `test`: a smaller copy and a mirrored copy of training pictures. The name of
    a file still begins with what was drawn, so that what is found can be compared with the truth.
    """
    rng, train = np.random.default_rng(seed), root / "train"
    folders = sorted(train.iterdir())
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    small, mirrored, *others = (files[k] for k in rng.permutation(len(files)))
    for file, kind in ((small, "small"), (mirrored, "mirrored")):
        pixels = cv2.imread(str(file))
        pixels = (
            cv2.flip(pixels, 1) if kind == "mirrored" else cv2.resize(pixels, None, fx=0.5, fy=0.5)
        )
        cv2.imwrite(str(root / "test" / file.parent.name / f"{file.stem}.{kind}.jpg"), pixels)
    for file in others[: round(swapped * len(files))]:
        wrong = [folder for folder in folders if folder != file.parent]
        file.rename(wrong[rng.integers(len(wrong))] / file.name)
    data = small.read_bytes()
    small.with_stem("cut").write_bytes(data[: len(data) // 3])
    (folders[-1] / "notes.txt").write_text("the photos of August")


def kept_folder(name: str, counts: Mapping, *, progress: bool = True) -> Path:
    """The data root's folder of these pictures, drawn unless this version of them is there."""
    kind = f"{name}_quick" if quick_mode() else name
    folder = data_root() / f"{kind}_v{VERSION}"
    try:
        if not folder.is_dir():
            draw_folder(folder, counts, progress=progress)
    except OSError:  # another process may have been faster
        if not folder.is_dir():
            raise
    return folder


def _folder_jobs(counts: Mapping[str, Mapping[str, int]], size: int) -> list[tuple[Path, str, int]]:
    """The file, the class and the index of every picture; an index is used once over all splits."""
    used: dict[str, int] = {}
    jobs = []
    for split, folders in counts.items():
        for folder, count in folders.items():
            name = folder.partition("_")[2] or folder
            _check(name, 0, size, size)
            first = used.get(name, 0)
            used[name] = first + count
            files = (Path(split, folder, f"{name}.{k:04d}.jpg") for k in range(count))
            jobs += [(file, name, first + k) for k, file in enumerate(files)]
    return jobs


def _draw_files(root: Path, jobs: list, seed: int, size: int, progress: bool) -> None:
    """Draws the files of all jobs into the folder `root`, as many at a time as there are cores."""

    def write(job: tuple[Path, str, int]) -> None:
        path, name, index = job
        picture = draw(name, index, seed=seed, size=_photo_shape(name, index, seed, size))
        jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (root / path).write_bytes(jpeg.tobytes())

    with closing(in_threads(write, jobs)) as done:  # after an error nothing is written any more
        for _ in progress_bar(done, total=len(jobs), description="drawing", show=progress):
            pass


def _photo_shape(name: str, index: int, seed: int, size: int) -> tuple[int, int]:
    """The height and width of a photograph: the short side is `size`, either side may be long."""
    rng = np.random.default_rng([seed, NUMBERS[name], index, 7])
    long = round(size * rng.uniform(1, 1.4))
    return (size, long) if rng.random() < 0.6 else (long, size)


def _distractors(pen: Pen, rng: Rng) -> None:
    """Things that lie about, behind the subject."""
    for _ in range(rng.choice([0, 1, 2, 3], p=[0.6, 0.25, 0.1, 0.05])):
        oddment(pen.at(*somewhere(pen, rng, 1.1), rng.uniform(0.04, 0.18)), rng)


def _in_front(pen: Pen, rng: Rng) -> None:
    """Now and then a blade, a leaf, a twig or a blurred shape between camera and subject."""
    hx, hy = half_size(pen)
    kind = rng.choice(5, p=[0.76, 0.1, 0.06, 0.02, 0.06])
    colour = tint(rng, NATURAL)
    if kind == 1:
        roots, leans = rng.uniform(-hx, hx, 9), rng.normal(0, 0.15, 9)
        heights = rng.uniform(0.1, 0.5, 9)
        for x, lean, high in zip(roots, leans, heights, strict=True):
            blade = [(x, hy + 0.05), (x + lean * 0.3, hy - high * 0.5), (x + lean, hy - high)]
            pen.fill(limb(blade, [0.02, 0.016, 0.002]), mix(colour, BLACK, rng.uniform(0, 0.4)))
    elif kind == 2:
        side = rng.choice([-1, 1])
        x, y = side * (hx + 0.15), rng.uniform(-hy, hy)
        place = pen.at(x, y, turn=-90 * side + rng.normal(0, 25))
        leaf(place, rng, colour, rng.uniform(0.4, 0.7))
    elif kind == 3:
        ends = rng.uniform(-hy, hy, 2)
        twig = [(-hx - 0.1, ends[0]), (0, ends.mean() + rng.normal(0, 0.08)), (hx + 0.1, ends[1])]
        pen.fill(limb(twig, [0.02, 0.03, 0.02]), colour)
    elif kind == 4:
        angle = rng.uniform(0, 2 * np.pi)
        blot = ellipse(np.cos(angle) * hx, np.sin(angle) * hy, *rng.uniform(0.12, 0.35, 2))
        pen.veil(blot, colour, rng.uniform(0.5, 0.9), soft=0.05)


def _background(height: int, width: int, light: Light, rng: Rng) -> np.ndarray:
    """A background out of one of the painters, mostly out of focus and paler than the subject."""
    pixels = np.empty((height // 2, width // 2, 3), np.uint8)
    pen = Pen.over(pixels, light)
    BACKGROUNDS[rng.integers(len(BACKGROUNDS))](pen, rng)
    blur = rng.choice([0, 1, 1, 1]) * rng.uniform(0.01, 0.045) * pen.unit
    calm = rng.uniform(0, 0.55)
    if blur > 0.4:
        factor = max(1, int(blur / 1.5))
        size = (width // 2 // factor, height // 2 // factor)
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), blur / factor)
        mean = (calm * small.mean((0, 1))).tolist()
        pixels = cv2.add(cv2.multiply(small, (1 - calm,) * 4), (*mean, 0))
    return cv2.resize(pixels, (width, height))


def _camera(pixels: np.ndarray, height: int, width: int, rng: Rng) -> np.ndarray:
    """The photograph of a scene: light and vignette, exposure, colour cast, blur and noise."""
    unit = min(height, width)
    blur = rng.choice([0, 0.002, 0.005], p=[0.5, 0.4, 0.1]) * rng.uniform(0.5, 1.3)
    lamp = rng.uniform(0.75, 1.05, (4, 4))
    lamp[1:3, 1:3] += rng.uniform(0, 0.35)
    gain = rng.uniform(0.82, 1.15) * (1 + rng.normal(0, 0.03, 3))
    gamma, contrast = np.exp(rng.normal(0, 0.13)), rng.uniform(0.82, 1.2)
    grain, strength = Swatch.pick(rng, "grain"), rng.choice([0.02, 0.03, 0.05, 0.08])
    photo = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    if blur * unit > 0.3:
        photo = cv2.GaussianBlur(photo, (0, 0), blur * unit)
    lamp = np.clip(lamp * 105, 0, 255).astype(np.uint8)
    lamp = cv2.resize(lamp, (width, height), interpolation=cv2.INTER_CUBIC)
    photo = cv2.multiply(photo, cv2.cvtColor(lamp, cv2.COLOR_GRAY2RGB), scale=1 / 110)
    tones = (np.arange(256)[:, None] / 255) ** gamma * gain
    tones = np.clip(((tones - 0.45) * contrast + 0.45) * 255, 0, 255).astype(np.uint8)
    photo = cv2.LUT(photo, tones[:, None])
    noise = grain.cut_rgb(width, height, TILE_UNIT, strength)
    return cv2.addWeighted(photo, 1, noise, 1, -128)
