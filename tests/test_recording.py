"""What a recording keeps of its channels, whatever is made of it."""

from __future__ import annotations

import numpy as np
import pytest

from grevy.errors import DataError
from grevy.quality import surrogate
from grevy.recording import make_recording, restrict


def test_regions_stay_with_a_recording() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    recording = make_recording(x, rate_hz=10.0, regions=["CA1", "", "V1"])
    assert recording.regions == ("CA1", "", "V1")
    assert restrict(recording, 5, 40).regions == recording.regions
    assert surrogate(recording, seed=0, apart=3).regions == recording.regions
    assert make_recording(x, rate_hz=10.0).regions == ()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_region_is_named_for_every_channel_or_for_none(n: int) -> None:
    with pytest.raises(DataError, match=f"each of the 3 channels, or none; found {n}"):
        make_recording(np.zeros((60, 3)), rate_hz=10.0, regions=["CA1"] * n)
