"""Masks: the law of each kind, against loops, and training that zeroes just those values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

import grevy.training as training
import twins
from grevy.config import TrainConfig
from grevy.drawing import draw
from grevy.draws import Purpose, keys_of, uniforms
from grevy.encoders import EncoderSpec, initial_weights
from grevy.errors import ConfigError
from grevy.masks import Mask, mask_factors
from grevy.model import embed
from grevy.pairs import ClassPairs, DeltaPairs, HybridPairs, TimePairs, prepare_sessions
from grevy.recording import Label, Recording
from grevy.training import train

KINDS = ("neurons", "timesteps", "neuron_block", "time_block")
SPEC = EncoderSpec("offset5-model", 6, 3)
QUICK = TrainConfig(
    TimePairs((2,)), SPEC, learning_rate=3e-3, batch_size=10, n_negatives=14, n_steps=12, seed=4,
    masks=(Mask("neurons", (0.3, 0.6)), Mask("time_block", (0.4,), span=2)),
)  # fmt: skip


def factors(mask: Mask, *, step: int = 0, seed: int = 0, group: int = 0, **shape: int) -> Tensor:
    return mask_factors([mask], seed, group, step, **shape)


def recording(seed: int = 0, channels: int = 6) -> Recording:
    rng = np.random.default_rng(seed)
    labels = {
        "place": Label(np.cumsum(rng.normal(0, 0.3, 140)), "continuous"),
        "side": Label(rng.integers(0, 3, 140), "discrete"),
    }
    return twins.noise(140, channels, epochs=[(0, 70), (70, 140)], labels=labels, seed=seed)


@pytest.mark.parametrize("kind", KINDS)
@given(
    window=st.integers(1, 12),
    n=st.integers(1, 9),
    channels=st.integers(1, 12),
    share=st.floats(0.05, 0.95),
    span=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_mask_has_the_form_of_its_kind(
    kind: Any, window: int, n: int, channels: int, share: float, span: int, seed: int
) -> None:
    mask = Mask(kind, (share,), span=span)
    found = factors(mask, seed=seed, window=window, n=n, channels=channels)
    assert found.shape == (window, n, channels)
    assert found.dtype == torch.float32
    assert set(found.reshape(-1).tolist()) <= {0.0, 1.0}
    zero = found.numpy() == 0
    for i in range(n):
        own = zero[:, i]
        rows, columns = own.any(axis=1), own.any(axis=0)
        if kind == "neurons":
            # A channel is masked in the whole window or not at all.
            assert (own == columns).all()
        elif kind == "neuron_block":
            assert (own == columns).all()
            hit = np.flatnonzero(columns)
            assert len(hit) == int(channels * share)
            assert hit.tolist() == list(range(hit[0], hit[-1] + 1)) if len(hit) else True
        else:
            assert (own == rows[:, None]).all()
        if kind == "time_block":
            count = int(window * share)
            assert count <= rows.sum() <= count * span
            # Every stretch is `span` long, unless the window ends first.
            edges = np.flatnonzero(np.diff(np.concatenate([[0], rows, [0]])))
            for a, b in edges.reshape(-1, 2):
                assert b - a >= span or b == window


@pytest.mark.parametrize("kind", ["neurons", "timesteps"])
def test_single_values_are_masked_by_chance_alone(kind: Any) -> None:
    """As often as the share says, and one no more often where its neighbour is."""
    share, window, n, channels = 0.3, 8, 500, 7
    zero = np.stack(
        [
            factors(Mask(kind, (share,)), step=s, window=window, n=n, channels=channels) == 0
            for s in range(10)
        ]
    )  # (steps, window, n, channels)
    zero = zero[:, 0] if kind == "neurons" else zero[..., 0].transpose(0, 2, 1)  # (steps, n, k)
    k = zero.shape[2]
    assert k == (channels if kind == "neurons" else window)
    for column in range(k):
        assert stats.binomtest(int(zero[..., column].sum()), 10 * n, share).pvalue > 1e-4
    counts = np.bincount(zero.sum(axis=2).reshape(-1), minlength=k + 1)
    law = stats.binom.pmf(np.arange(k + 1), k, share) * 10 * n
    common = law > 5
    both = [np.append(x[common], x[~common].sum()) for x in (counts, law)]
    assert stats.chisquare(both[0], both[1] * both[0].sum() / both[1].sum()).pvalue > 1e-4


def test_blocks_begin_anywhere_equally_often() -> None:
    found = factors(Mask("neuron_block", (0.4,)), window=2, n=4000, channels=10)[0] == 0
    begin = found.to(torch.int64).argmax(dim=1).numpy()
    counts = np.bincount(begin, minlength=7)
    assert len(counts) == 7  # a block of 4 of 10 channels begins at 0 ... 6
    assert stats.chisquare(counts).pvalue > 1e-4


def test_stretches_begin_at_different_samples_equally_often() -> None:
    """With a span of one sample the stretches are the beginnings: distinct and even."""
    found = factors(Mask("time_block", (0.3,)), window=10, n=3000, channels=2)[..., 0] == 0
    assert (found.sum(dim=0) == 3).all()
    assert stats.chisquare(found.sum(dim=1).numpy()).pvalue > 1e-4


def test_a_mask_and_a_share_are_drawn_for_every_step() -> None:
    masks = [Mask("neuron_block", (0.2, 0.5)), Mask("timesteps", (0.5,))]
    seen = []
    for step in range(600):
        zero = mask_factors(masks, 3, 0, step, window=40, n=4, channels=10)[:, 0] == 0
        whole_channels = bool((zero == zero[0]).all())
        seen.append(int(zero[0].sum()) if whole_channels else -1)
    found = {value: seen.count(value) for value in set(seen)}
    assert set(found) == {-1, 2, 5}
    expected = [300, 150, 150]
    assert stats.chisquare([found[-1], found[2], found[5]], expected).pvalue > 1e-4


def test_of_several_masks_and_shares_one_is_taken() -> None:
    """The one that a step's two numbers point at, for one run and for several at once."""
    rng = np.random.default_rng(8)
    for step in range(200):
        masks = [
            Mask(str(rng.choice(KINDS)), tuple(rng.uniform(0.5, 0.95, 2)), int(rng.integers(1, 15)))  # type: ignore[arg-type]
            for _ in range(rng.integers(1, 4))
        ]
        window, n, channels = rng.integers(2, 13, 3).tolist()
        shape = {"window": window, "n": n, "channels": channels}
        seeds = [5, 2**63 + step, 2**40 - 1]
        together = mask_factors(masks, keys_of(seeds), 1, step, **shape)
        assert together.shape == (3, window, n, channels)
        for seed, found in zip(seeds, together, strict=True):
            which, place = uniforms(seed, Purpose.MASK + 256 * 2, torch.tensor([step]), 2)[0]
            mask = masks[int(which * len(masks))]
            only = Mask(mask.kind, (mask.shares[int(place * 2)],), mask.span)
            assert torch.equal(found, factors(only, seed=seed, group=1, step=step, **shape))
            assert torch.equal(found, mask_factors(masks, seed, 1, step, **shape))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_a_function_of_its_address(kind: Any) -> None:
    shape = {"window": 12, "n": 40, "channels": 12}
    mask = Mask(kind, (0.4,), span=2)
    first = factors(mask, seed=5, group=1, step=7, **shape)
    assert torch.equal(first, factors(mask, seed=5, group=1, step=7, **shape))
    for other in ({"seed": 6}, {"group": 2}, {"step": 8}):
        address = {"seed": 5, "group": 1, "step": 7} | other
        found = factors(mask, **address, **shape)
        assert not torch.equal(found, first)
        # Not merely another mask: as unlike as two drawn apart are.
        agree = [i for i in range(40) if (first[:, i] == found[:, i]).all()]
        assert len(agree) < 20
    # Windows of one group are masked each on its own.
    assert len({first[:, i].numpy().tobytes() for i in range(40)}) > 5


def slow(recordings: list[Recording], config: TrainConfig) -> np.ndarray:
    """Training with torch's layers, each window cut out, scaled, masked and embedded alone."""
    spec = config.encoder
    modules = []
    scaled = []
    for s, rec in enumerate(recordings):
        module = twins.encoder(spec.architecture, rec.n_channels, SPEC.hidden, SPEC.latents)
        twins.set_weights(module, initial_weights(spec, rec.n_channels, config.seed, session=s))
        modules.append(module)
        x = rec.activity.astype(np.float64)
        if config.scale == "zscore":
            x = (x - x.mean(0)) / x.std(0)
        scaled.append(x.astype(np.float32))
    adam = torch.optim.Adam([p for m in modules for p in m.parameters()], lr=config.learning_rate)
    tables = prepare_sessions(recordings, config.pairs, spec.field, [r.epochs for r in recordings])
    history = []
    for step in range(config.n_steps):
        drawn = draw(
            tables, config.seed, torch.tensor([step]), batch=config.batch_size,
            n_negatives=config.n_negatives, block=config.block, apart=True,
        )  # fmt: skip
        z = []
        for k, group in enumerate(drawn.groups):
            rec = recordings[group.session]
            starts = group.start[0].tolist()
            keep = mask_factors(
                config.masks, config.seed, k, step,
                window=len(spec.field), n=len(starts), channels=rec.n_channels,
            )  # fmt: skip
            for i, centre in enumerate(starts):
                window = torch.from_numpy(twins.window(scaled[group.session], centre, spec.field))
                z.append(modules[group.session]((window * keep[:, i]).T[None])[0])
        flat = torch.stack(z)
        r, n = flat[drawn.reference[0]], flat[drawn.negative[0]]
        pos, neg = torch.zeros(()), torch.zeros(())
        for k, places in enumerate(drawn.positives):
            some = slice(None)
            if isinstance(config.pairs, HybridPairs) and k == 0:
                some = slice(0, config.pairs.behavior_latents)
            p = flat[places[0]]
            pos = pos - (r[:, some] * p[:, some]).sum(1).mean() / config.temperature
            neg = neg + torch.logsumexp(r[:, some] @ n[:, some].T / config.temperature, 1).mean()
        adam.zero_grad()
        (pos + neg).backward()
        adam.step()
        history.append((pos.item(), neg.item()))
    return np.array(history)


@pytest.mark.parametrize(
    ("n", "changes"),
    [
        (1, {}),
        (1, {"pairs": TimePairs((3, 40))}),
        (1, {"pairs": ClassPairs("side", balanced=True), "masks": (Mask("neurons", (0.5,)),)}),
        (1, {"pairs": HybridPairs(DeltaPairs(("place",)), TimePairs((2,)), 2)}),
        (2, {"pairs": DeltaPairs(("place",)), "masks": (Mask("neuron_block", (0.5,)),)}),
        (1, {"scale": "zscore", "masks": (Mask("timesteps", (0.4,)),)}),
    ],
    ids=["time", "far", "class", "hybrid", "sessions", "zscore"],
)
def test_masked_training_is_that_of_torch(n: int, changes: dict[str, Any]) -> None:
    """With "zscore" a masked value is the channel's mean, not a raw zero far from it."""
    recordings = [recording(s, 6 + s) for s in range(n)]
    if "scale" in changes:
        shifted = recordings[0].activity * np.float32(3) + np.float32(20)
        recordings = [replace(recordings[0], activity=shifted)]
    config = replace(QUICK, **changes)
    (run,) = train(recordings, [config], device="cpu")
    expected = slow(recordings, config)
    np.testing.assert_allclose(run.history, expected, rtol=1e-4, atol=1e-4)


def test_references_positives_and_negatives_are_masked_each_on_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The groups of a step have different masks, and no window is in two of them."""
    from grevy import stack as module

    seen: list[tuple[int, int]] = []
    real = module.mask_factors

    def spy(masks: Any, seed: Tensor, group: int, step: Tensor, **shape: int) -> Tensor:
        seen.append((group, int(step)))
        return real(masks, seed, group, step, **shape)

    monkeypatch.setattr(module, "mask_factors", spy)
    config = replace(QUICK, n_steps=2, pairs=HybridPairs(DeltaPairs(("place",)), TimePairs(), 2))
    train([recording()], [config], device="cpu")
    assert seen == [(group, step) for step in range(2) for group in range(4)]


def test_masked_runs_are_the_same_alone_and_in_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the masks of its own seed, and what dropout leaves."""
    masked = replace(QUICK, encoder=EncoderSpec("offset5-model", 16, 3), batch_size=16)
    dropping = replace(masked, masks=(), encoder=EncoderSpec("offset36-model-dropout", 16, 2))
    configs = [replace(c, seed=s) for c in (masked, dropping) for s in (1, 2, 2**40)]
    configs.append(replace(masked, seed=1, masks=()))
    rec = recording()
    stacks: list[int] = []
    real = training.train_stack
    monkeypatch.setattr(
        training, "train_stack", lambda a, s, *rest: (stacks.append(len(s)), real(a, s, *rest))[1]
    )
    together = train([rec], configs, device="cpu")
    assert sorted(stacks) == [1, 3, 3]
    for config, run in zip(configs, together, strict=True):
        (alone,) = train([rec], [config], device="cpu")
        assert alone.digest == run.digest
        assert np.array_equal(alone.losses, run.losses)
    assert len({run.digest for run in together}) == 7


def test_nothing_is_masked_when_a_recording_is_embedded() -> None:
    (run,) = train([recording()], [QUICK], device="cpu")
    plain = replace(run, config=replace(QUICK, masks=()))
    found = [embed(r, recording(1), device="cpu").values for r in (run, plain)]
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mask("noise", (0.5,)),  # type: ignore[arg-type]
        lambda: Mask("neurons", ()),
        lambda: Mask("neurons", (0.0,)),
        lambda: Mask("neurons", (0.5, 1.0)),
        lambda: Mask("neurons", (math.nan,)),
        lambda: Mask("time_block", (0.5,), span=0),
        lambda: Mask("neurons", 0.3),  # type: ignore[arg-type]
        lambda: replace(QUICK, batch_size=None),
        lambda: replace(QUICK, masks="neurons"),  # type: ignore[arg-type]
        lambda: train([recording()], [replace(QUICK, masks=(Mask("neuron_block", (0.01,)),))]),
        lambda: train([recording()], [replace(QUICK, masks=(Mask("time_block", (0.4, 0.01)),))]),
    ],
)
def test_senseless_masks_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"mask"):
        make()
