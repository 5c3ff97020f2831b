"""The campaigns in a small form: nothing is lost, and they notice where a promise is broken."""

import contextlib
import importlib
import mmap
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

import resnet_kit as rk
from resnet_kit import files, results
from resnet_kit.data import datasets
from resnet_kit.results import ROW
from resnet_kit.training import loop
from resnet_kit.training.state import load_state

CAMPAIGNS = Path(__file__).resolve().parent.parent / "benchmarks" / "campaigns"
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="it reads /proc")


@pytest.fixture
def campaign(monkeypatch, ctrl_c, processes):
    """Import a module of the folder by its name; the CPU and one thread, as the campaigns use."""
    monkeypatch.syspath_prepend(str(CAMPAIGNS))
    monkeypatch.setenv("RESNET_KIT_DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module
    torch.set_num_threads(threads)


def all_parts(module, trials: int, folder: Path):
    """What all parts of a campaign found, with at most so many trials each."""
    total = module.Outcome()
    for number, part in enumerate(module.PARTS):
        place = folder / f"part_{number}"
        place.mkdir()
        found = part.run(min(trials, part.trials), place, 0)
        total.tried += found.tried
        total.lost += found.lost
        total.endings += found.endings
    return total


def nothing_lost(found, tried: int) -> None:
    assert found.lost == [] and found.tried == tried == found.endings.total()


# Ctrl-C


def test_interrupts_break_no_promise(campaign, tmp_path):
    found = all_parts(campaign("ctrl_c"), 9, tmp_path)
    nothing_lost(found, 9 * 8)
    assert found.endings["interrupted"] > 20 and found.endings["KeyboardInterrupt"] > 20


def test_a_second_press_comes_even_where_the_first_was_raised(campaign):
    ctrl_c, presses = campaign("ctrl_c"), Counter()

    def press(number, frame):
        presses["all"] += 1
        raise KeyboardInterrupt

    before = ctrl_c.signal.signal(ctrl_c.signal.SIGINT, press)
    for attack in (ctrl_c.Lines(50, gap=50), ctrl_c.Moments(0.001, gap=0.001)):
        with contextlib.suppress(KeyboardInterrupt), attack:
            for _ in range(2):
                with contextlib.suppress(KeyboardInterrupt):
                    while True:
                        rk.settings.counted(1, "epoch")
    ctrl_c.signal.signal(ctrl_c.signal.SIGINT, before)
    assert presses["all"] == 4


def test_weights_that_are_not_put_back_are_noticed(campaign, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "put_weights", lambda *given: None)
    found = campaign("ctrl_c").once_by_line(20, tmp_path, 0)
    assert any("not those of the best epoch" in text for text in found.lost)


def test_switches_that_are_left_are_noticed_and_put_back(campaign):
    ctrl_c = campaign("ctrl_c")
    around = ctrl_c.Surroundings()
    torch.set_autocast_enabled("cpu", True)
    torch.autocast_increment_nesting()
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("medium")
    torch.rand(1)
    assert len(around.broken()) == 5
    assert ctrl_c.Surroundings().broken() == []


# SIGKILL


def test_kills_at_random_moments_lose_nothing(campaign, tmp_path, monkeypatch):
    kills = campaign("kills")
    without_workers = dict.fromkeys(("SGD", "bf16, average", "folders, TrivialAugment"))
    monkeypatch.setattr(kills, "CONFIGURATIONS", without_workers)
    found = kills.at_random(3, tmp_path, 0)
    nothing_lost(found, 3)
    assert sum(count for end, count in found.endings.items() if end.startswith("killed")) > 0


def test_kills_around_writes_lose_nothing(campaign, tmp_path):
    found = campaign("kills").around_writes(4, tmp_path, 0)
    nothing_lost(found, 4)
    assert sum(count for end, count in found.endings.items() if end.startswith("killed")) == 4


def test_a_resume_state_with_other_weights_is_noticed(campaign, tmp_path, monkeypatch):
    kills = campaign("kills")

    def tamper(run: Path) -> list[str]:
        state = load_state(run / "last.pt")
        state["model"]["fc.bias"] += 1
        torch.save(state, run / "last.pt")
        return []

    monkeypatch.setattr(kills, "unreadable", tamper)
    monkeypatch.setattr(kills, "points", lambda name, folder: [(name, 12, "after")])
    monkeypatch.setattr(kills, "WRITING", ("patience",))
    found = kills.around_writes(1, tmp_path, 0)
    assert len(found.lost) == 1 and found.endings["killed after a write"] == 1


def test_a_file_that_is_cut_is_unreadable(campaign, tmp_path):
    kills = campaign("kills")
    path = rk.save_weights(torch.nn.Linear(2, 2), tmp_path / "best.safetensors")
    assert kills.unreadable(tmp_path) == []
    os.truncate(path, 100)
    assert "best.safetensors cannot be read" in kills.unreadable(tmp_path)[0]


# Damage


def test_damage_is_seen(campaign, tmp_path):
    found = all_parts(campaign("damage"), 30, tmp_path)
    nothing_lost(found, 8 * 30)
    assert found.endings["our error"] > 100 and found.endings["refused when it is loaded"] > 10


def test_damage_without_digests_is_noticed(campaign, tmp_path, monkeypatch):
    damage = campaign("damage")
    monkeypatch.setattr(files, "digest_of", lambda tensors: "always this one")
    found = damage.weights_files(40, tmp_path, 0)
    assert any("other weights, without a word" in text for text in found.lost)


def test_raw_errors_count_as_lost(campaign, tmp_path, monkeypatch):
    damage = campaign("damage")

    def raw(*given):
        raise KeyError("scheduler")

    monkeypatch.setattr(rk, "load_classifier", raw)
    found = damage.odd_classifiers(2, tmp_path, 0)
    assert len(found.lost) == 2 and found.endings["raw error at load"] == 2


# Disks


@pytest.mark.parametrize("kind", ["RealDisk", "PretendedDisk"])
def test_disks_that_are_full_lose_nothing(campaign, tmp_path, kind):
    disk = campaign("disk")
    kinds = {"kind": getattr(disk, kind)}
    nothing_lost(disk.all_scenarios(4, tmp_path / "one", only="save_weights", **kinds), 4)
    nothing_lost(disk.all_scenarios(2, tmp_path / "two", only="training: full", **kinds), 2)
    nothing_lost(disk.all_scenarios(3, tmp_path / "three", only="quarantine", **kinds), 3)


def test_a_half_written_file_is_noticed(campaign, tmp_path, monkeypatch):
    disk = campaign("disk")

    @contextlib.contextmanager
    def at_once(path):
        Path(path).write_text("{")
        yield Path(path)
        os.fsync(0)

    monkeypatch.setattr(results, "atomic_file", at_once)
    found = disk.all_scenarios(9, tmp_path, only="write_results: ")
    assert any("half-written" in text for text in found.lost)


# Several processes, servers


def test_two_processes_at_once_lose_nothing(campaign, tmp_path):
    found = all_parts(campaign("processes"), 1, tmp_path)
    nothing_lost(found, 3)
    assert found.endings["well and well"] >= 2


def test_hostile_servers_get_our_error(campaign, tmp_path):
    found = all_parts(campaign("servers"), 7, tmp_path)
    nothing_lost(found, 21)
    assert found.endings["OSError"] and found.endings["ValueError"] > 3


def test_a_download_that_is_not_checked_is_noticed(campaign, tmp_path, monkeypatch):
    servers = campaign("servers")
    monkeypatch.setattr(datasets, "_check", lambda *given: None)
    monkeypatch.setattr(servers, "ZIPS", {"names twice": servers.twice})
    found = servers.evil_zips(1, tmp_path, 0)
    assert "no whole folder" in found.lost[0]


# Payloads


def test_nothing_in_a_file_is_executed(campaign, tmp_path):
    found = all_parts(campaign("payloads"), 120, tmp_path)
    nothing_lost(found, 240)
    assert found.endings["ValueError"] > 200


def test_a_payload_that_is_executed_is_noticed(campaign, tmp_path, monkeypatch):
    payloads = campaign("payloads")
    all_of, load = payloads.payloads, torch.load

    def trusting(path, **options):
        return load(path, **{**options, "weights_only": False})

    monkeypatch.setattr(torch, "load", trusting)
    monkeypatch.setattr(payloads, "payloads", lambda proof: {"open": all_of(proof)["open"]})
    found = payloads.every_loader(60, tmp_path, 0)
    assert any("the payload was executed" in text for text in found.lost)


# Pictures, memory


def test_awkward_pictures_are_read_or_named(campaign, tmp_path, monkeypatch):
    pictures = campaign("pictures")
    slow = ("bomb.png", "large.png")
    quick = {name: make for name, make in pictures.FILES.items() if name not in slow}
    monkeypatch.setattr(pictures, "FILES", quick)
    found = all_parts(pictures, 20, tmp_path)
    nothing_lost(found, 40)
    assert found.endings["readable"] > 5 and found.endings["unreadable"] > 5


def test_pictures_on_which_the_readers_disagree_are_noticed(campaign, tmp_path, monkeypatch):
    pictures = campaign("pictures")
    monkeypatch.setattr(rk, "read_image", lambda path: torch.zeros(3, 2, 2, dtype=torch.uint8))
    found = pictures.damaged_pictures(12, tmp_path, 0)
    assert any("but usable: [False]" in text for text in found.lost)


@linux
def test_memory_stays_flat(campaign, tmp_path, monkeypatch):
    memory = campaign("memory")
    monkeypatch.setattr(memory, "SIDES", ((400, 300), (300, 500)))
    nothing_lost(all_parts(memory, 6, tmp_path), 8)


@linux
def test_leaks_are_noticed(campaign, tmp_path, monkeypatch):
    memory, leaked = campaign("memory"), []

    def leak(folder, number):
        pages = mmap.mmap(-1, 8_000_000)  # none that was used and freed before
        pages.write(b"x" * 8_000_000)
        leaked.append((pages, (folder / f"{number}").open("w")))

    found = memory.flat(8, 2, tmp_path, leak)
    assert len(found) == 2 and "memory grew" in found[0] and "descriptors grew" in found[1]
    monkeypatch.setattr(memory, "PEAK", 10)
    assert "MB at its peak" in memory.peak_of(lambda root: None, tmp_path)[0]
    for _, file in leaked:
        file.close()


# The program


def test_rows_are_recorded_and_those_of_other_campaigns_kept(campaign, tmp_path, monkeypatch):
    run = campaign("run")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "reliability.json")
    for name in ("servers", "payloads", "servers"):
        monkeypatch.setattr("sys.argv", ["run.py", name, "--trials", "1"])
        run.main()
    rows = rk.read_results(tmp_path / "reliability.json")["rows"]
    assert len(rows) == 5 and all(set(ROW) <= set(row) for row in rows)
    assert {row["metric"] for row in rows} == {"broken promises"}
    assert [(row["value"], row["n"]) for row in rows] == [(0, 1)] * 5


def test_every_kind_of_attack_has_a_row_of_its_own(campaign):
    names = campaign("run").CAMPAIGNS
    assert sorted(names) == sorted(
        path.stem for path in CAMPAIGNS.glob("*.py") if path.stem not in ("run", "common")
    )
    recipes = [part.recipe for name in names for part in campaign(name).PARTS]
    assert len(recipes) == len(set(recipes)) > 20
