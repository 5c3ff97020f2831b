import contextlib
import io
import os
import platform
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import resnet_kit as rk
from resnet_kit import devices, settings
from resnet_kit.devices import best_precision, float32_switches, set_float32_switches


def quick_choices() -> tuple[list[int], str]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        chosen = [rk.choose(quick=1, cpu=2, gpu=3) for _ in range(3)]
    return chosen, said.getvalue()


def test_choose_gives_the_quick_value_and_says_so_once(elsewhere):
    chosen, said = elsewhere(quick_choices)
    assert chosen == [1, 1, 1] and said.count("QUICK MODE") == 1


def test_choose_gives_the_value_of_the_device(full_mode, monkeypatch, capsys):
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cpu")
    assert rk.choose(quick=1, cpu=2, gpu=3) == 2
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cuda:0")
    assert rk.choose(quick=1, cpu=2, gpu=3) == 3
    assert capsys.readouterr().out == ""


def test_quick_mode_is_off_for_zero(monkeypatch):
    monkeypatch.setenv("RESNET_KIT_QUICK", "0")
    assert not rk.quick_mode()


def draw() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_seed_everything_repeats_all_random_numbers():
    rk.seed_everything(3)
    first = draw()
    rk.seed_everything(3)
    assert draw() == first
    rk.seed_everything(4)
    assert draw() != first


def test_own_random_numbers_leave_the_callers_alone():
    rk.seed_everything(3)
    expected = draw()
    rk.seed_everything(3)
    with settings.own_random_numbers(5):
        first = draw()
    assert draw() == expected
    with settings.own_random_numbers(5):
        assert draw() == first


def test_mixed_seeds_differ_in_every_place_and_refuse_negative_ones():
    seeds = {settings.mixed_seed(a, b, c) for a in range(5) for b in range(5) for c in range(5)}
    assert len(seeds) == 125
    with pytest.raises(ValueError, match="an integer of at least 0"):
        settings.mixed_seed(-1)


@pytest.mark.parametrize(
    ("bf16", "amx", "expected"),
    [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")],
)
def test_cpu_takes_bf16_only_where_it_is_native(monkeypatch, bf16, amx, expected):
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this version of torch says it by two private functions")
    found = {"avx512_bf16": bf16, "amx_bf16": amx}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert best_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16")])
def test_cuda_precision_follows_its_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_precision(torch.device("cuda")) == expected


def test_other_devices_take_fp32_and_wrong_names_are_refused():
    assert best_precision(torch.device("mps")) == "fp32"
    with pytest.raises(ValueError, match="'half'; expected one of: auto, fp32, bf16, fp16"):
        devices.resolve_precision(torch.device("cpu"), "half")


def test_data_root_is_the_checkouts_unless_it_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("RESNET_KIT_DATA", raising=False)
    assert (rk.data_root() / "README.md").is_file()
    assert settings.short_path(rk.data_root() / "cats") == os.path.join("data", "cats")
    monkeypatch.setenv("RESNET_KIT_DATA", str(tmp_path))
    assert rk.data_root() == tmp_path
    assert settings.short_path(tmp_path / "cats") == str(tmp_path / "cats")


def test_import_is_light():
    heavy = "matplotlib", "cv2", "pandas", "sklearn", "scipy", "torchinfo"
    code = f"import sys, resnet_kit; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_progress_bars_leave_nothing_behind(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE")
    list(settings.progress_bar([1, 2], description="x"))
    shown = capsys.readouterr().err
    assert "x:" in shown
    assert shown.split("\r")[-1].strip() == ""
    assert settings.progress_bar([1], show=False).disable


def test_a_bar_of_text_in_a_notebook_is_no_red_strip(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE")
    kernel = SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    list(settings.progress_bar([1, 2], description="x"))
    shown = capsys.readouterr()
    assert "x:" in shown.out and shown.err == ""


def inside_and_after(owner: str, switch: str, value) -> list:
    """Set a switch of cuDNN; return what it is inside `exact_float32` and afterwards."""
    place = torch.backends.cudnn.conv if owner == "conv" else torch.backends.cudnn
    setattr(place, switch, value)
    with devices.exact_float32("fp32"):
        inside = getattr(place, switch)
    return [inside, getattr(place, switch)]


def test_tf32_is_off_inside_and_as_it_was_after(elsewhere):
    assert elsewhere(inside_and_after, "cudnn", "allow_tf32", True) == [False, True]
    if hasattr(torch.backends.cudnn, "conv"):  # the newer switch of newer versions of torch
        assert elsewhere(inside_and_after, "conv", "fp32_precision", "tf32") == ["none", "tf32"]


def page_faults() -> int:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(4, 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_before_and_after() -> tuple[int, int]:
    given_back = page_faults()
    settings.keep_freed_memory()
    return given_back, min(page_faults() for _ in range(3))  # the first may still have to grow


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_freed_memory_is_kept_and_used_again(elsewhere):
    given_back, kept = elsewhere(faults_before_and_after)
    assert kept < given_back / 10


def test_threads_work_in_order_and_only_a_few_ahead():
    begun = []
    results = settings.in_threads(lambda item: begun.append(item) or item, range(1000))
    assert next(results) == 0
    assert len(begun) < 100, "an interrupted cell must not wait for all of them"
    assert list(results) == list(range(1, 1000)) and list(settings.in_threads(str, [])) == []


def test_how_many_numbers_a_seed_is_made_of_counts():
    assert settings.mixed_seed(0, 3) != settings.mixed_seed(0, 3, 0)
    assert settings.mixed_seed(3) != settings.mixed_seed(3, 0)
    assert settings.mixed_seed(2**32, 5) != settings.mixed_seed(0, 1 + 5 * 2**32)
    with pytest.raises(ValueError, match=r"below 2\^64"):
        settings.mixed_seed(2**64)


def test_counts_are_said_in_the_singular_and_the_plural():
    assert settings.counted(1, "epoch") == "1 epoch"
    assert settings.counted(1200, "picture") == "1,200 pictures"


def test_the_home_folder_may_be_written_as_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.user_path("~/cats") == tmp_path / "cats"
    with pytest.raises(TypeError, match="None is a NoneType; expected a path"):
        settings.user_path(None)


def products_inside_and_after(value: str) -> list:
    torch.set_float32_matmul_precision(value)
    with devices.exact_float32("fp32"):
        inside = torch.get_float32_matmul_precision()
    with devices.exact_float32("bf16"):
        other = torch.get_float32_matmul_precision()
    return [inside, other, torch.get_float32_matmul_precision()]


def test_matrix_products_are_exact_inside_and_as_they_were_after(elsewhere):
    assert elsewhere(products_inside_and_after, "medium") == ["highest", "medium", "medium"]


def test_a_press_during_an_inner_block_ends_the_outer_one(ctrl_c):
    """`on_epoch_end` may evaluate, say: the press is heard there, and nothing is left changed."""
    outer, inner = settings.Interrupts(), settings.Interrupts()
    with pytest.raises(KeyboardInterrupt), outer, inner:
        signal.raise_signal(signal.SIGINT)
        assert (outer.presses, inner.presses) == (0, 1)
        inner.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_switches_of_float32_are_put_back_whatever_was_cut_short():
    before = float32_switches()
    with settings.Interrupts():
        set_float32_switches(not before[0], "highest" if before[1] != "highest" else "medium")
        assert float32_switches() != before
    assert float32_switches() == before


def test_presses_after_one_was_raised_are_ignored(ctrl_c):
    with pytest.raises(KeyboardInterrupt), settings.Interrupts() as interrupts:
        interrupts.waiting = True  # as left behind by a press at the end of `batches`
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            finished = True
    assert finished and interrupts.presses == 2


def test_an_autocast_that_was_cut_short_is_switched_off():
    inner = torch.autocast("cpu", torch.bfloat16)
    with settings.Interrupts():
        inner.__enter__()
        torch.autocast_decrement_nesting()  # where a second press may cut `__exit__` short
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("classes", "shown"),
    [
        (("0_cat", "1_dog"), ("cat", "dog")),
        (("01-cat", "10 dog", "2 - Ähre"), ("cat", "dog", "Ähre")),
        (("0_cat", "dog"), ("0_cat", "dog")),  # not all have one
        (("0_cat", "1_cat"), ("0_cat", "1_cat")),  # no longer told apart
        (("1_2", "2_4", "3_ 8"), ("1_2", "2_4", "3_ 8")),  # no letter follows
        (("0", "1"), ("0", "1")),
        (("n01440764", "n01443537"), ("n01440764", "n01443537")),
        ((), ()),
    ],
)
def test_sorting_prefixes_are_left_out_where_the_names_stay_clear(classes, shown):
    assert rk.shown_names(classes) == shown
