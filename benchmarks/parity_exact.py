"""What must be equal: embeddings for equal weights, losses for equal embeddings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import Tensor

CHANNELS, HIDDEN, LATENTS, WINDOWS, SAMPLES = 7, 32, 3, 16, 120
TEMPERATURES = (0.1, 0.5, 1.0, 4.0)
SHAPES = ((512, 512, 8), (64, 512, 3), (33, 17, 2), (1, 1, 1))


def available() -> bool:
    """Whether CEBRA is installed here."""
    return find_spec("cebra") is not None


def family(name: str) -> str:
    """The kind of architecture that a name belongs to, numbers left open.

    >>> family("offset1-model-mse-clip-5-50"), family("offset10-model")
    ('offset1-model-mse-clip-*', 'offset10-model')
    """
    name = re.sub(r"clip-\d+-\d+", "clip-*", name)
    return re.sub(r"-\d+layers", "-*layers", name)


def same_weights() -> list[dict[str, Any]]:
    """Largest difference of embeddings by family, CEBRA's own initial weights in both.

    Windows of small and of large values, and where an encoder slides along time a stretch too;
    embedded by the encoder as a torch module, and by the function that training calls.
    Differences are relative to the larger of one and the value itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cebra.models
    from grevy.encoders import Encoder, EncoderSpec, encode, from_cebra

    found: dict[str, dict[str, Any]] = {}
    for name in sorted(cebra.models.get_options()):
        generator = torch.Generator().manual_seed(len(name))
        torch.manual_seed(1)
        theirs = cebra.models.init(name, CHANNELS, HIDDEN, LATENTS).eval()
        state = {k: v for k, v in theirs.state_dict().items() if k.startswith("net.")}
        spec = EncoderSpec(name, HIDDEN, LATENTS)
        weights = from_cebra(spec, state)
        module = Encoder(spec, weights)
        row = found.setdefault(
            family(name), {"family": family(name), "names": 0, "numbers": 0, "difference": 0.0}
        )
        row["names"] += 1
        for x in _inputs(theirs, generator):
            with torch.no_grad():
                expected = _embedding(theirs, x)
                time_first = x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]
                trained = encode(spec, [w[None] for w in weights], time_first, dense=False)
                both = (module(x), trained[0].permute(1, 2, 0).reshape(expected.shape))
            row["numbers"] += expected.numel()
            for ours in both:
                row["difference"] = max(row["difference"], _relative(expected, ours))
    return list(found.values())


def _inputs(theirs: Any, generator: torch.Generator) -> Iterator[Tensor]:
    import cebra.models

    width = len(theirs.get_offset())
    shape = (WINDOWS, CHANNELS) if width == 1 else (WINDOWS, CHANNELS, width)
    yield torch.randn(shape, generator=generator)
    yield 30 * torch.randn(shape, generator=generator)
    if isinstance(theirs, cebra.models.ConvolutionalModelMixin):
        yield torch.randn((1, CHANNELS, SAMPLES), generator=generator)


def _embedding(theirs: Any, x: Tensor) -> Tensor:
    """What CEBRA's module makes of x; a supervised one is asked for its features."""
    if hasattr(theirs, "set_output_num") and theirs.classifier is None:
        theirs.set_output_num(2)
    out = theirs(x)
    return out[0] if isinstance(out, tuple) else out


def same_embeddings() -> list[dict[str, Any]]:
    """Largest difference of InfoNCE, its two parts and its gradient, by distance.

    Relative to the larger of one and the value itself: float32 holds seven digits.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cebra.models import criterions
    from grevy.losses import info_nce

    kinds = {"cosine": criterions.InfoNCE, "euclidean": criterions.InfoMSE}
    found = []
    for distance, kind in kinds.items():
        worst, steepest, cases = 0.0, 0.0, 0
        for seed, (temperature, shape) in enumerate(product(TEMPERATURES, SHAPES)):
            n, negatives, latents = shape
            generator = torch.Generator().manual_seed(seed)
            parts = [torch.randn((m, latents), generator=generator) for m in (n, n, negatives)]
            if distance == "cosine":
                parts = [torch.nn.functional.normalize(p, dim=1) for p in parts]
            theirs, ours = ([p.clone().requires_grad_() for p in parts] for _ in range(2))
            criterion = kind(temperature=temperature)
            total, positive, negative = criterion(*theirs)
            mine = info_nce(*ours, temperature=temperature, distance=distance)  # type: ignore[arg-type]
            for a, b in ((total, mine.total), (positive, mine.positive), (negative, mine.negative)):
                worst = max(worst, _relative(a, b))
            total.backward()
            mine.total.backward()
            for p, q in zip(theirs, ours, strict=True):
                assert p.grad is not None
                assert q.grad is not None
                steepest = max(steepest, _relative(p.grad, q.grad))
            cases += 1
        found.append(
            {"distance": distance, "cases": cases, "difference": worst, "gradient": steepest}
        )
    return found


def _relative(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        raise SystemExit(f"CEBRA gives {tuple(a.shape)}, grevy {tuple(b.shape)}")
    return float(((a - b).abs() / a.abs().clamp(min=1)).max())
