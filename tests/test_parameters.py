"""What CEBRA's parameters mean: pairs, masks and seeds, each against a table written out."""

from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grevy.errors import ConfigError
from grevy.inputs import Sessions
from grevy.masks import Mask
from grevy.pairs import (
    ClassPairs,
    DeltaPairs,
    HybridPairs,
    MixedPairs,
    NearPairs,
    TimePairs,
)
from grevy.parameters import masks_of, pairs_of, seed_of, whole

A = ("label 0.0", "label 0.1")


def told(**parameters: Any) -> Any:
    return SimpleNamespace(
        **{"conditional": None, "time_offsets": 1, "delta": None, "hybrid": False, **parameters}
    )


def labels(kind: str) -> Sessions:
    names = A if kind in ("continuous", "mixed") else ()
    return Sessions((), names, kind in ("discrete", "mixed"), [], False)


TIME, LAG = TimePairs((1,)), DeltaPairs(A, 1)
NEAR, CLASS = NearPairs(A, 0.5), ClassPairs("discrete")
SD = {"delta": 0.5}
TABLE: list[tuple[str, dict[str, Any], Any]] = [
    ("none", {}, TIME),
    ("none", {"conditional": "time"}, TIME),
    ("none", {"time_offsets": 7}, TimePairs((7,))),
    ("none", {"time_offsets": [1, 7]}, TimePairs((1, 7))),
    ("continuous", {}, LAG),
    ("continuous", {"conditional": "time_delta", "time_offsets": [4]}, DeltaPairs(A, 4)),
    ("continuous", {"conditional": "delta_normal", **SD}, NEAR),
    ("continuous", {"conditional": "delta", **SD}, NEAR),
    ("continuous", {"conditional": "time"}, TIME),
    ("discrete", {}, CLASS),
    ("discrete", {"conditional": "time"}, TIME),
    ("mixed", {}, MixedPairs(LAG, "discrete")),
    ("mixed", {"conditional": "delta_normal", **SD}, MixedPairs(NEAR, "discrete")),
    ("continuous", {"hybrid": True}, HybridPairs(LAG, TIME, 3)),
    ("continuous", {"hybrid": True, "conditional": "delta", **SD}, HybridPairs(NEAR, TIME, 3)),
    ("discrete", {"hybrid": True, "time_offsets": 4}, HybridPairs(CLASS, TimePairs((4,)), 3)),
    ("mixed", {"hybrid": True}, HybridPairs(MixedPairs(LAG, "discrete"), TIME, 3)),
    (
        "continuous",
        {"hybrid": True, "conditional": "delta_normal", **SD, "time_offsets": (2, 9)},
        HybridPairs(NEAR, TimePairs((2, 9)), 3),
    ),
]


@pytest.mark.parametrize(("kind", "parameters", "pairs"), TABLE, ids=str)
def test_parameters_and_labels_mean_pairs(kind: str, parameters: Any, pairs: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairs_of(told(**parameters), labels(kind), 8) == pairs


def test_a_hybrid_of_few_latents_judges_labels_on_all() -> None:
    for latents, judged in ((1, 1), (2, 2), (3, 3), (64, 3)):
        pairs = pairs_of(told(hybrid=True), labels("continuous"), latents)
        assert isinstance(pairs, HybridPairs)
        assert pairs.behavior_latents == judged


def test_every_combination_means_something_or_is_said() -> None:
    """No setting that differs from its default passes in silence without changing the pairs."""
    kinds = ("none", "continuous", "discrete", "mixed")
    choices = itertools.product(
        kinds, (None, "time", "time_delta", "delta_normal"), (1, 7), (None, 0.5), (False, True)
    )
    for kind, conditional, offset, delta, hybrid in choices:
        chosen = {
            "conditional": conditional,
            "time_offsets": offset,
            "delta": delta,
            "hybrid": hybrid,
        }
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                pairs = pairs_of(told(**chosen), labels(kind), 8)
        except ConfigError:
            continue
        said = " ".join(str(w.message) for w in caught)
        if offset != 1:
            assert ("7" in repr(pairs)) != ("time_offsets" in said), chosen
        if delta is not None:
            assert ("sd=0.5" in repr(pairs)) != ("delta=0.5" in said), chosen
        assert ("hybrid" in repr(pairs)) == hybrid
        if conditional == "time":
            assert isinstance(pairs, TimePairs)
        elif conditional == "time_delta":
            assert ("delta" in repr(pairs)) != ("conditional" in said), chosen
        elif conditional == "delta_normal":
            assert ("near" in repr(pairs)) != ("conditional" in said), chosen


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("none", {"hybrid": True}, "needs labels"),
        ("none", {"conditional": "time_delta"}, "needs labels"),
        ("none", {"conditional": "delta_normal", "delta": 1.0}, "needs labels"),
        ("continuous", {"conditional": "delta_normal"}, "needs delta"),
        ("continuous", {"conditional": "delta", "delta": 0}, "delta must be a positive.*0"),
        ("continuous", {"time_offsets": [1, 2]}, r"one time offset.*\(1, 2\)"),
        ("continuous", {"conditional": "time", "hybrid": True}, "takes time by itself"),
        ("none", {"conditional": "foo"}, "'foo'"),
        ("none", {"time_offsets": 1.0}, "1.0"),
        ("none", {"time_offsets": "1"}, "'1'"),
        ("none", {"time_offsets": [1, -2]}, "-2"),
        ("none", {"time_offsets": None}, "None"),
    ],
)
def test_contradictions_are_refused(kind: str, parameters: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        pairs_of(told(**parameters), labels(kind), 8)


@pytest.mark.parametrize(
    ("given", "masks"),
    [
        (None, ()),
        ((), ()),
        ((("RandomNeuronMask", 0.3),), (Mask("neurons", (0.3,)),)),
        ({"RandomTimestepMask": 0.3}, (Mask("timesteps", (0.3,)),)),
        ((("NeuronBlockMask", [0.1, 0.4]),), (Mask("neuron_block", (0.1, 0.4)),)),
        ((("TimeBlockMask", (0.2, 4)),), (Mask("time_block", (0.2,), 4),)),
        (
            (("RandomNeuronMask", 0.3), ("TimeBlockMask", (0.2, 4))),
            (Mask("neurons", (0.3,)), Mask("time_block", (0.2,), 4)),
        ),
    ],
)
def test_masks_by_their_names(given: Any, masks: Any) -> None:
    assert masks_of(given) == masks


def test_bounds_and_a_step_are_shares_from_the_first_to_the_last() -> None:
    (mask,) = masks_of((("RandomNeuronMask", (0.1, 0.4, 0.1)),))
    np.testing.assert_allclose(mask.shares, [0.1, 0.2, 0.3, 0.4])


def test_seeds() -> None:
    assert seed_of(5) == seed_of(np.int32(5)) == 5
    assert seed_of(None) != seed_of(None)
    assert seed_of(np.random.RandomState(1)) == seed_of(np.random.RandomState(1))
    generator = np.random.default_rng(1)
    assert seed_of(generator) != seed_of(generator)
    for wrong in ("0", 1.5, [1]):
        with pytest.raises(ConfigError, match="random_state"):
            seed_of(wrong)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_whole_numbers(value: Any) -> None:
    whole("n", 1)
    whole("n", np.int64(7))
    with pytest.raises(ConfigError, match="n must be a whole number"):
        whole("n", value)
