"""The buttons of a `Cleaning` in JupyterLab, with ipywidgets."""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from html import escape
from pathlib import Path

import ipywidgets as widgets
from PIL import ImageOps
from torchvision.transforms.v2.functional import to_pil_image

from .data.images import read_image, trimmed

SIDE = 300  # pixels of a shown picture; twice as many are sent, for screens that have them
STYLES = {"keep": "success", "set aside": "warning", "another class": "info"}  # of ipywidgets
NO_CLASS = ("another class …", "")
BUTTONS = {"flex_flow": "row wrap", "align_items": "center"}
PICTURES = {"flex_flow": "row wrap", "min_height": f"{SIDE + 50}px"}
IMAGE = {
    "width": f"{SIDE}px", "height": f"{SIDE}px", "object_fit": "contain", "border": "1px solid #999"
}  # fmt: skip


class Panel:
    """One suspect at a time; `view` is the widget, `place` the row of the table that it shows."""

    def __init__(self, cleaning):
        self.cleaning, self.place = cleaning, 0
        self.counter, self.text, self.said = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.picture, self.copy = Frame(), Frame()
        self.back = _button("Back", lambda: self.go(self.place - 1), icon="chevron-left")
        self.next = _button("Next", lambda: self.go(self.place + 1), icon="chevron-right")
        self.classes = widgets.Dropdown(layout={"width": "170px"})
        self.decisions = {
            "keep": _button("Keep", lambda: self.decide(cleaning.keep)),
            "set aside": _button("Set aside", lambda: self.decide(cleaning.set_aside)),
            "another class": _button("Give class", self.relabel),
        }
        self.apply = _button("Apply", lambda: self.run(cleaning.apply))
        self.undo = _button("Undo all", lambda: self.run(cleaning.undo))
        keep, set_aside, relabel = self.decisions.values()
        rows = [
            ([self.back, self.next, self.counter], BUTTONS),
            ([self.text], BUTTONS),
            ([self.picture.view, self.copy.view], PICTURES),
            ([keep, set_aside, self.classes, relabel], BUTTONS),
            ([self.apply, self.undo, self.said], BUTTONS | {"margin": "8px 0 0 0"}),
        ]
        self.view = widgets.VBox([widgets.HBox(row, layout=layout) for row, layout in rows])
        self.draw()

    def go(self, place: int) -> None:
        """Show another row of the table, where there is one."""
        self.place = max(0, min(place, len(self.cleaning.suspects) - 1))
        self.draw()

    def decide(self, decision: Callable, *arguments) -> None:
        """Decide on the shown picture, and show the next one."""
        shown = self.place
        self.place = min(shown + 1, len(self.cleaning.suspects) - 1)
        decision(shown, *arguments)  # and the cleaning has all of this drawn

    def relabel(self) -> None:
        """Give the shown picture the chosen class."""
        if self.classes.value:
            self.decide(self.cleaning.relabel, self.classes.value)
        else:
            self.said.value = "Choose the class first, to the left of the button."

    def run(self, action: Callable[[], None]) -> None:
        """Apply or undo, and show what is printed, or the error, which no cell would show."""
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                action()
        except (OSError, KeyboardInterrupt) as error:
            printed.write(f"Stopped: {str(error) or 'you interrupted it'}.")
        self.said.value = escape(printed.getvalue())

    def draw(self) -> None:
        """Show how things stand."""
        suspects, waiting = self.cleaning.suspects, self.cleaning.waiting()
        moved = self.cleaning.moved()
        self.said.value = ""
        self.apply.description, self.apply.disabled = f"Apply ({len(waiting)})", not waiting
        self.apply.button_style = "primary" if waiting else ""
        self.undo.description, self.undo.disabled = f"Undo all ({len(moved)})", not moved
        self.back.disabled = self.place == 0
        self.next.disabled = self.place >= len(suspects) - 1
        decided = sum(bool(x.decision) for x in suspects)
        self.counter.value = "There is no suspect picture."
        if suspects:
            self.counter.value = f"<b>{self.place + 1} of {len(suspects)}</b> · {decided} decided"
            self._draw_suspect(suspects[self.place])
        for button in (self.classes, *self.decisions.values()):
            button.disabled = not suspects or bool(suspects[self.place].place)

    def _draw_suspect(self, suspect) -> None:
        folder = self.cleaning.folder
        self.picture.show(folder.root / (suspect.place or suspect.file), suspect.file)
        self.copy.view.layout.display = "" if suspect.copy_of else "none"
        if suspect.copy_of:
            now = dict(self.cleaning.moved()).get(suspect.copy_of, suspect.copy_of)
            self.copy.show(folder.root / now, f"The other: {suspect.copy_of}")
        others = [(folder.shown(name), name) for name in folder.classes if name != suspect.label]
        self.classes.options = [NO_CLASS, *others]
        self.classes.value = suspect.new_class or suspect.suggested or ""
        for decision, button in self.decisions.items():
            button.button_style = STYLES[decision] if decision == suspect.decision else ""
        self.text.value = _text(*_lines_about(suspect, folder))


class Frame:
    """A picture of `SIDE` pixels with a line below it; or, where none can be read, why."""

    def __init__(self):
        self.image = widgets.Image(format="jpeg", layout=IMAGE)
        self.line = widgets.HTML(layout={"width": f"{SIDE}px"})
        self.view = widgets.VBox([self.image, self.line], layout={"margin": "0 16px 0 0"})

    def show(self, file: Path, line: str) -> None:
        """Show the picture of a file; it is enlarged if it is small."""
        try:
            picture = to_pil_image(trimmed(read_image(file)))
        except (OSError, ValueError) as error:
            gone = isinstance(error, FileNotFoundError)
            self.image.layout.display = "none"
            self.line.value = _text(line, "The file is gone." if gone else "It cannot be shown.")
            return
        data = io.BytesIO()
        ImageOps.contain(picture, (2 * SIDE, 2 * SIDE)).save(data, "JPEG", quality=90)
        self.image.value, self.image.layout.display = data.getvalue(), ""
        self.line.value = _text(line, f"{picture.width} x {picture.height} pixels")


def _button(text: str, action: Callable[[], None], **options) -> widgets.Button:
    button = widgets.Button(description=text, **options)
    button.on_click(lambda _: action())
    return button


def _text(*lines: str) -> str:
    """Return lines as HTML that wraps anywhere: paths are long and have no spaces."""
    style = "line-height: 1.5; overflow-wrap: anywhere"
    return f'<div style="{style}">{"<br>".join(map(escape, lines))}</div>'


def _lines_about(suspect, folder) -> list[str]:
    """Return the class of a suspect, why it is one, what was decided and if that is done."""
    decision = suspect.decision or "none yet"
    if suspect.new_class:
        decision += f", {folder.shown(suspect.new_class)}"
    if suspect.state:
        decision += " (done)" if suspect.place else f" (not done, because it {suspect.state})"
    label = folder.shown(suspect.label)
    return [f"Class: {label}", f"Suspect: {suspect.why}", f"Decision: {decision}"]
