"""The real DANDI 000036 asset against the counts that its published analysis prints. Opt-in."""

from __future__ import annotations

import json
import os
import urllib.parse
import urllib.request

import numpy as np
import pytest

from grevy.stimulus import align, frame_intervals, table_from_series

API = "https://api.dandiarchive.org/api"
ASSET = "sub-389014/sub-389014_ses-20180705T152908_behavior+image+ophys.nwb"


@pytest.mark.skipif(os.environ.get("GREVY_ONLINE") != "1", reason="GREVY_ONLINE is not 1: not run")
def test_the_real_session_has_the_counts_of_the_simulated_one() -> None:
    import h5py
    import remfile

    query = urllib.parse.urlencode({"path": ASSET})
    page = f"{API}/dandisets/000036/versions/0.230515.1917/assets/?{query}"
    with urllib.request.urlopen(page, timeout=60) as answer:
        (asset,) = json.load(answer)["results"]
    remote = remfile.File(f"{API}/assets/{asset['asset_id']}/download/")
    with h5py.File(remote, "r") as file:
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
