"""`clean` in a real JupyterLab, driven by a real browser, in a minute or two.

    pip install playwright
    RESNET_KIT_BROWSER=/usr/bin/chromium pytest tests/test_cleaning_in_browser.py

RESNET_KIT_SCREENSHOTS names a folder for pictures of what the browser shows.
"""

import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from PIL import Image

import resnet_kit as rk

BROWSER = os.environ.get("RESNET_KIT_BROWSER")
SCREENSHOTS = os.environ.get("RESNET_KIT_SCREENSHOTS")
PATIENCE = 120  # seconds: of a machine that is busy with other things
CELLS = (
    "import resnet_kit as rk",
    "cleaning = rk.clean(rk.inspect_folder('pets', progress=False))\ncleaning",
)

pytestmark = pytest.mark.skipif(
    not BROWSER or find_spec("playwright") is None,
    reason="RESNET_KIT_BROWSER names no Chromium, or playwright is missing (see this file's top)",
)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@pytest.fixture
def pets(data_root, tmp_path) -> Path:
    """Drawn pictures and five suspects: a torn file, one in two classes, a leak, a dark one."""
    folder = rk.cat_dog_ants_bees("drawn")
    pets = shutil.copytree(folder, tmp_path / "lab" / "pets")
    cat, other = sorted((pets / "train/0_cat").iterdir())[:2]
    shutil.copy(cat, pets / "train/1_dog/stray.jpg")
    shutil.copy(other, pets / "eval/0_cat/leak.jpg")
    Image.new("RGB", (48, 48), "black").save(pets / "train/2_ants/lens_cap.png")
    (pets / "train/3_bees/torn.jpg").write_bytes(cat.read_bytes()[:900])
    return pets


@pytest.fixture
def lab(pets):
    """The address of a JupyterLab with a notebook that shows the suspects."""
    notebook = {
        "cells": [
            {"cell_type": "code", "id": f"c{place}", "metadata": {}, "outputs": [],
             "execution_count": None, "source": source}
            for place, source in enumerate(CELLS)
        ],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4, "nbformat_minor": 5,
    }  # fmt: skip
    (pets.parent / "clean.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = pets.parent.parent / "jupyter"  # the settings of whoever runs this stay as they are
    news = own / "lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    folders = {f"JUPYTER_{kind}_DIR": str(own) for kind in ("CONFIG", "DATA", "RUNTIME")}
    token = secrets.token_hex(16)
    options = ("--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True")
    at = (f"--port={port}", f"--IdentityProvider.token={token}")
    command = [sys.executable, "-m", "jupyterlab", *options, *at]
    with (pets.parent / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=pets.parent, stdout=log, stderr=log, env=os.environ | folders
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={token}")
        yield f"http://127.0.0.1:{port}/lab/tree/clean.ipynb?token={token}&reset"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str) -> None:
    for _ in range(2 * PATIENCE):
        try:
            return urlopen(address).close()
        except URLError:
            time.sleep(0.5)
    raise TimeoutError(f"no JupyterLab at {address}")


@pytest.fixture
def page(lab):
    """The notebook, run, in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 860}, device_scale_factor=2)
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        yield page
        browser.close()


def command(page, name: str, arguments: str = "{}") -> None:
    page.evaluate(f"void window.jupyterapp.commands.execute('{name}', {arguments})")


def run_all(page) -> None:
    page.wait_for_selector("#jp-main-statusbar :text('Idle')")
    command(page, "notebook:run-all-cells")


def press(page, text: str) -> None:
    page.locator(".jp-OutputArea button", has_text=text).click()


def shows(page, text: str) -> None:
    page.wait_for_selector(f".jp-OutputArea :text('{text}')")


def screenshot(page, name: str) -> None:
    for theme in ("Light", "Dark"):
        if SCREENSHOTS:
            change = f"{{theme: 'JupyterLab {theme}'}}"
            command(page, "apputils:change-theme", change)
            page.wait_for_timeout(1500)
            page.screenshot(path=Path(SCREENSHOTS) / f"{name}_{theme.lower()}.png")


def test_suspects_are_decided_on_applied_and_undone(pets, page):
    before = digests(pets)
    run_all(page)
    shows(page, "1 of 5")
    screenshot(page, "unreadable")
    press(page, "Set aside")  # the torn one
    shows(page, "2 of 5")
    screenshot(page, "copy")
    page.locator(".jp-OutputArea select").select_option("cat")
    screenshot(page, "chosen")
    press(page, "Give class")
    for place in (3, 4, 5):
        shows(page, f"{place} of 5")
        press(page, "Keep")
    shows(page, "5 decided")
    assert digests(pets) == before
    screenshot(page, "decided")
    press(page, "Apply")
    shows(page, "1 picture set aside, 1 given another class.")
    screenshot(page, "applied")
    after = digests(pets)
    assert after.pop("train/0_cat/stray.jpg") == before["train/1_dog/stray.jpg"]
    gone = {"train/1_dog/stray.jpg", "train/3_bees/torn.jpg"}
    assert after == {name: digest for name, digest in before.items() if name not in gone}
    press(page, "Undo all")
    shows(page, "2 files moved back.")
    assert digests(pets) == before
    press(page, "Apply")
    shows(page, "1 picture set aside, 1 given another class.")
    command(page, "notebook:restart-run-all")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    shows(page, "0 decided")
    press(page, "Undo all")
    shows(page, "2 files moved back.")
    screenshot(page, "undone")
    assert digests(pets) == before
