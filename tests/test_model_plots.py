"""Figures of fitted estimators: what is drawn is what was given, and what cannot be is refused."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
import warnings
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba
from sklearn.exceptions import NotFittedError

from grevy.errors import ConfigError, DataError
from grevy.plotting import canvas
from grevy.plotting import models as model_plots
from grevy.plotting.models import (
    compare_models,
    plot,
    plot_consistency,
    plot_embedding,
    plot_loss,
    plot_overview,
    plot_temperature,
)

NAMES = (
    "plot",
    "plot_overview",
    "plot_temperature",
    "plot_loss",
    "plot_embedding",
    "plot_consistency",
    "compare_models",
)
# CEBRA 0.6.1: names, order and defaults (-: no default).
LINE = "color={} linewidth=1 x_label=True y_label=True figsize=(7, 4) dpi=100"
SIGNATURES = {
    "plot": "model=- which='loss' X=None ax=None",
    "plot_overview": "model=- X=- loss_kwargs={} temperature_kwargs={} embedding_kwargs={} "
    "figsize=(15, 4) dpi=100",
    "plot_temperature": "model=- ax=None " + LINE.format("'dodgerblue'"),
    "plot_loss": "model=- label=None ax=None " + LINE.format("'magenta'"),
    "plot_embedding": "embedding=- embedding_labels='grey' ax=None idx_order=None markersize=0.05 "
    "alpha=0.4 cmap='cool' title='Embedding' figsize=(5, 5) dpi=100",
    "plot_consistency": "scores=- pairs=None datasets=None ax=None cmap='binary' "
    "text_color='white' colorbar_label='Consistency score (%)' title=None figsize=(5, 5) dpi=100",
    "compare_models": "models=- labels=None ax=None color=None cmap='cebra' linewidth=1 "
    "x_label=True y_label=True figsize=(7, 4) dpi=100",
    "plot_embedding_interactive": "embedding=- embedding_labels='grey' axis=None markersize=1 "
    "idx_order=None alpha=0.4 cmap='cool' title='Embedding' figsize=(5, 5) dpi=100",
}


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    assert not plt.get_fignums()
    yield
    plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng()


@pytest.fixture
def interactive():
    pytest.importorskip("plotly")
    from grevy.plotting.interactive import plot_embedding_interactive

    return plot_embedding_interactive


def model(loss=(3.0, 2.5, 2.75), temperature=(1.0, 0.9, 0.8), width=3, **more):
    seen = []

    def transform(X, **where):
        seen.append(where)
        return np.asarray(X)[:, :width]

    given = {
        "state_dict_": {"loss": loss, "log": {"temperature": list(temperature)}},
        "max_iterations": len(loss),
        "temperature_mode": "auto",
        "temperature": 0.5,
        "criterion": "infonce",
        "transform": transform,
        "seen": seen,
    }
    return SimpleNamespace(**{**given, **more})


def positional(function):
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD,)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def written(function):
    return " ".join(
        f"{p.name}="
        + ("-" if p.default is p.empty else "{}" if p.name[-7:] == "_kwargs" else repr(p.default))
        for p in positional(function)
    )


def drawn(ax, i=0):
    """Coordinates of a scatter's points."""
    points = ax.collections[i]
    if ax.name == "3d":
        return np.column_stack([np.asarray(v) for v in points._offsets3d])
    return np.asarray(points.get_offsets())


def faces(ax, i=0):
    ax.figure.canvas.draw()
    return ax.collections[i].get_facecolors()


# Names, parameters and defaults


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_defaults_are_those_of_cebra(name):
    assert written(getattr(model_plots, name)) == SIGNATURES[name]


def test_interactive_parameters_are_those_of_cebra(interactive):
    assert written(interactive) == SIGNATURES["plot_embedding_interactive"]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_of_parameters_is_right(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cebra = pytest.importorskip("cebra")
        function = getattr(cebra, name)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind.value == 1]
    ours = positional(getattr(model_plots, name))
    assert [p.name for p in parameters] == [p.name for p in ours]
    for theirs, own in zip(parameters, ours, strict=True):
        if (name, own.name) != ("plot", "which"):  # CEBRA's default is a type
            assert theirs.default == own.default


def test_where_cebra_fails():
    """Its figures leave pyplot at once, and repeated datasets cannot be plotted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cebra = pytest.importorskip("cebra")
        cebra.plot_embedding(np.eye(3))
        assert not plt.get_fignums()
        with pytest.raises((AssertionError, ValueError, IndexError)):
            cebra.plot_consistency(
                [0.2, 0.4], [("a", "b"), ("b", "a"), ("b", "a"), ("a", "b")], ["a", "b", "a"]
            )
        with pytest.raises(ValueError, match="Invalid value"):
            cebra.plot(model())
    plot_embedding(np.eye(3))
    assert len(plt.get_fignums()) == 1


def test_no_torch_is_imported():
    code = "import sys, grevy.plotting.models; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# Loss and temperature


def test_loss_is_drawn_as_it_is(rng):
    loss = rng.normal(size=37)
    ax = plot_loss(model(loss), color="tab:blue", linewidth=2.5, figsize=(6, 3), dpi=50)
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_ydata(), loss)
    np.testing.assert_array_equal(line.get_xdata(), np.arange(37))
    assert (line.get_color(), line.get_linewidth()) == ("tab:blue", 2.5)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Steps", "InfoNCE Loss")
    assert tuple(ax.figure.get_size_inches()) == (6, 3)
    assert ax.figure.dpi == 50
    assert ax.get_legend() is None


def test_a_new_figure_stays_with_pyplot():
    ax = plot_loss(model())
    assert plt.gcf() is ax.figure


def test_loss_may_be_a_tensor_with_a_gradient():
    torch = pytest.importorskip("torch")
    loss = torch.arange(4.0, requires_grad=True)
    np.testing.assert_array_equal(plot_loss(model(loss)).lines[0].get_ydata(), np.arange(4.0))


def test_given_axes_are_used_and_returned():
    _, axes = plt.subplots(2, 2)
    for ax, function in zip(axes.flat, (plot_loss, plot_temperature, plot), strict=False):
        assert function(model(), ax=ax) is ax
    assert compare_models([model()], ax=axes[1, 1]) is axes[1, 1]
    assert [len(ax.lines) for ax in axes.flat] == [1, 1, 1, 1]
    assert len(plt.get_fignums()) == 1


def test_names_and_labels_can_be_left_out():
    ax = plot_loss(model(), label=3, x_label=False, y_label=False, linestyle="--")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("", "")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["3"]
    assert ax.lines[0].get_linestyle() == "--"


def test_temperature_is_drawn_as_it_is(rng):
    temperature = rng.uniform(0.1, 1, 20)
    ax = plot_temperature(model(temperature=temperature))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), temperature)
    assert ax.get_ylabel() == "Temperature"


def test_a_constant_temperature_needs_no_log():
    ax = plot_temperature(model(temperature=(), temperature_mode="constant"))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.5, 0.5, 0.5])
    with pytest.raises(DataError, match="must have been logged"):
        plot_temperature(model(temperature=()))


@pytest.mark.parametrize(
    "draw",
    [
        plot_loss,
        plot_temperature,
        plot,
        lambda m: plot(m, "embedding", np.zeros((3, 3))),
        lambda m: plot_overview(m, np.zeros((3, 3))),
        lambda m: compare_models([model(), m]),
    ],
)
def test_an_unfitted_model_is_refused_and_nothing_drawn(draw):
    with pytest.raises(NotFittedError, match="SimpleNamespace is not; call fit first"):
        draw(SimpleNamespace(transform=lambda X: X))
    assert not plt.get_fignums()


def test_a_loss_without_steps_is_refused():
    with pytest.raises(DataError, match=r"found shape \(0,\)"):
        plot_loss(model(loss=()))
    with pytest.raises(DataError, match=r"found shape \(2, 2\)"):
        plot_loss(model(loss=np.zeros((2, 2))))


def test_a_failed_figure_is_closed():
    with pytest.raises(AttributeError):
        plot_loss(model(), no_such_property=1)
    with pytest.raises(AttributeError):
        plot_overview(model(), np.eye(3), loss_kwargs={"no_such_property": 1})
    assert not plt.get_fignums()


def test_axes_of_the_wrong_kind_are_refused():
    with pytest.raises(ConfigError, match="found ndarray"):
        plot_loss(model(), ax=plt.subplots(1, 2)[1])
    with pytest.raises(ConfigError, match="projection '3d'"):
        plot_loss(model(), ax=plt.figure().add_subplot(projection="3d"))


# Several models


def test_each_model_has_its_loss_colour_and_name(rng):
    losses = rng.normal(size=(4, 9))
    ax = compare_models([model(loss) for loss in losses], ["a", "b", 3, np.float64(0.5)])
    for line, loss in zip(ax.lines, losses, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), loss)
    expected = [to_hex(c) for c in canvas.colormap("cebra")([0.0, 1 / 3, 2 / 3, 1.0])]
    assert [to_hex(line.get_color()) for line in ax.lines] == expected
    assert len(set(expected)) == 4
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "3", "0.5"]


def test_one_colour_or_another_map():
    both = (model(), model())
    assert [line.get_color() for line in compare_models(both, color="red").lines] == ["red"] * 2
    ax = compare_models(both, cmap="viridis")
    ends = mpl.colormaps["viridis"]([0.0, 1.0])
    assert [to_hex(line.get_color()) for line in ax.lines] == [to_hex(c) for c in ends]
    assert ax.get_legend() is None


def test_the_own_colour_map_is_registered_nowhere():
    before = set(mpl.colormaps)
    compare_models([model()], cmap="cebra")
    assert set(mpl.colormaps) == before


@pytest.mark.parametrize(
    ("models", "labels", "words"),
    [
        (model(), None, "found SimpleNamespace"),
        ([], None, "an empty one"),
        ([model()], "a", "found str"),
        ([model()], ["a", "b"], "found 2 labels for 1 models"),
        ([model()], [None], "found NoneType at position 0"),
    ],
)
def test_models_and_labels_must_fit(models, labels, words):
    with pytest.raises(ConfigError, match=words):
        compare_models(models, labels)
    assert not plt.get_fignums()


def test_an_unknown_colour_map_is_named_with_its_neighbours():
    with pytest.raises(ConfigError, match="'virids'; did you mean viridis"):
        compare_models([model()], cmap="virids")


# The embedding


@pytest.mark.parametrize(
    ("width", "order", "shown"),
    [
        (2, None, (0, 1)),
        (3, None, (0, 1, 2)),
        (8, None, (0, 1, 2)),
        (8, (5, 0), (5, 0)),
        (8, [2, 7, 4], (2, 7, 4)),
        (2, (0, 1, 0), (0, 1, 0)),
        (1, (0, 0), (0, 0)),
    ],
)
def test_points_are_the_chosen_latents(rng, width, order, shown):
    embedding = rng.normal(size=(40, width))
    ax = plot_embedding(embedding, idx_order=order, markersize=3, alpha=0.7, title="mine")
    assert (ax.name == "3d") == (len(shown) == 3)
    np.testing.assert_array_equal(drawn(ax), embedding[:, list(shown)])
    assert (ax.get_xlabel(), ax.get_ylabel()) == tuple(f"latent {i}" for i in shown[:2])
    assert ax.get_title() == "mine"
    assert ax.collections[0].get_alpha() == 0.7
    assert set(ax.collections[0].get_sizes()) == {3}


@pytest.mark.parametrize("width", [2, 3])
def test_colours_follow_the_labels(rng, width):
    embedding, labels = rng.normal(size=(30, width)), rng.permutation(30)
    ax = plot_embedding(embedding, labels, cmap="viridis", alpha=1)
    np.testing.assert_array_equal(ax.collections[0].get_array(), labels)
    expected = mpl.colormaps["viridis"](labels / 29)
    # In three dimensions colours are kept from far to near, so the two are compared as sets.
    np.testing.assert_allclose(np.sort(faces(ax), axis=0), np.sort(expected, axis=0), atol=1e-6)
    if width == 2:
        np.testing.assert_allclose(faces(ax), expected, atol=1e-6)


def test_time_is_the_order_of_samples_in_the_given_map():
    ax = plot_embedding(np.eye(5)[:, :2], "time", cmap="magma")
    np.testing.assert_array_equal(ax.collections[0].get_array(), np.arange(5))
    assert ax.collections[0].get_cmap().name == "magma"


@pytest.mark.parametrize("labels", ["tab:red", None, "#123456", ["red"] * 5])
def test_one_colour_for_all(labels):
    for width in (2, 3):
        ax = plot_embedding(np.eye(5)[:, :width], labels, alpha=1)
        name = "grey" if labels is None else "red" if isinstance(labels, list) else labels
        assert {to_hex(c) for c in faces(ax)} == {to_hex(name)}


def test_labels_of_any_kind_of_number():
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    embedding = torch.eye(4)
    for labels in ([True, False, True, False], torch.arange(4), pandas.Series([4.0, 3, 2, 1])):
        ax = plot_embedding(embedding, labels)
        np.testing.assert_array_equal(ax.collections[0].get_array(), np.asarray(labels))


@pytest.mark.parametrize("width", [2, 3])
def test_samples_without_a_label_are_pale_and_not_lost(rng, width):
    embedding, labels = rng.normal(size=(20, width)), rng.uniform(size=20)
    labels[[3, 11]] = np.nan, np.inf
    ax = plot_embedding(embedding, labels, alpha=1, vmin=0, vmax=1, marker="^")
    rest = np.delete(np.arange(20), [3, 11])
    np.testing.assert_array_equal(drawn(ax), embedding[rest])
    np.testing.assert_array_equal(ax.collections[0].get_array(), labels[rest])
    np.testing.assert_array_equal(drawn(ax, 1), embedding[[3, 11]])
    assert {to_hex(c) for c in faces(ax, 1)} == {"#c9cdd3"}


def test_all_samples_without_a_label():
    for width in (2, 3):
        ax = plot_embedding(np.eye(3)[:, :width], [np.nan] * 3)
        ax.figure.canvas.draw()
        assert len(drawn(ax, 1)) == 3


def test_several_repeats_in_one_notebook_figure(rng):
    figure = plt.figure(figsize=(20, 7))
    for i in range(3):
        embedding, labels = rng.normal(size=(9, 3)), rng.uniform(size=9)
        given = figure.add_subplot(1, 3, i + 1, projection="3d")
        ax = plot_embedding(
            ax=given,
            embedding=embedding,
            embedding_labels=labels,
            markersize=1,
            title=f"repeat {i}",
        )
        assert ax is given
        np.testing.assert_array_equal(drawn(ax), embedding)
        np.testing.assert_array_equal(ax.collections[0].get_array(), labels)
    figure.canvas.draw()
    assert len(plt.get_fignums()) == 1


def test_a_figure_of_its_own_has_one_scale_for_all_latents():
    wide = np.column_stack([np.linspace(0, 10, 5), np.linspace(0, 1, 5)])
    assert plot_embedding(wide).get_aspect() == 1
    ax = plt.figure().add_subplot()
    assert plot_embedding(wide, ax=ax).get_aspect() == "auto"


def test_grey_figure_in_two_and_three_dimensions():
    grey = to_rgba("grey")
    for width in (2, 3):
        ax = plot_embedding(np.eye(4)[:, :width], "time", grey_fig=True)
        assert to_rgba(ax.title.get_color()) == grey
        assert to_rgba(ax.xaxis.label.get_color()) == grey
    assert to_rgba(ax.xaxis.pane.get_edgecolor())[:3] == grey[:3]
    assert to_rgba(plot_embedding(np.eye(4)).title.get_color()) != grey


BAD = np.eye(4)
BAD[2, 1] = np.nan


@pytest.mark.parametrize(
    ("embedding", "more", "error", "words"),
    [
        (np.zeros((5, 1)), {}, DataError, r"at least 2 latents; found shape \(5, 1\)"),
        (np.zeros(5), {}, DataError, r"found shape \(5,\)"),
        ([np.zeros((2, 3)), np.zeros((3, 3))], {}, DataError, "unequal parts"),
        ([["a", "b"]], {}, DataError, "dtype <U1"),
        (BAD, {}, DataError, "found nan at sample 2, latent 1, and 1 such"),
        (np.eye(4), {"idx_order": (0, 4)}, ConfigError, r"between 0 and 3; found \(0, 4\)"),
        (np.eye(4), {"idx_order": (0, -1)}, ConfigError, r"found \(0, -1\)"),
        (np.eye(4), {"idx_order": (0,)}, ConfigError, r"found \(0,\)"),
        (np.eye(4), {"idx_order": (0, 1.5)}, ConfigError, r"found \(0, 1.5\)"),
        (np.eye(4), {"embedding_labels": "no colour"}, ConfigError, "found 'no colour'"),
        (np.eye(4), {"embedding_labels": [1, 2, 3]}, DataError, "3 labels for 4 samples"),
        (np.eye(4), {"embedding_labels": np.zeros((4, 2))}, DataError, r"shape \(4, 2\)"),
        (np.eye(4), {"embedding_labels": ["r", "r", "zebra", "b"]}, DataError, "'zebra' at sam"),
        (np.eye(4), {"embedding_labels": [None] * 4}, DataError, "dtype object"),
        (np.eye(4), {"c": "red"}, ConfigError, "given as embedding_labels"),
        (np.eye(4), {"s": 3}, ConfigError, "given as markersize"),
        (np.eye(4), {"cmap": "rainbows"}, ConfigError, "did you mean rainbow"),
    ],
)
def test_what_cannot_be_drawn_is_refused(embedding, more, error, words):
    with pytest.raises(error, match=words):
        plot_embedding(embedding, **more)
    assert not plt.get_fignums()


def test_axes_of_another_dimension_are_refused():
    flat, deep = plt.figure().add_subplot(), plt.figure().add_subplot(projection="3d")
    with pytest.raises(ConfigError, match=r"3 dimensions .*'rectilinear'.*projection='3d'"):
        plot_embedding(np.eye(4), ax=flat)
    with pytest.raises(ConfigError, match=r"2 dimensions .*'3d'"):
        plot_embedding(np.eye(4)[:, :2], ax=deep)
    assert not flat.collections
    assert not deep.collections


def test_embedding_and_labels_are_left_as_they_are(rng):
    embedding = rng.normal(size=(6, 3))
    labels = [3.0, 1, 2, 4, 5, 0]
    before = embedding.copy(), list(labels)
    plot_embedding(embedding, labels)
    np.testing.assert_array_equal(embedding, before[0])
    assert labels == before[1]


# By name, and all at once


def test_plot_draws_what_it_is_told(rng):
    X = rng.normal(size=(7, 5))
    assert plot(model()).get_ylabel() == "InfoNCE Loss"
    assert plot(model(), "temperature").get_ylabel() == "Temperature"
    ax = plot(model(), "embedding", X, embedding_labels="time", idx_order=(1, 2))
    np.testing.assert_array_equal(drawn(ax), X[:, [1, 2]])


def test_a_session_is_named_to_transform_alone(rng):
    several = model()
    plot(several, "embedding", np.eye(4), session_id=1)
    plot_overview(several, np.eye(4), session_id=0)
    plot(several, "embedding", np.eye(4))
    assert several.seen == [{"session_id": 1}, {"session_id": 0}, {}]


@pytest.mark.parametrize(("which", "words"), [("embedding", "found X=None"), ("los", "'los'")])
def test_plot_refuses_what_it_does_not_know(which, words):
    with pytest.raises(ConfigError, match=words):
        plot(model(), which)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_overview_shows_all_three(rng, width):
    X = rng.normal(size=(12, 6))
    fitted = model(rng.normal(size=9), rng.uniform(size=9), width)
    figure, (above, below, right) = plot_overview(
        fitted, X, embedding_kwargs={"embedding_labels": "time"}
    )
    np.testing.assert_array_equal(above.lines[0].get_ydata(), fitted.state_dict_["loss"])
    np.testing.assert_array_equal(
        below.lines[0].get_ydata(), fitted.state_dict_["log"]["temperature"]
    )
    np.testing.assert_array_equal(drawn(right), X[:, : min(width, 3)])
    assert above.get_xlabel() == ""
    assert below.get_xlabel() == "Steps"
    assert figure.axes == [above, below, right]
    assert plt.get_fignums() == [figure.number]


def test_overview_passes_on_what_it_is_given():
    _, (above, below, right) = plot_overview(
        model(width=3),
        np.eye(5),
        loss_kwargs={"linewidth": 4, "x_label": True},
        temperature_kwargs={"color": "red"},
        embedding_kwargs={"markersize": 7, "idx_order": (2, 0)},
        alpha=0.25,
        figsize=(9, 3),
    )
    assert (above.lines[0].get_linewidth(), above.get_xlabel()) == (4, "Steps")
    assert below.lines[0].get_color() == "red"
    assert set(right.collections[0].get_sizes()) == {7}
    np.testing.assert_array_equal(drawn(right), np.eye(5)[:, [2, 0]])
    artists = above.lines[0], below.lines[0], right.collections[0]
    assert [artist.get_alpha() for artist in artists] == [0.25] * 3
    assert tuple(above.figure.get_size_inches()) == (9, 3)


# Consistency


def texts(ax):
    return {(t.get_position()[1], t.get_position()[0]): t for t in ax.texts}


def slow_matrix(scores, pairs, names):
    matrix = np.full((len(names), len(names)), np.nan)
    for i, first in enumerate(names):
        for j, second in enumerate(names):
            same = [s for s, p in zip(scores, pairs, strict=True) if tuple(p) == (first, second)]
            if same:
                matrix[i, j] = 100 * sum(same) / len(same)
    return matrix


@pytest.mark.parametrize("names", [["b", "a", "c"], [0, 1, 2, 3], ["x", "y"]])
def test_each_score_is_in_its_cell(rng, names):
    pairs = rng.permutation(list(itertools.permutations(names, 2)))
    scores = rng.uniform(size=len(pairs))
    ax = plot_consistency(scores, pairs, names, vmin=0, vmax=100)
    expected = slow_matrix(scores, pairs.tolist(), names)
    np.testing.assert_allclose(ax.images[0].get_array().filled(np.nan), expected)
    assert [t.get_text() for t in ax.get_xticklabels()] == [str(n) for n in names]
    assert [t.get_text() for t in ax.get_yticklabels()] == [str(n) for n in names]
    assert ax.images[0].get_clim() == (0, 100)
    for (i, j), value in np.ndenumerate(expected):
        shown = "–" if np.isnan(value) else f"{value:.1f}"
        assert texts(ax)[i, j].get_text() == shown


def test_runs_need_no_datasets(rng):
    pairs = list(itertools.permutations([0, 1, 2], 2))
    scores = rng.uniform(size=6)
    images = [
        plot_consistency(scores, pairs, datasets).images[0].get_array()
        for datasets in (None, [0, 1, 2], ["rat"])
    ]
    for image in images:
        np.testing.assert_allclose(image.filled(np.nan), slow_matrix(scores, pairs, [0, 1, 2]))


def test_repeated_datasets_and_pairs(rng):
    """CEBRA averages over repeated ids but repeats their pairs: six names, fewer scores."""
    names, ids = ["a", "b"], ["a", "b", "a"]
    repeated = [("a", "b"), ("b", "a"), ("b", "a"), ("a", "b")]
    ax = plot_consistency([0.2, 0.4], repeated, ids)
    np.testing.assert_allclose(
        ax.images[0].get_array().filled(np.nan), [[np.nan, 20], [40, np.nan]]
    )
    scores = rng.uniform(size=4)
    ax = plot_consistency(scores, repeated, ids)
    expected = slow_matrix(scores, repeated, names)
    np.testing.assert_allclose(ax.images[0].get_array().filled(np.nan), expected)
    assert [t.get_text() for t in ax.get_xticklabels()] == names


def test_half_of_the_pairs_fill_half_of_the_matrix():
    ax = plot_consistency([0.1, 0.2, 0.3], [(0, 1), (0, 2), (1, 2)], [0, 1, 2])
    n = np.nan
    expected = [[n, 10, 20], [n, n, 30], [n, n, n]]
    np.testing.assert_allclose(ax.images[0].get_array().filled(n), expected)
    single = plot_consistency(0.5, (0, 1))
    np.testing.assert_allclose(single.images[0].get_array().filled(n), [[n, 50], [n, n]])


def test_numbers_can_be_read_in_every_cell():
    ax = plot_consistency([0.0, 1.0], [("a", "b"), ("b", "a")], ["a", "b"])
    assert ax.images[0].get_clim() == (0, 100)
    assert texts(ax)[0, 1].get_color() == "black"
    assert texts(ax)[1, 0].get_color() == "white"
    red = plot_consistency([0.0, 1.0], [("a", "b"), ("b", "a")], text_color="red", vmin=0, vmax=100)
    assert texts(red)[0, 1].get_color() == "red"


def test_text_bar_and_title_can_be_left_out():
    ax = plot_consistency([0.5], [(0, 1)], text_color=None, colorbar_label=None, title="Runs")
    assert not ax.texts
    assert ax.figure.axes == [ax]
    assert ax.get_title() == "Runs"
    with_bar = plot_consistency([0.5], [(0, 1)], colorbar_label="mine", cmap="cebra")
    assert with_bar.figure.axes[1].get_ylabel() == "mine"
    plt.tight_layout()  # notebooks call it


@pytest.mark.parametrize(
    ("scores", "pairs", "datasets", "error", "words"),
    [
        ([0.5], None, ["a"], ConfigError, "found None"),
        ([0.5, 0.6], [("a", "b")], ["a", "b"], DataError, "2 scores for 1 pairs, 1 of them"),
        ([0.5], [("a", "b"), ("b", "a")], None, DataError, "1 scores for 2 pairs, 2 of them"),
        ([0.5], [("a", "b", "c")], None, DataError, r"shape \(1, 3\)"),
        ([[0.5]], [("a", "b")], None, DataError, r"shape \(1, 1\)"),
        ([], [], None, DataError, r"shape \(0,\)"),
        ([0.5], [("a", "b")], ["a", "c"], DataError, "found 'b' in pairs but not among a, c"),
        (["high"], [("a", "b")], None, DataError, "dtype <U4"),
    ],
)
def test_scores_pairs_and_datasets_must_fit(scores, pairs, datasets, error, words):
    with pytest.raises(error, match=words):
        plot_consistency(scores, pairs, datasets)
    assert not plt.get_fignums()


def test_consistency_in_given_axes():
    ax = plt.figure().add_subplot()
    assert plot_consistency([0.5], [(0, 1)], ax=ax) is ax


# Interactive


def test_interactive_points_in_space_and_plane(interactive, rng):
    embedding, labels = rng.normal(size=(15, 5)), rng.uniform(size=15)
    figure = interactive(embedding, labels, cmap="viridis", markersize=2, alpha=0.3)
    (trace,) = figure.data
    np.testing.assert_array_equal(np.column_stack([trace.x, trace.y, trace.z]), embedding[:, :3])
    np.testing.assert_array_equal(trace.marker.color, labels)
    ends = trace.marker.colorscale[0], trace.marker.colorscale[-1]
    assert ends == ((0.0, to_hex(mpl.colormaps["viridis"](0.0))), (1.0, "#fde725"))
    assert (trace.type, trace.marker.size, trace.marker.opacity) == ("scatter3d", 2, 0.3)
    assert figure.layout.scene.yaxis.title.text == "latent 1"
    flat = interactive(embedding, idx_order=(4, 2))
    np.testing.assert_array_equal(
        np.column_stack([flat.data[0].x, flat.data[0].y]), embedding[:, [4, 2]]
    )
    assert flat.layout.xaxis.title.text == "latent 4"
    np.testing.assert_array_equal(interactive(embedding[:, :2]).data[0].y, embedding[:, 1])
    assert not figure.layout.showlegend
    assert not plt.get_fignums()


def test_interactive_width_and_height_are_not_exchanged(interactive):
    figure = interactive(np.eye(3), figsize=(8, 4), dpi=50, title="mine")
    assert (figure.layout.width, figure.layout.height) == (400, 200)
    assert figure.layout.title.text == "mine"


@pytest.mark.parametrize(
    "classes", [["left", "right", "left", "up"], [7, 3, 7, -1], [1.5, 2, 1, 3]]
)
def test_interactive_classes_have_colours_and_a_legend(interactive, classes):
    embedding = np.eye(4)
    figure = interactive(embedding, classes, discrete=True)
    assert figure.layout.showlegend
    values = sorted(set(classes))
    assert [t.name for t in figure.data] == [str(np.asarray(classes).dtype.type(v)) for v in values]
    assert len({t.marker.color for t in figure.data}) == len(values)
    for trace, value in zip(figure.data, values, strict=True):
        members = embedding[[c == value for c in classes]]
        np.testing.assert_array_equal(np.column_stack([trace.x, trace.y, trace.z]), members[:, :3])
    assert not interactive(embedding, classes, discrete=True, showlegend=False).layout.showlegend


def test_interactive_colours(interactive):
    assert interactive(np.eye(3), "tab:blue").data[0].marker.color == "#1f77b4"
    assert interactive(np.eye(3)).data[0].marker.color == "#808080"
    assert list(interactive(np.eye(3), ["r", "b", "r"]).data[0].marker.color)[1] == "#0000ff"
    np.testing.assert_array_equal(interactive(np.eye(3), "time").data[0].marker.color, [0, 1, 2])
    known, unknown = interactive(np.eye(3), [1.0, np.nan, 2.0]).data
    np.testing.assert_array_equal(known.marker.color, [1.0, 2.0])
    assert (unknown.marker.color, unknown.y[0], len(unknown.y)) == ("#c9cdd3", 1.0, 1)


def test_interactive_subplots(interactive):
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, specs=[[{"type": "scene"}, {"type": "scene"}]])
    first = interactive(np.eye(4), axis=figure, row=1, col=1)
    second = interactive(np.eye(4), axis=figure, row=1, col=2, idx_order=(3, 2, 1))
    assert first is second is figure
    assert [t.scene for t in figure.data] == ["scene", "scene2"]
    assert figure.layout.scene.xaxis.title.text == "latent 0"
    assert figure.layout.scene2.xaxis.title.text == "latent 3"
    flat = make_subplots(rows=2, cols=1)
    interactive(np.eye(4), axis=flat, row=2, col=1, idx_order=(1, 3))
    assert flat.layout.yaxis2.title.text == "latent 3"
    assert flat.layout.yaxis.title.text is None


@pytest.mark.parametrize(
    ("labels", "more", "error", "words"),
    [
        ("time", {"showlegend": True}, ConfigError, "set discrete=True"),
        ("time", {"discrete": True}, ConfigError, "found 'time'"),
        ([1, 2], {}, DataError, "2 labels for 300 samples"),
        ([1, 2], {"discrete": True}, DataError, "2 labels for 300 samples"),
        (np.arange(300), {"discrete": True}, ConfigError, "found 300 different"),
        ("time", {"row": 1}, ConfigError, "found row=1 and col=None"),
        ("time", {"idx_order": (0, 300)}, ConfigError, "between 0 and 299"),
        ("time", {"no_such_property": 1}, ValueError, "no_such_property"),
    ],
)
def test_interactive_refuses(interactive, labels, more, error, words):
    with pytest.raises(error, match=words):
        interactive(np.eye(300), labels, **more)
    with pytest.raises(DataError, match=r"found shape \(4, 1\)"):
        interactive(np.zeros((4, 1)))


def test_names_of_classes_are_no_markup_for_plotly(interactive):
    names = np.array(["<a href='javascript:alert(1)'>x</a>", "b"] * 5)
    z = np.random.default_rng(0).normal(size=(10, 3))
    figure = interactive(z, names, discrete=True)
    assert {"&lt;a href='javascript:alert(1)'&gt;x&lt;/a&gt;", "b"} == {t.name for t in figure.data}
