"""The real DANDI 000036 asset against the counts that its published analysis prints. Opt-in."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from grevy import dandi
from grevy.stimulus import align, frame_intervals, table_from_series

ASSET = "sub-389014/sub-389014_ses-20180705T152908_behavior+image+ophys.nwb"


@pytest.mark.skipif(os.environ.get("GREVY_ONLINE") != "1", reason="GREVY_ONLINE is not 1: not run")
def test_the_real_session_has_the_counts_of_the_simulated_one() -> None:
    asset = dandi.resolve(f"dandi://000036@0.230515.1917/{ASSET}")
    assert asset.size == 1_345_317_924
    assert asset.sha256
    with dandi.open_remote(asset) as remote, h5py.File(remote, "r") as file:
        traces = file["processing/ophys/DfOverF/imaging_plane_1"]
        assert traces["data"].shape == (41, 127_177)
        assert traces["timestamps"].shape == (127_178,)
        times = traces["timestamps"][:-1]
        shown = file["stimulus/presentation"]
        series = {name: (shown[name]["timestamps"][:], shown[name]["data"][:]) for name in shown}
    assert len(series) == 14
    table = table_from_series(series)
    assert table.n_rows == 241_186
    whole = frame_intervals(table, gap_s=np.inf)
    assert len(whole.start_s) == 136_798 + 1  # the last interval is kept here
    track = align(times, table, gap_s=np.inf)
    aligned = np.flatnonzero(track.index >= 0)
    assert aligned[0] == 133
    assert abs(len(aligned) - 126_758) <= 1  # the sample inside that last interval
    repeats = {name: int((track.index == i).any()) for i, name in enumerate(track.names)}
    assert repeats["dots"] == 0
    assert len(align(times, table).decodable) >= 10
