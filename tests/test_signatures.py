"""The public calls keep their parameters and defaults: `signatures.txt` is the promise of 1.0.

Where a change is meant: `python tests/test_signatures.py` writes the file anew, and CHANGELOG.md
says what changed.
"""

import importlib
import inspect
import re
from pathlib import Path

import resnet_kit as rk

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "tests" / "signatures.txt"


def returned_classes() -> list[type]:
    """Return the classes of `docs/api.md`, which the public calls return."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    paths = re.findall(r"autoclass:: (resnet_kit\.\S+)", text)
    assert len(paths) >= 10, paths
    parts = [path.rpartition(".") for path in paths]
    return [getattr(importlib.import_module(module), name) for module, _, name in parts]


def line_of(name: str, call) -> str:
    """Return a call with its parameters and defaults, without type hints."""
    signature = inspect.signature(call)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    bare = signature.replace(parameters=parameters, return_annotation=signature.empty)
    return f"{name}{bare}"


def signatures() -> list[str]:
    lines = [line_of(name, getattr(rk, name)) for name in rk.__all__]
    for cls in returned_classes():
        for name, member in vars(cls).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                lines.append(line_of(f"{cls.__name__}.{name}", member))
    return sorted(lines)


def test_public_calls_are_what_they_were():
    kept = KEPT.read_text(encoding="utf-8").splitlines()
    assert signatures() == kept, "meant? python tests/test_signatures.py, and CHANGELOG.md"


if __name__ == "__main__":
    KEPT.write_text("\n".join(signatures()) + "\n", encoding="utf-8")
