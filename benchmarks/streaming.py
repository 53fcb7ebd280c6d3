"""What it costs to look into a recording of 343 MB over HTTP: requests and bytes, counted there.

    python benchmarks/streaming.py [--double] [--json FILE]

Writes a simulated session in the layout of DANDI 000036 (most of it pictures), serves it on this
machine, and reads traces and stimuli (`nwb.read`), or describes the file, through grevy's own
blocks and through remfile. `--double` stores the traces as 64-bit numbers. At most 60 requests and
60 MB are asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import remfile

from grevy import dandi, nwb, synthetic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dandi_server import serve

TRACES = "processing/ophys/DfOverF/imaging_plane_1/data"
MOST_REQUESTS, MOST_MB = 60, 60


class Link:
    """A link to the storage, asked for once, as remfile's users do it."""

    def __init__(self, asset: dandi.Asset) -> None:
        self.asset, self.link = asset, ""

    def get_url(self) -> str:
        import requests

        if not self.link:
            answer = requests.get(self.asset.content_url, allow_redirects=False, timeout=30)
            self.link = answer.headers["Location"]
        return self.link


def write(path: Path, *, double: bool) -> Path:
    """A session of the real one's sizes, with pictures of 72 x 115 pixels."""
    nwb.write_openscope(path, synthetic.openscope(frame_shape=(72, 115)))
    if double:
        with h5py.File(path, "r+") as file:
            about, values = dict(file[TRACES].attrs), file[TRACES][:].astype(np.float64)
            del file[TRACES]
            file[TRACES] = values
            file[TRACES].attrs.update(about)
    return path


def own(asset: dandi.Asset, act: Callable[[Any], Any]) -> Any:
    with dandi.open_remote(asset) as remote:
        return act(remote)


def by_remfile(asset: dandi.Asset, act: Callable[[Any], Any]) -> Any:
    remote = remfile.File(Link(asset))
    try:
        with h5py.File(remote, "r") as file:
            return act(file)
    finally:
        remote.session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, serve() as archive:
        os.environ["GREVY_DANDI_API"] = archive.api
        path = write(Path(folder) / "session.nwb", double=options.double)
        stored = archive.add("sub-1/session.nwb", path.read_bytes())
        asset = dandi.resolve(archive.url(stored))
        local = nwb.read(path)
        for what, act in (("read", nwb.read), ("describe", nwb.describe)):
            for how in (own, by_remfile):
                archive.requests.clear()
                begin = time.perf_counter()
                found = how(asset, act)
                row = {
                    "what": what,
                    "reader": "grevy" if how is own else "remfile",
                    "file_mb": round(asset.size / 1e6, 1),
                    "requests": len(archive.requests),
                    "mb": round(archive.sent / 1e6, 1),
                    "seconds": round(time.perf_counter() - begin, 2),
                }
                if what == "read":
                    assert np.array_equal(found.activity, local.activity)
                rows.append(row)
                print(row)
    ours = [row for row in rows if row["reader"] == "grevy"]
    held = all(row["requests"] <= MOST_REQUESTS and row["mb"] <= MOST_MB for row in ours)
    print("budget held" if held else "BUDGET MISSED")
    if options.json:
        facts = {"date": datetime.now(UTC).date().isoformat(), "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()
