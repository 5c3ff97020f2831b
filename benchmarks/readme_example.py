"""Run the README's example on the drawn pictures, and record what its last line shows.

    python benchmarks/readme_example.py

Writes results/readme_example.json; the README shows the same line, and a test compares them.
"""

import ast
import time

from results_table import ROOT

import resnet_kit as rk


def example() -> str:
    """Return the first program of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("```python\n")[1].split("```")[0]


def run(program: str, folder):
    """Run a program on a folder instead of "my_pictures"; return the value of its last line."""
    *lines, last = ast.parse(program.replace('"my_pictures"', repr(str(folder)))).body
    names = {}
    exec(compile(ast.Module(lines, []), "README.md", "exec"), names)
    return eval(compile(ast.Expression(last.value), "README.md", "eval"), names)


def main() -> None:
    start = time.perf_counter()
    result = run(example(), rk.cat_dog_ants_bees("drawn"))
    row = rk.accuracy_row(
        result,
        split="test",
        data="cat_dog_ants_bees drawn",
        model="resnet18",
        recipe="the README's example",
        seed=0,
        seconds=time.perf_counter() - start,
    )
    path = ROOT / "results" / "readme_example.json"
    command = "python benchmarks/readme_example.py"
    rk.write_results(path, [row | {"shown": repr(result)}], command=command)
    print(result)


if __name__ == "__main__":
    main()
