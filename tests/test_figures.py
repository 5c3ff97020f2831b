import numpy as np

import resnet_kit as rk
from resnet_kit import figures


def test_scores_are_drawn_with_their_intervals_the_best_on_top():
    scores = {"low": (0.2, 0.1, 0.3), "high": (0.9, 0.8, 0.95), "middle": (0.5, 0.4, 0.6)}
    figure = rk.score_plot(scores, highlight=["high"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["low", "middle", "high"]
    assert [text.get_text() for text in axes.texts] == ["20.0%", "50.0%", "90.0%"]
    intervals = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    assert np.allclose(intervals, [[0.1, 0.3], [0.4, 0.6], [0.8, 0.95]])
    assert axes.lines[-1].get_color() != axes.lines[0].get_color()


def test_grid_cells_have_the_size_that_was_asked_for():
    figure = rk.picture_grid(np.zeros((4, 8, 8, 3), np.uint8), columns=2, inches=2.5)
    assert figure.get_size_inches().tolist() == [5, 5]


def test_names_of_lines_that_end_close_together_stand_apart():
    lines = {"a": ([1, 2], [1.0, 0.5]), "b": ([1, 2], [2.0, 0.5]), "c": ([1], [0.5])}
    figure = rk.line_plot(lines, xlabel="epoch", title="loss", level=0.1)
    axes = figure.axes[0]
    places = {text.get_text(): text.xyann for text in axes.texts}
    assert abs(places["a"][1] - places["b"][1]) > 0.05
    assert np.isclose(places["c"][1], min(places["a"][1], places["b"][1]))
    assert [text.arrow_patch is not None for text in axes.texts].count(True) == 1  # a leader
    colors = {line.get_color() for line in axes.lines[1:]}
    assert {text.get_color() for text in axes.texts} == colors and len(colors) == 3
    axes = rk.line_plot(lines, xlabel="x", title="y", log="xy").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_titles_of_two_lines_get_more_room():
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    heights = [
        rk.picture_grid(pictures, [title] * 2, inches=2).get_size_inches()[1]
        for title in ("one", "one\ntwo")
    ]
    assert 2 < heights[0] < heights[1]


def test_accuracies_have_ticks_that_are_whole_percents():
    rows = [
        {"epoch": k, "train_loss": 1, "val_loss": 1, "train_accuracy": k / 18, "val_accuracy": 0.1}
        for k in range(1, 4)
    ]
    ticks = 100 * np.array(rk.training_curves(rows).axes[1].get_yticks())
    assert len(ticks) > 2 and np.allclose(ticks, ticks.round())


def test_a_curve_has_a_dozen_markers_at_most():
    row = {"train_loss": 1, "val_loss": 1, "train_accuracy": 0.5, "val_accuracy": 0.5}
    for epochs, markers in ((1, 1), (12, 12), (13, 7), (60, 12)):
        curves = rk.training_curves([{"epoch": k + 1} | row for k in range(epochs)])
        for line in curves.axes[0].lines:
            assert len(line.get_xdata()[:: line.get_markevery()]) == markers


def test_figures_of_many_classes_stay_small():
    names = [f"class {number}" for number in range(200)]
    matrix = figures.confusion_matrix(np.eye(200, dtype=int), names)
    assert max(matrix.get_size_inches()) < 10 and len(matrix.axes[0].texts) == 0
    assert len(matrix.axes[0].get_xticklabels()) <= 30
    counts = {name: number for number, name in enumerate(names)}
    bars = figures.bars({"train": counts}, title="pictures")
    shown = [label.get_text() for label in bars.axes[0].get_yticklabels()]
    assert shown == names[:15] + names[-15:] and "of 200, the 15 with the fewest" in (
        bars.axes[0].get_title(loc="left")
    )
