"""The site of the notebooks is built without a warning, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for name in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-W", "--keep-going", "-q"]
    command += ["-d", str(folder / "doctrees"), ".", str(folder / "html")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_link_of_the_site_leads_somewhere(site):
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    found, broken = 0, []
    for path, text in pages.items():
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", link):  # another site, or a picture in the page itself
                continue
            place, _, anchor = unquote(link).partition("#")
            target = (path.parent / place.split("?")[0]).resolve() if place else path
            found += 1
            in_page = f'id="{anchor}"' in pages.get(target, "") if anchor else True
            if not target.is_file() or not in_page:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert found > 1000 and not broken


def test_every_notebook_and_every_public_name_is_on_the_site(site):
    import resnet_kit as rk

    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert names == {path.stem for path in (site / "notebooks").glob("*.html")}
    reference = (site / "docs" / "api.html").read_text(encoding="utf-8")
    assert not [name for name in rk.__all__ if f'id="resnet_kit.{name}"' not in reference]
