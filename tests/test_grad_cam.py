import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import resnet18

import resnet_kit as rk
from resnet_kit.models.resnets import cifar_resnet


class Corners(nn.Module):
    """Class 0 looks at the upper left quarter of a picture, class 1 at the lower right one."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1)
        nn.init.constant_(self.maps.weight, 1.0)
        nn.init.zeros_(self.maps.bias)
        mask = torch.zeros(2, 8, 8)
        mask[0, :4, :4] = mask[1, 4:, 4:] = 1
        self.register_buffer("mask", mask)
        self.stage = nn.Identity()

    def forward(self, x):
        return self.stage(self.maps(x) * self.mask).mean((2, 3))


def test_the_map_is_warm_where_the_class_is_decided():
    pictures = torch.ones(2, 3, 8, 8)
    heat = rk.grad_cam(Corners(), pictures, [0, 1])
    assert heat.shape == (2, 8, 8) and heat.min() == 0 and heat.max() == 1
    assert heat[0, :4, :4].min() == 1 and heat[0, 4:].max() == 0
    assert heat[1, 4:, 4:].min() == 1 and heat[1, :4].max() == 0


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("preactivation", [False, True])
def test_maps_follow_the_definition_and_change_nothing(frozen, preactivation):
    torch.manual_seed(0)
    model = cifar_resnet(8, preactivation=preactivation).train()
    if frozen:
        rk.freeze(model)
    before = copy.deepcopy(model.state_dict())
    pictures = torch.randn(3, 3, 32, 32)
    heat = rk.grad_cam(model, pictures)
    assert heat.shape == (3, 32, 32) and heat.min() >= 0 and heat.max() <= 1
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    with torch.no_grad():  # as in a cell that looks at pictures
        one = rk.grad_cam(model, pictures[1:2])
    assert torch.allclose(one[0], heat[1], atol=1e-4)  # no picture depends on its neighbours


@pytest.mark.usefixtures("on_cpu")
def test_the_last_maps_are_those_of_the_last_stage():
    torch.manual_seed(0)
    model, kept = resnet18().eval(), []
    picture = torch.randn(1, 3, 96, 96)
    heat = rk.grad_cam(model, picture, [7])
    hook = model.layer4.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = model(picture)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, 7], kept)
    small = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu().detach()
    large = nn.functional.interpolate(small, (96, 96), mode="bilinear")[0, 0]
    assert torch.allclose(heat[0], large / large.max(), atol=1e-4)


def test_a_model_without_maps_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ValueError, match="no layer of this Sequential gives maps"):
        rk.grad_cam(model, torch.randn(1, 3, 2, 2))


def test_pictures_and_labels_that_do_not_fit_are_refused():
    pictures = torch.rand(2, 3, 8, 8)
    for wrong in (pictures[0], pictures.byte()):
        with pytest.raises(ValueError, match=r"expected a batch \(N, C, H, W\) of prepared ones"):
            rk.grad_cam(Corners(), wrong)
    for labels in ([0], [0, 2], [-1, 0]):
        with pytest.raises(ValueError, match="expected one of 0 to 1 for each of the 2 pictures"):
            rk.grad_cam(Corners(), pictures, labels)


@pytest.mark.parametrize("depth", [1, 4])
def test_maps_far_from_the_end_are_refused(depth):
    """A vision transformer has maps in its first layer alone; they do not say where it looks."""
    options = {"num_heads": 2, "hidden_dim": 8, "mlp_dim": 16, "num_classes": 2}
    model = torchvision.models.VisionTransformer(32, 8, depth, **options)
    with pytest.raises(ValueError, match="many layers, so the maps do not say where it looks"):
        rk.grad_cam(model, torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("arch", ["swin_t", "vgg11", "convnext_tiny", "mobilenet_v3_small"])
def test_networks_that_end_in_maps_are_drawn(arch):
    with torch.device("meta"):  # without the seconds that drawing first weights takes
        model = torchvision.models.get_model(arch, weights=None, num_classes=2)
    for tensor in model.to_empty(device="cpu").state_dict().values():
        tensor.fill_(0.01)
    assert rk.grad_cam(model, torch.randn(1, 3, 64, 64)).shape == (1, 64, 64)
