"""What only a CUDA GPU can show; skipped elsewhere."""

import copy

import pytest
import torch
from torch import nn

import resnet_kit as rk
from conftest import small_net, tensor_loader
from resnet_kit.devices import best_precision, resolve_precision, send
from resnet_kit.models.resnets import cifar_resnet
from resnet_kit.training.loop import Meter, train_step
from resnet_kit.training.state import RunSettings, TrainingRun

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def on_the_gpu(monkeypatch):
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cuda")


def train(model, epochs=2, **options):
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(trainable, lr=0.05, momentum=0.9)
    criterion = options.pop("criterion", nn.CrossEntropyLoss())
    loaders = options.pop("loaders", (tensor_loader(24), tensor_loader(12, seed=1)))
    return rk.train_and_eval(model, epochs, criterion, optimizer, *loaders, **options)


def test_models_go_to_the_gpu_and_compute_there_in_bf16():
    model = small_net()
    train(model)
    assert next(model.parameters()).device.type == "cuda"
    if torch.cuda.get_device_capability()[0] >= 8:
        assert best_precision(GPU) == resolve_precision(GPU, "auto") == "bf16"


def test_gradients_in_fp32_are_true_although_tf32_is_allowed():
    torch.manual_seed(0)
    model = cifar_resnet(8).to(GPU)
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    exact = copy.deepcopy(model).double()
    nn.functional.cross_entropy(exact(images.to(GPU).double()), labels.to(GPU)).backward()
    seen = {}

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            names = dict(model.named_parameters())
            seen.update({name: p.grad.clone() for name, p in names.items()})
            return super().step(closure)

    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("medium")
    try:
        optimizer = Recording(model.parameters(), lr=0.1)
        loaders = [(images, labels)], [(images, labels)]
        train(model, 1, optimizer=optimizer, loaders=loaders, precision="fp32")
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
    for name, parameter in exact.named_parameters():
        error = (seen[name] - parameter.grad).norm() / parameter.grad.norm().clamp(min=1e-6)
        assert error < 1e-5, (name, error)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_makes_the_gpu_wait(precision):
    model = small_net().to(GPU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    settings = RunSettings(seed=0, precision=precision)
    run = TrainingRun(model, nn.CrossEntropyLoss(), optimizer, GPU, settings)
    meter, batches = Meter(GPU), list(tensor_loader(24))
    train_step(run, batches[:1], meter)  # the first one sets things up
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            train_step(run, [batch], meter)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.read()[0] > 0


def test_frozen_features_are_bit_identical(folder):
    source = rk.weights("resnet18", "tiny")
    loaders = rk.image_folders(folder, like=source, size=32, workers=0)
    model = rk.pretrained(source, num_classes=2)
    rk.freeze(model)
    rk.unfreeze(model, "fc")

    def features():
        found = rk.extract_features(model, loaders, precision="fp32", progress=False)
        return found.train.dataset.features.cpu()

    before = features()
    train(model, loaders=(loaders.train, loaders.val))
    assert torch.equal(before, features())


def test_batches_of_kept_pictures_are_made_there_without_waiting(folder):
    loaders = rk.image_folders(folder, size=16, batch_size=4, mean=[0] * 3, std=[1] * 3)
    first = [images for images, _ in loaders.train]  # decodes
    assert {images.device.type for images in first} == {"cuda"}
    loaders.train.sampler.set_epoch(1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = [images for images, _ in loaders.train]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(torch.cat(first), torch.cat(again))


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(1).expand(4, 3), torch.arange(20.0).unfold(0, 4, 1), torch.arange(6.0)[::2]],
    ids=["expanded", "overlapping", "with gaps"],
)
def test_tensors_of_any_strides_can_be_sent(tensor):
    assert torch.equal(send(tensor, GPU).cpu(), tensor)


def test_a_resumed_run_goes_on_with_the_same_numbers(tmp_path):
    whole = train(small_net(), 3, precision="fp32")
    train(small_net(), 2, precision="fp32", checkpoint=tmp_path)
    resumed = train(small_net(), 3, precision="fp32", checkpoint=tmp_path, resume=True)
    losses = [[row["train_loss"] for row in history.rows] for history in (whole, resumed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # cuDNN is not deterministic


def test_rates_are_searched_and_class_weights_go_where_the_model_is():
    model = small_net().to(GPU)
    before = copy.deepcopy(model.state_dict())
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    search = rk.find_lr(model, criterion, optimizer, tensor_loader(24), steps=10)
    assert search.suggestion > 0
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert train(model, criterion=criterion).stopped == "finished"


def test_grad_cam_and_evaluate_give_results_on_the_cpu():
    model = cifar_resnet(8).to(GPU)
    assert rk.grad_cam(model, torch.randn(2, 3, 32, 32)).device.type == "cpu"
    batch = torch.randn(6, 3, 32, 32), torch.arange(6)
    assert rk.evaluate(model, [batch], progress=False).probabilities.shape == (6, 10)


def test_a_model_saved_on_the_gpu_is_loaded_on_a_cpu(tmp_path, monkeypatch):
    rk.seed_everything(0)
    model, data = cifar_resnet(8, in_channels=1), rk.named_dataset("digits")
    train(model, 1, loaders=(data.train, data.val))
    path = rk.save_classifier(tmp_path / "digits.safetensors", model, data)
    there = rk.evaluate(model, data.val, progress=False)
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cpu")
    classifier = rk.load_classifier(path)
    here = rk.evaluate(classifier.model, rk.named_dataset("digits").val, progress=False)
    assert next(classifier.model.parameters()).device.type == "cpu"
    assert abs(here.probabilities - there.probabilities).max() < 1e-3


def test_a_full_memory_leaves_a_usable_kernel():
    model = cifar_resnet(20)
    huge = (
        torch.zeros(1, dtype=torch.float32).expand(200_000, 3, 32, 32),
        torch.zeros(200_000).long(),
    )
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="batch_size=100000 with accumulate=2"):
            train(model, 1, loaders=([huge], [huge]))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_allocated() < 200e6
    train(small_net(), 1)
