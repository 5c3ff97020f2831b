import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import resnet_kit as rk
from resnet_kit.training import LrSearch


@pytest.fixture
def problem():
    """A small net with BatchNorm, an optimizer with moments, and 64 points of two classes."""
    rk.seed_everything(0)
    x = torch.randn(64, 4)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long()).backward()
    optimizer.step()
    return model, nn.CrossEntropyLoss(), optimizer, loader


def test_model_optimizer_modes_and_random_numbers_are_left_as_they_were(problem):
    model, _, optimizer, _ = problem
    model[1].eval()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    expected = torch.random.get_rng_state()
    search = rk.find_lr(*problem)
    assert len(search.rates) > 20 and torch.equal(torch.random.get_rng_state(), expected)
    for name, tensor in before[0].items():
        assert torch.equal(model.state_dict()[name].cpu(), tensor), name
    after = optimizer.state_dict()
    assert after["param_groups"] == before[1]["param_groups"]
    for index, state in before[1]["state"].items():
        momentum = after["state"][index]["momentum_buffer"].cpu()
        assert torch.equal(momentum, state["momentum_buffer"])
    assert [m.training for m in model] == [True, False, True, True]


@pytest.mark.usefixtures("on_cpu")
def test_a_search_sees_the_first_epoch_and_is_the_same_again():
    data, searches = rk.named_dataset("digits"), []
    for epoch in (1, 7):
        data.train.sampler.set_epoch(epoch)
        rk.seed_everything(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        searches.append(rk.find_lr(model, nn.CrossEntropyLoss(), optimizer, data.train, steps=9))
    assert searches[0].losses == searches[1].losses


def test_the_suggested_rate_learns_and_a_hundred_times_as_much_does_not(problem):
    model, criterion, _, loader = problem
    search = rk.find_lr(*problem, highest=1000.0)
    assert 0.001 < search.suggestion < 10
    assert search.rates[-1] < 1000, "it stops where the loss explodes"
    losses = []
    for rate in (search.suggestion, 100 * search.suggestion, search.suggestion / 1000):
        net = copy.deepcopy(model)
        tuned = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
        history = rk.train_and_eval(net, 4, criterion, tuned, loader, copy.copy(loader))
        losses.append(history.rows[-1]["train_loss"])
    assert losses[0] < min(losses[1:])


def test_two_rates_keep_their_ratio(problem):
    model, criterion, _, loader = problem
    groups = [
        {"params": model[0].parameters(), "lr": 0.01},
        {"params": nn.ModuleList([model[1], model[3]]).parameters()},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    seen = []
    optimizer.register_step_post_hook(
        lambda o, *rest: seen.append(o.param_groups[1]["lr"] / o.param_groups[0]["lr"])
    )
    rk.find_lr(model, criterion, optimizer, loader, steps=5)
    assert seen == pytest.approx([10.0] * 5)


def test_an_interrupt_restores_too(problem):
    model, criterion, optimizer, loader = problem
    before = copy.deepcopy(model.state_dict())

    def stop(logits, labels):
        if stop.calls == 3:
            raise KeyboardInterrupt
        stop.calls += 1
        return criterion(logits, labels)

    stop.calls = 0
    with pytest.raises(KeyboardInterrupt):
        rk.find_lr(model, stop, optimizer, loader)
    assert all(torch.equal(t.cpu(), before[name]) for name, t in model.state_dict().items())


def test_the_rates_rise_from_the_lowest_to_the_highest(problem):
    search = rk.find_lr(*problem, lowest=1e-5, highest=1e-2, steps=4)
    assert search.rates == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2])


def test_a_search_says_its_first_and_its_last_rate():
    search = LrSearch([1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.0, 0.5, 3.0])
    assert repr(search) == "LrSearch(1e-04 to 1e-01, suggestion 0.001)"


def test_the_plot_shows_every_rate(problem):
    search = rk.find_lr(*problem, steps=30)
    line = search.plot().axes[0].lines[0]
    assert list(line.get_xdata()) == search.rates and "suggestion" in repr(search)


def test_the_suggestion_is_shown_with_two_digits():
    search = LrSearch([0.015, 0.03], [1.0, 2.0])
    assert search.plot().axes[0].get_title(loc="left").endswith("suggested 0.0015")
    assert repr(search).endswith("suggestion 0.0015)")


def test_impossible_ranges_are_refused(problem):
    with pytest.raises(ValueError, match="expected 0 < lowest < highest and at least 2 steps"):
        rk.find_lr(*problem, lowest=1.0, highest=0.1)
    with pytest.raises(ValueError, match="not finite with a rate of"):
        rk.find_lr(problem[0], lambda a, b: a.sum() * float("nan"), *problem[2:])


def test_what_cannot_be_searched_is_refused_and_does_not_hang(problem):
    model, criterion, optimizer, loader = problem
    with pytest.raises(ValueError, match="the loader is empty"):
        rk.find_lr(model, criterion, optimizer, [])
    with pytest.raises(ValueError, match="the loader is empty"):
        rk.find_lr(model, criterion, optimizer, iter(list(loader)))  # comes only once
    zero = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(ValueError, match="first rate is 0.0"):
        rk.find_lr(model, criterion, zero, loader)
    head = torch.optim.SGD(model[3].parameters(), lr=0.1)
    with pytest.raises(ValueError, match="trainable parameters are not in the optimizer"):
        rk.find_lr(model, criterion, head, loader)


def test_the_criterions_own_tensors_go_where_the_model_is(problem, monkeypatch):
    moved, to = [], nn.CrossEntropyLoss.to
    monkeypatch.setattr(
        nn.CrossEntropyLoss, "to", lambda self, device: moved.append(device) or to(self, device)
    )
    model, _, optimizer, loader = problem
    rk.find_lr(model, nn.CrossEntropyLoss(weight=torch.ones(2)), optimizer, loader, steps=2)
    assert moved == [rk.default_device()]
