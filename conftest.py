"""Tests and notebooks run in quick mode, and with `-n auto` on all cores."""

import os

import pytest

os.environ["RESNET_KIT_QUICK"] = "1"
os.environ["TQDM_DISABLE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes that each compute on all cores stand in each other's way.
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Return a process per core that pytest may use, and at most four: each takes some memory."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(4, len(affinity(0)) if affinity else os.cpu_count() or 1)
