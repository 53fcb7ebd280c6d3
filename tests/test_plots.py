"""Figures: everything that can be drawn is drawn, and no name is taken for mathematics."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fake_results as fake
from grevy.report import figures, plots
from grevy.results import Candidate, Difference, History, LabelTrace, Score

DPI = 40


def axes(projection: str | None = None):
    return Figure((5, 4), layout="constrained").add_subplot(projection=projection)


def pixels(png: bytes) -> NDArray[np.float64]:
    return matplotlib.image.imread(io.BytesIO(png))[..., :3].astype(float)


def is_blank(png: bytes) -> bool:
    return bool(pixels(png).std() < 0.02)


@pytest.fixture(scope="module")
def movie_pictures() -> dict[str, figures.Picture]:
    return {p.name: p for p in figures.draw(*fake.movies(), dpi=DPI)}


def test_blank_images_are_noticed():
    buffer = io.BytesIO()
    Figure((2, 2)).savefig(buffer, dpi=DPI)
    assert is_blank(buffer.getvalue())


def test_a_movie_session_has_all_figures_and_none_is_blank(movie_pictures):
    assert set(movie_pictures) == {
        "decoding-0",
        "difference-0-0",
        "difference-0-1",
        "difference-0-2",
        "confusion-0",
        "loss",
        "choice",
        "timeline",
        "drift",
        "consistency",
        "embedding-session",
        *(f"repeats-{i}" for i in range(len(fake.MOVIES))),
    }
    for picture in movie_pictures.values():
        assert not is_blank(picture.png), picture.name
        assert picture.alt
        assert picture.caption


def test_a_label_session_is_coloured_by_its_labels():
    names = {p.name for p in figures.draw(*fake.labels(), dpi=DPI)}
    assert {"label-0", "label-1", "embedding-label-0", "embedding-label-1"} <= names
    assert not {"embedding-session", "timeline", "confusion-0", "decoding-0"} & names


def test_a_run_without_anything_has_no_figure():
    assert figures.draw(fake.minimal(), None, dpi=DPI) == []


@pytest.mark.parametrize("latents", [1, 2, 3, 5])
def test_embeddings_of_any_dimension_are_drawn(latents):
    results = replace(fake.movies()[0], scores=(), differences=(), confusions=())
    results = replace(results, stimuli=results.stimuli[:2])
    drawn = {p.name: p for p in figures.draw(results, fake.embedding(latents=latents), dpi=DPI)}
    assert not is_blank(drawn["embedding-session"].png)
    assert not is_blank(drawn["repeats-1"].png)
    caption = drawn["embedding-session"].caption
    assert ("principal components" in caption) == (latents > 3)
    assert ("sphere" in caption) == (latents > 1)


def test_an_embedding_that_is_nowhere_finite_is_not_drawn():
    e = fake.embedding()
    assert figures.show(replace(e, values=np.full_like(e.values, np.nan))) is None
    some = e.values.copy()
    some[5] = np.nan
    shown = figures.show(replace(e, values=some))
    assert shown is not None
    assert len(shown.rows) == len(some) - 1


def test_display_keeps_the_directions_of_greatest_variance():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(500, 3)) * [3.0, 2.0, 1.0]
    turned = hidden @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
    points, names, share = plots.displayed(turned.astype(np.float32), np.arange(500.0))
    assert names == ("PC 1", "PC 2", "PC 3")
    assert share == pytest.approx(1, abs=1e-6)
    assert np.allclose(np.abs(np.corrcoef(points.T, hidden.T))[:3, 3:].diagonal(), 1, atol=0.02)


def test_plain_text_holds_no_mathematics():
    for text in (r"$\frac{", "$$", "a $x$ b", r"\$\alpha$", "_hidden", "{0.__class__}", "%s"):
        ax = axes()
        ax.set_title(plots.plain(text))
        ax.plot([0, 1], label=plots.plain(text))
        ax.legend()
        assert len(ax.get_legend().get_texts()) == 1
        ax.figure.draw_without_rendering()


def test_unescaped_mathematics_would_fail():
    ax = axes()
    ax.set_title(r"$\frac{$")
    with pytest.raises(ValueError, match="frac"):
        ax.figure.draw_without_rendering()


def test_plain_text_is_one_short_line():
    assert "\n" not in plots.plain("a\nb")
    assert "\x1b" not in plots.plain("\x1b[31mred")
    assert "\u202e" not in plots.plain("\u202eabc")
    assert len(plots.plain("x" * 5000)) <= 44


@pytest.mark.parametrize("name", [r"_$\frac{ {0.__class__} 日本語", "a\nb", "x" * 5000])
def test_any_name_can_be_drawn(name):
    results, arrays = fake.movies()
    old = fake.MOVIES[0]
    scores = tuple(
        replace(r, stimulus=name) if r.stimulus == old else r for r in results.scores[:24]
    )
    results = replace(
        results,
        stimuli=(replace(results.stimuli[0], name=name),),
        presentations=(replace(results.presentations[0], stimulus=name),),
        scores=scores,
        differences=tuple(replace(d, stimulus=name) for d in results.differences[:2]),
        confusions=(replace(results.confusions[0], names=(name, *fake.MOVIES[1:])),),
        candidates=(replace(results.candidates[0], settings={name: name}),),
    )
    drawn = figures.draw(results, replace(arrays, names=(name, *fake.MOVIES[1:])), dpi=DPI)
    assert {"decoding-0", "confusion-0", "timeline", "embedding-session"} <= {p.name for p in drawn}
    traces = (LabelTrace(name, name, None, (0.0, 1.0, 2.0), (0.0, 1.0, 0.0), (0.0, 1.0, 0.5)),)
    label_run = replace(fake.labels()[0], traces=traces)
    n = len(arrays.samples)
    blind = replace(arrays, names=(), index=np.full(n, -1, np.int32), labels={name: np.arange(n)})
    assert len(figures.draw(label_run, blind, dpi=DPI)) >= 3


def test_colours_are_the_same_everywhere_and_differ():
    colours = plots.stimulus_colours([f"s{i}" for i in range(40)])
    assert len(set(colours.values())) == 40
    assert plots.stimulus_colours(["a", "b"])["a"] == plots.stimulus_colours(["a"])["a"]


def test_decoding_bars_show_values_intervals_and_chance():
    rows = [
        Score("frame", "a", "embedding", "accuracy", 0.5, 0.1, 8, 0.4, 0.6),
        Score("frame", "a", "raw kNN", "accuracy", 0.3, 0.1, 8),
    ]
    ax = plots.decoding(rows, ["a", "b"], axes())
    assert sorted(round(p.get_width(), 6) for p in ax.patches) == [0.3, 0.5]
    lines = {tuple(np.round(line.get_xdata(), 6)) for line in ax.lines}
    assert (0.4, 0.6) in lines  # the interval of the embedding; raw kNN has none
    assert (0.1, 0.1) in lines
    assert "higher is better" in ax.get_xlabel()


def test_rank_is_against_chance():
    def row(name: str, value: float, chance: float) -> Score:
        return Score(
            "frame", name, "embedding", "median error", value, chance, 8, higher_is_better=False
        )

    rows = [row("short", 2.0, 2.5), row("long", 3.0, 30.0), row("none", float("nan"), 1.0)]
    assert figures.ranked(rows) == ["long", "short", "none"]


def test_difference_plot_points_to_the_better_side():
    rows = [Difference("frame", "a", "median error", "raw kNN", -1.0, -2.0, -0.5, 8, "embedding")]
    ax = plots.differences(rows, ["a"], axes(), higher_is_better=False)
    assert "← better" in ax.get_xlabel()
    low, high = ax.get_xlim()
    assert low == -high <= -2.0


def test_loss_shows_chance():
    history = History((1, 2), (6.0, 5.0), (0.0, 0.0), (6.0, 5.0), (0.3, 1.8), (1.0, 1.0), 6.24)
    ax = plots.loss(history, axes())
    assert any(np.allclose(line.get_ydata(), 6.24) for line in ax.lines)
    assert any("6.24" in text.get_text() for text in ax.texts)


def test_the_chosen_candidate_is_marked_even_when_many_are_left_out():
    rows = [
        Candidate({"latents": i, "seed": 0}, i / 100, float("nan"), 1.0, "t", i == 39, 5.0)
        for i in range(40)
    ]
    ax = plots.candidates(rows, axes())
    assert [t.get_fontweight() for t in ax.get_yticklabels()].count("bold") == 1
    assert all("seed" not in t.get_text() for t in ax.get_yticklabels())
    results = replace(fake.minimal(), candidates=tuple(rows))
    (picture,) = figures.draw(results, None, dpi=DPI)
    assert re.search(r"best 25 of 40", picture.caption)


def test_a_circular_trace_breaks_where_it_goes_around():
    times = np.arange(6.0)
    values = np.array([5.8, 6.1, 0.1, 0.4, 0.5, 0.6])
    _, straight = plots._broken(times, values, None)
    _, around = plots._broken(times, values, 2 * np.pi)
    assert not np.isnan(straight).any()
    assert np.flatnonzero(np.isnan(around)).tolist() == [2]


def test_plots_load_no_torch():
    code = (
        "import sys; from grevy.report import figures, page, plots; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
