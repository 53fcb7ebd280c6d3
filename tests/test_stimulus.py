"""Stimulus tables against the notebook's loops: equal where right, different on purpose."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from grevy.errors import ConfigError, DataError
from grevy.recording import make_recording, restrict
from grevy.stimulus import (
    align,
    frame_intervals,
    order_confounds,
    remarks,
    short_presentations,
    table_from_intervals,
    table_from_series,
)

PACE = 0.1


def movie(
    starts: list[float], n_frames: int = 10, pace: float = PACE
) -> tuple[np.ndarray, np.ndarray]:
    """A series that shows frames 0 .. n - 1, each for two refreshes, at each start."""
    times = np.concatenate([s + pace * np.arange(2 * n_frames) for s in starts])
    return times, np.tile(np.repeat(np.arange(n_frames), 2), len(starts))


def clock(stop: float, step: float = 0.05, start: float = 0.013) -> np.ndarray:
    return np.arange(start, stop, step)


# Times on a grid of eighths, samples never on it: the loops' closed intervals and the half-open
# ones of grevy then agree on every sample.
ticks = st.lists(st.integers(0, 12), min_size=0, max_size=25)
one_series = ticks.flatmap(
    lambda steps: st.tuples(
        st.just(np.cumsum([0, *steps])[: len(steps)] / 8.0),
        st.lists(st.integers(0, 4), min_size=len(steps), max_size=len(steps)).map(np.array),
        st.integers(0, 80),
    )
)
random_series = st.lists(one_series, min_size=1, max_size=5).map(
    lambda many: {f"s{i}": (t + shift / 8.0, f) for i, (t, f, shift) in enumerate(many)}
)
samples = st.lists(st.integers(-20, 600), min_size=1, max_size=80, unique=True).map(
    lambda where: np.sort(where) / 8.0 + 1 / 32
)


@settings(max_examples=300, deadline=None)
@given(random_series)
def test_table_and_intervals_equal_the_notebooks_without_gaps(series) -> None:
    rows = oracles.notebook_table(series)
    table = table_from_series(series)
    assert table.names == tuple(series)
    assert table.start_s.tolist() == [row[0] for row in rows]
    assert table.stop_s.tolist() == [row[1] for row in rows]
    assert table.frame.tolist() == [row[2] for row in rows]
    assert [table.names[i] for i in table.name] == [row[3] for row in rows]
    found = frame_intervals(table, gap_s=np.inf)
    if not rows:
        assert len(found.start_s) == 0
        return
    start, _, frame, name = zip(*rows, strict=True)
    intervals, frames, names = oracles.notebook_intervals(start, frame, name)
    ours = list(zip(found.start_s.tolist(), found.stop_s.tolist(), strict=True))
    assert ours[:-1] == intervals  # every one of theirs, and the last, which they lose
    assert found.frame[:-1].tolist() == frames
    assert [table.names[i] for i in found.name[:-1]] == names
    assert ours[-1][1] == rows[-1][1]
    assert found.first_row[0] == 0
    assert found.stop_row[-1] == len(rows)
    assert found.first_row[1:].tolist() == found.stop_row[:-1].tolist()


@settings(max_examples=300, deadline=None)
@given(random_series, samples)
def test_samples_equal_the_notebooks_without_gaps(series, times) -> None:
    table = table_from_series(series)
    if table.n_rows == 0:
        assert (align(times, table).index == -1).all()
        return
    start, _, frame, name = zip(*oracles.notebook_table(series), strict=True)
    told = oracles.notebook_intervals(start, frame, name)
    frames, names, before = oracles.notebook_samples(times, *told)
    track = align(times, table, gap_s=np.inf)
    end = told[0][-1][1] if told[0] else start[0]
    theirs = slice(int((times < start[0]).sum()), int((times < end).sum()))
    if told[0]:
        assert before == (times < start[0]).sum()
    assert track.frame[theirs].tolist() == frames
    assert [track.names[i] for i in track.index[theirs]] == names
    assert (track.index[: theirs.start] == -1).all()


@settings(max_examples=300, deadline=None)
@given(random_series, samples)
def test_track_equals_the_obvious_twin(series, times) -> None:
    track = align(times, table_from_series(series))
    ours = [
        (track.names[i] if i >= 0 else "", f, r)
        for i, f, r in zip(track.index, track.frame, track.repeat, strict=True)
    ]
    assert ours == oracles.obvious_track(times, series)


@settings(max_examples=200, deadline=None)
@given(random_series, samples)
def test_nothing_is_lost_without_a_word(series, times) -> None:
    track = align(times, table_from_series(series))
    for number, name in enumerate(track.names):
        own = track.blocks[track.blocks["stimulus"] == number]
        assert own["repeat"].tolist() == list(range(len(own)))
        assert (name in track.reasons) != (name in track.decodable)
        if not (track.index == number).any():
            assert name in track.reasons
        else:
            assert set(track.repeat[track.index == number]) <= set(own["repeat"])
    assert (np.diff(track.blocks["start_s"]) >= 0).all()
    assert len(short_presentations(track)) == len(track.blocks)
    assert all(name in " ".join(remarks(track)) for name in track.reasons)


# --- What the loops get wrong --------------------------------------------------------------------


def test_a_gap_is_no_stimulus_where_the_loops_stretch_the_last_frame() -> None:
    series = {"a": movie([0.0, 10.0]), "b": movie([5.0])}
    times = clock(12.0)
    track = align(times, table_from_series(series))
    rest = (times > 2.0) & (times < 5.0)
    assert (track.index[rest] == -1).all()
    assert (track.frame[rest] == -1).all()
    assert (track.repeat[rest] == -1).all()
    start, _, frame, name = zip(*oracles.notebook_table(series), strict=True)
    frames, _, _ = oracles.notebook_samples(times, *oracles.notebook_intervals(start, frame, name))
    assert set(np.array(frames)[rest[: len(frames)]]) == {9}
    stretched = align(times, table_from_series(series), gap_s=np.inf)
    assert set(stretched.frame[rest]) == {9}
    shown = (track.index >= 0) & (times < 11.9)
    assert (track.frame[shown] == stretched.frame[shown]).all()
    assert track.blocks["stop_s"][0] == pytest.approx(2.0)  # one refresh after the last began
    assert stretched.blocks["stop_s"][0] == pytest.approx(2.0)  # so that nothing seems to overlap
    assert not any("overlaps" in why for why in stretched.reasons.values())


def test_a_dropped_refresh_is_no_gap_and_gap_s_says_what_is_one() -> None:
    times, frames = movie([0.0, 10.0])
    keep = np.ones(len(times), bool)
    keep[[6, 7]] = False  # two refreshes in a row
    table = table_from_series({"a": (times[keep], frames[keep])})
    track = align(clock(12.0), table)
    assert len(track.blocks) == 2
    assert (track.index[clock(12.0) < 2.0] == 0).all()
    assert len(align(clock(12.0), table, gap_s=0.05).blocks) == 3
    assert len(align(clock(12.0), table, gap_s=100.0).blocks) == 2  # the reset still counts


def test_frame_zero_on_two_samples_is_one_repeat() -> None:
    series = {"a": movie([0.0, 3.0, 6.0])}
    times = clock(8.0, step=0.07)  # frame 0 lasts 0.2 s: two or three samples
    track = align(times, table_from_series(series))
    assert len(track.blocks) == 3
    assert set(track.repeat[track.index == 0]) == {0, 1, 2}
    assert (np.diff(track.repeat[track.index == 0]) >= 0).all()
    assert len(oracles.notebook_repeats(track.frame[track.index == 0].tolist())) > 3


def test_repeats_equal_the_notebooks_where_frame_zero_is_seen_once() -> None:
    series = {"a": movie([0.0, 3.0, 6.0]), "b": movie([20.0])}
    times = clock(22.0, step=0.2)  # one sample a frame
    track = align(times, table_from_series(series))
    mine = track.index == 0
    theirs = oracles.notebook_repeats(track.frame[mine].tolist())
    below_last = track.frame[mine] < 9  # they leave the last frame out
    ours = [np.flatnonzero(below_last & (track.repeat[mine] == r)).tolist() for r in range(3)]
    assert ours == theirs


def test_the_last_interval_is_kept() -> None:
    series = {"a": movie([0.0])}
    found = frame_intervals(table_from_series(series))
    start, _, frame, name = zip(*oracles.notebook_table(series), strict=True)
    intervals, _, _ = oracles.notebook_intervals(start, frame, name)
    assert len(found.start_s) == len(intervals) + 1
    assert found.frame[-1] == 9
    assert found.stop_s[-1] == pytest.approx(1.9)


def test_a_sample_at_the_instant_of_a_change_sees_the_new_frame() -> None:
    series = {"a": (np.arange(5.0), np.arange(5))}
    rows = oracles.notebook_table(series)
    start, _, frame, name = zip(*rows, strict=True)
    told = oracles.notebook_intervals(start, frame, name)
    assert oracles.notebook_samples([1.0, 2.0], *told)[0] == [0, 1]
    track = align([1.0, 2.0, 3.999, 4.0], table_from_series(series))
    assert track.frame.tolist() == [1, 2, 3, -1]  # and at the end, none


@pytest.mark.parametrize("why", ["reset", "gap", "other", "block"])
def test_what_opens_a_new_presentation(why: str) -> None:
    start = np.arange(8) * 1.0
    frames, names, blocks = np.arange(8), ["a"] * 8, np.zeros(8)
    if why == "reset":
        frames = frames % 4
    elif why == "gap":
        start[4:] += 3.0
    elif why == "other":
        names[4] = "b"
    else:
        blocks[4:] = 1
    table = table_from_intervals(start, start + 1.0, names, frames, blocks)
    own = frame_intervals(table).blocks
    assert own["repeat"][own["stimulus"] == 0].tolist() == [0, 1]


def test_a_movie_run_backwards_resets_by_rising() -> None:
    times, frames = movie([0.0, 2.0, 4.0])
    track = align(clock(6.0), table_from_series({"a": (times, 9 - frames)}))
    assert track.blocks["repeat"].tolist() == [0, 1, 2]
    assert track.decodable == ("a",)


# --- Stimuli that cannot be decoded --------------------------------------------------------------


def test_every_unusable_stimulus_has_its_reason() -> None:
    spontaneous = 40.0 + PACE * np.arange(100)
    series = {
        "good": movie([0.0, 3.0]),
        "absent": (np.empty(0), np.empty(0, int)),
        "single": ([17.0], [0]),
        "twin": (spontaneous[20:60], np.arange(40)),
        "spontaneous": (spontaneous, np.zeros(100, int)),
        "once": movie([6.0]),
        "rising": (np.r_[9.0 + PACE * np.arange(20), 12 + PACE * np.arange(20)], np.arange(40)),
        "late": movie([100.0, 103.0]),
        "still": (15 + PACE * np.arange(9), np.zeros(9, int)),
        "cut": (np.r_[20 + PACE * np.arange(20), 24 + PACE * np.arange(8)], np.r_[0:20, 0:8]),
    }
    shuffled = np.random.default_rng(0).permutation(200) % 100
    series["shuffled"] = (60 + PACE * np.arange(200), shuffled)
    track = align(clock(90.0), table_from_series(series))
    assert track.names == tuple(series)
    assert track.decodable == ("good",)
    expected = {
        "absent": "no rows",
        "single": "no rows",
        "spontaneous": "overlaps twin",
        "twin": "overlaps spontaneous",
        "once": "never repeats",
        "rising": "never repeats: its frame numbers go on",
        "late": "outside the recording (100.000-104.9",
        "still": "single frame",
        "cut": "fewer than two complete",
        "shuffled": "no fixed order of frames",
    }
    assert set(expected) == set(track.reasons)
    for name, words in expected.items():
        assert words in track.reasons[name]
    assert "no samples" in track.reasons["twin"]  # the later row of a tie counts
    assert "single frame" in track.reasons["spontaneous"]


def test_short_presentations_stay_and_are_flagged() -> None:
    times, frames = movie([0.0, 3.0, 6.0, 9.0])
    table = table_from_series({"a": (times[:-12], frames[:-12])})
    track = align(clock(11.0), table)
    assert track.decodable == ("a",)
    assert short_presentations(track).tolist() == [False, False, False, True]
    assert (track.repeat == 3).any()
    assert any("1 of 4 presentations" in line and "repeat 3" in line for line in remarks(track))
    recording = make_recording(np.zeros((220, 1)), clock(11.0), stimulus=track)
    cut = restrict(recording, 20, 220).stimulus  # the first second is gone
    assert cut is not None
    assert short_presentations(cut).tolist() == [True, False, False, True]


def test_a_presentation_beyond_the_recording_is_short() -> None:
    track = align(clock(7.0), table_from_series({"a": movie([0.0, 3.0, 6.0, 9.0])}))
    assert short_presentations(track).tolist() == [False, False, True, True]
    assert len(track.blocks) == 4


# --- Interval tables -----------------------------------------------------------------------------


def test_rows_of_an_interval_table_may_come_in_any_order() -> None:
    start = np.arange(20.0)
    names, frames = ["b", "a"] * 10, np.repeat(np.arange(10), 2)
    shuffle = np.random.default_rng(1).permutation(20)
    one = table_from_intervals(start, start + 1, names, frames)
    two = table_from_intervals(
        start[shuffle], start[shuffle] + 1, [names[i] for i in shuffle], frames[shuffle]
    )
    told = [[t.names[i] for i in t.name] for t in (one, two)]
    assert told[0] == told[1] == names
    assert one.frame.tolist() == two.frame.tolist()


def test_stated_stops_are_kept_and_small_holes_bridged() -> None:
    start = np.arange(10) * 1.0
    stop = start + 0.75  # a quarter of a second of grey after each picture
    table = table_from_intervals(start, stop, ["a"] * 10, np.arange(10) % 5)
    assert (align(clock(10.0), table, gap_s=0.1).index >= 0).mean() == pytest.approx(0.75, abs=0.02)
    assert len(align(clock(10.0), table).blocks) == 2  # 0.25 s is less than half a row
    long = np.array([1.0] * 9 + [50.0])  # a frozen frame: its stop is stated, so it stays
    frozen = table_from_intervals(np.arange(10) * 1.0, start + long, ["a"] * 10, np.arange(10))
    assert align([55.0], frozen).frame.tolist() == [9]


def test_blanks_are_no_stimulus() -> None:
    start = np.arange(12.0)
    frames = np.array([0, 1, 2, 3, np.nan, np.nan, 0, 1, 2, 3, -1, -1])
    track = align(start + 0.5, table_from_intervals(start, start + 1, ["m"] * 12, frames))
    assert track.frame.tolist() == [0, 1, 2, 3, -1, -1] * 2
    assert track.repeat.tolist() == [0] * 4 + [-1] * 2 + [1] * 4 + [-1] * 2
    assert track.decodable == ("m",)


def test_trials_without_frames_count_steps_since_onset() -> None:
    start, names = [1.0, 4.0, 7.02, 10.0], ["a", "b", "a", "b"]
    times = clock(13.0, step=0.1, start=0.0501)
    table = table_from_intervals(start, np.add(start, 2.0), names)
    assert not table.has_frames
    track = align(times, table)
    assert track.n_frames == (20, 20)
    assert track.decodable == ("a", "b")
    for i, begin in enumerate(start):
        shown = (times >= begin) & (times < begin + 2.0)
        assert track.frame[shown].tolist() == list(range(shown.sum()))
        assert set(track.repeat[shown]) == {i // 2}
    assert (track.index[(times > 3.1) & (times < 4.0)] == -1).all()
    hole = np.delete(times, slice(8, 15))  # the recording misses the onset of the first trial
    assert align(hole, table).frame[8] == 5


def test_trials_of_one_stimulus_back_to_back_are_repeats() -> None:
    track = align(
        clock(3.0, step=0.25, start=0.0), table_from_intervals([0, 1, 2], [1, 2, 3], "aaa")
    )
    assert track.frame.tolist() == [0, 1, 2, 3] * 3
    assert track.repeat.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_one_table_may_hold_movies_and_trials() -> None:
    start = np.arange(8.0)
    frames = np.array([0, 1, 2, -1, 0, 1, 2, -1])
    names = ["m", "m", "m", "flash"] * 2
    table = table_from_intervals(start, start + 1, names, frames)
    track = align(clock(8.0, step=0.25), table)
    assert track.n_frames == (3, 4)
    assert track.frame[:16].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0, 1, 2, 3]
    assert track.decodable == ("m", "flash")


# --- Order ---------------------------------------------------------------------------------------


def shown_in(order: str) -> str | None:
    names = [letter for letter in order for _ in range(2)]
    start = np.arange(len(names)) * 1.0
    table = table_from_intervals(start, start + 1, names, [0, 1] * len(order))
    return order_confounds(align(start + 0.5, table))


def test_fixed_order() -> None:
    assert "all 4 cycles (a, b, c)" in str(shown_in("abcabcabcabc"))
    assert "all 3 cycles" in str(shown_in("abcabcabcab"))
    assert "4 presentations is the same in all 3 cycles" in str(shown_in("abacabacabac"))
    assert "one unbroken run" in str(shown_in("aaabbbccc"))
    assert shown_in("abcbacacbbca") is None
    assert shown_in("aaaa") is None


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ("aaaaabbbbbcccccbbbbbaaaaaccccc", "24 of 29 presentations show again what was shown 1"),
        ("aaaabbbbcccca", "not shown in cycles that hold each of them once, nor in an order drawn"),
        ("abababcdcdcd", "show again what was shown 2 before"),
        ("aaabaabaabbabbbabbbb" * 2, "the same in all 2 cycles"),
        (
            "abaabacaabbaacbabcbcbbacbccbcbccacbcc",
            "some are shown earlier in the session than others",
        ),
        ("abcd" * 4 + "abdc" + "abcd" * 4, "show again what was shown 4 before"),
        ("abba" * 7 + "baba", "show again what was shown 1 before"),
    ],
)
def test_orders_that_were_not_drawn_at_random(order: str, why: str) -> None:
    assert why in str(shown_in(order))


@pytest.mark.parametrize("whole", [False, True])
def test_orders_that_were_drawn_at_random_are_seldom_refused(whole: bool) -> None:
    rng = np.random.default_rng(5)
    refused = 0
    for n, cycles in [(2, 20), (4, 10), (12, 10)] * 40:
        drawn = np.concatenate([rng.permutation(n) for _ in range(cycles)])
        drawn = rng.permutation(drawn) if whole else drawn
        refused += shown_in("".join("abcdefghijkl"[i] for i in drawn)) is not None
    assert refused <= 5  # 1.2 of 120 are expected, more than 5 in 3 of 1,000


# --- Refusals ------------------------------------------------------------------------------------


def test_bad_tables_are_refused() -> None:
    with pytest.raises(DataError, match="one frame a timestamp; found 3 timestamps and 2"):
        table_from_series({"a": ([0.0, 1.0, 2.0], [0, 1])})
    with pytest.raises(DataError, match="must not fall; found 0 not finite and 1 falling"):
        table_from_series({"a": ([0.0, 2.0, 1.0], [0, 1, 2])})
    with pytest.raises(DataError, match="'a' must be finite"):
        table_from_series({"a": ([0.0, np.nan], [0, 1])})
    with pytest.raises(DataError, match=r"whole numbers; found 1 that are not, the first 0\.5"):
        table_from_series({"a": ([0.0, 1.0], [0, 0.5])})
    with pytest.raises(DataError, match="must be numbers"):
        table_from_series({"a": ([0.0, 1.0], ["x", "y"])})
    with pytest.raises(DataError, match="one length"):
        table_from_intervals([0.0, 1.0], [1.0], ["a", "b"])
    with pytest.raises(DataError, match=r"the first row 1 from 1\.0 to 0\.5"):
        table_from_intervals([0.0, 1.0], [1.0, 0.5], ["a", "b"])
    with pytest.raises(ConfigError, match="gap_s"):
        align([0.0], table_from_series({"a": ([0.0, 1.0], [0, 1])}), gap_s=-1.0)


def test_empty_tables_and_recordings() -> None:
    empty = align([0.0, 1.0], table_from_series({}))
    assert empty.names == ()
    assert (empty.index == -1).all()
    assert remarks(empty) == ()
    none = align([], table_from_series({"a": movie([0.0, 3.0])}))
    assert none.reasons == {"a": "has no samples"}
    assert table_from_intervals([], [], []).n_rows == 0


# --- The park recording --------------------------------------------------------------------------


def test_park_recording(data_dir: Path) -> None:
    with h5py.File(data_dir / "park-openscope" / "park_openscope_layout.nwb") as file:
        shown = file["stimulus/presentation"]
        series = {key: (one["timestamps"][:], one["data"][:]) for key, one in shown.items()}
        times = file["processing/ophys/DfOverF/imaging_plane_1/timestamps"][:-1]
    table = table_from_series(series)
    track = align(times, table)
    movies = [f"movie_{i}" for i in range(1, 8)]
    assert list(track.decodable) == movies
    assert dict(track.reasons) == {"spontaneous": "shows a single frame"}
    assert track.n_frames == (60,) * 7 + (1,)
    assert np.allclose(track.duration_s[:7], 2.0)
    for number in range(7):
        own = track.index == number
        assert np.unique(track.repeat[own]).tolist() == list(range(32))
        assert (np.bincount(track.repeat[own]) == 32).all()
    assert "7 stimuli is the same in all 32 cycles" in str(order_confounds(track))
    assert not short_presentations(track).any()
    assert obvious_on(times[:600], series) == list(
        zip(track.frame[:600].tolist(), track.repeat[:600].tolist(), strict=True)
    )


def obvious_on(times, series) -> list[tuple[int, int]]:
    early = {k: (t[t < times[-1] + 1], f[t < times[-1] + 1]) for k, (t, f) in series.items()}
    return [(f, r) for _, f, r in oracles.obvious_track(times, early)]
