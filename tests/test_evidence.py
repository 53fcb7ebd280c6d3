"""Controls and quality in words: what is not supported is said, and said as a warning."""

from __future__ import annotations

from dataclasses import replace

import fake_results as fake
from grevy.report.evidence import cautions, controls_said, methods, quality_said, tables
from grevy.results import Controls, Quality

RESULTS = fake.movies()[0]
CONTROLS, QUALITY = RESULTS.controls, RESULTS.quality
GAPS = fake.above_chance()
NAN = float("nan")


def test_every_control_has_a_sentence() -> None:
    said = " ".join(controls_said(CONTROLS, GAPS))
    names = ", ".join(f"'{m}'" for m in fake.MOVIES[:3])
    for words in (
        f"not shown to tell more of frames than running and pupil alone for 3 of 12 stimuli "
        "that are decoded better than chance "
        f"({names}), on the 90% of samples",
        "better than chance for 2 of 12 stimuli",
        f"For '{fake.MOVIES[1]}' nothing is shown beyond that clock",
        "For 1 of 12 stimuli errors grow with the number of repeats",
        "Of frames, 'VISp' (for 1 of 2 stimuli) tells more and 'CA1' (for all 2 stimuli) tells "
        "less than as many channels drawn from all regions (12 each).",
        "Of the stimulus, 'CA1' tells less than as many channels drawn",
        "108000 samples of the moment are worth about 900 independent ones",
        "stimulus was not decoded from behaviour alone",
    ):
        assert words in said, words


def test_good_news_is_said_as_such() -> None:
    (behaviour,) = CONTROLS.behaviour
    better = tuple(replace(d, better="embedding") for d in behaviour.differences)
    still = tuple(replace(d, p=0.5) for d in CONTROLS.drifts)
    quiet = tuple(replace(c, clock_low=-1.0) for c in CONTROLS.clocks)
    whole = replace(behaviour, share=1.0, differences=better)
    said = " ".join(controls_said(Controls((whole,), quiet, still), GAPS))
    assert "alone for all 12 stimuli that are decoded better than chance: what the animal" in said
    assert "no clock since the onset was found" in said
    assert "not shown to grow" in said
    assert cautions(Controls((whole,), quiet, still), QUALITY, GAPS) == []


def test_where_no_score_is_better_than_chance_behaviour_has_nothing_to_explain() -> None:
    said = controls_said(CONTROLS, [g for g in GAPS if g.stimulus in fake.MOVIES[2:4]])
    assert f"for 1 of 2 stimuli that are decoded better than chance ('{fake.MOVIES[2]}')" in said[0]
    assert not any("pupil" in line for line in controls_said(CONTROLS, []))
    assert not any("pupil" in line for line in cautions(CONTROLS, QUALITY, []))


def test_what_takes_away_from_scores_is_a_caution() -> None:
    said = cautions(CONTROLS, QUALITY, GAPS)
    assert [w.split()[0] for w in said] == ["The", "A", "The"]
    assert "not shown to tell more of frames" in said[0]
    assert f"may explain the score of '{fake.MOVIES[1]}'" in said[1]
    assert "samples of the stimulus are worth 15" in said[2]
    bits, seeds = QUALITY.bits, QUALITY.consistency
    assert bits is not None
    assert seeds is not None
    poor = replace(
        QUALITY, bits=replace(bits, gain_low=-0.1), consistency=replace(seeds, value=0.1)
    )
    said = cautions(Controls(), poor, GAPS)
    assert "not shown to exceed those of unrelated channels" in said[0]
    assert "Seeds agree no better than they do by chance" in said[1]


def test_quality_is_told_beside_what_chance_gives() -> None:
    said = quality_said(QUALITY)
    assert "2.1 bits above chance, beside 1 for 19 surrogates with unrelated channels" in said[0]
    assert "R² of 0.883 (95 % interval 0.8 to 0.96), beside 0.2 for 19 surrogates" in said[1]
    assert "4.1 of its 8 dimensions, the activity over 6.2 of 41 (15.3 with" in said[2]
    assert "not shown to be one loop" in said[3]
    assert "p = 0.05" in said[0]
    seeds = QUALITY.consistency
    assert seeds is not None
    few = replace(QUALITY, null="labels", consistency=replace(seeds, n_nulls=1))
    assert "1 shuffle of the labels that the encoder learnt (no p value below 19" in " ".join(
        quality_said(few)
    )
    none = replace(seeds, n_nulls=0, null_mean=NAN, p=NAN, low=NAN, high=NAN)
    said = quality_said(Quality(consistency=none))
    assert "with an R² of 0.883; no null stands beside it" in said[0]


def test_tables_hold_the_numbers_and_p_values_only_where_they_can_be_small() -> None:
    found = tables(CONTROLS, QUALITY)
    behaviour, clocks, drifts, regions = found["controls"]
    assert len(behaviour.lines) == len(clocks.lines) == len(drifts.lines) == 12
    assert behaviour.lines[0][1][-1] == "undecided"
    assert [line[1][-1] for line in clocks.lines[:3]] == [
        "clock and more", "clock alone?", "no clock",
    ]  # fmt: skip
    assert drifts.lines[0][1][2] == "7"
    assert "12 channels of each region, and of 12 drawn from all (5 draws)" in regions.caption
    assert [(line[0], line[1][-1]) for line in regions.lines] == [
        ("VISp", "more"), ("CA1", "less"), ("VISp", "undecided"), ("CA1", "less"),
        ("VISp", "undecided"), ("CA1", "less"),
    ]  # fmt: skip
    assert regions.lines[0][1] == (
        f"frame: {fake.MOVIES[0]}", "median error (s)", "2.00 (1.00 to 3.00)", "4.00", "7.50",
        "−2.00 (−3.00 to −1.00)", "more",
    )  # fmt: skip
    (quality,) = found["quality"]
    assert quality.lines[0] == ("held-out bits", ("2.1", "1.9 to 2.3", "1", "0.05"))
    bits = QUALITY.bits
    assert bits is not None
    few = tables(Controls(), Quality(bits=replace(bits, surrogates=(1.0,))))
    assert few["controls"] == []
    assert few["quality"][0].lines[0][1][3] == "–"


def test_a_region_differs_beyond_its_interval_and_beyond_the_draws() -> None:
    row = CONTROLS.regions[0]
    for changed in (
        replace(row, difference_high=0.1),  # over repeats it may be none
        replace(row, random_low=1.5),  # as good a draw from all is not rare
        replace(row, difference_low=NAN, difference_high=NAN),
        replace(row, random=NAN, random_low=NAN, random_high=NAN),
    ):
        rows = (changed, *CONTROLS.regions[2:4])
        (said,) = [w for w in controls_said(Controls(regions=rows), GAPS) if "frames" in w]
        assert said == (
            "No region is shown to tell more or less of frames than as many channels drawn from "
            "all regions (12 each)."
        )


def test_methods_name_what_was_done_and_nothing_else() -> None:
    (text,) = methods(CONTROLS, QUALITY)
    for words in (
        "(pupil, running)",
        "999 other orders",
        "19 surrogates",
        "3 seeds",
        "ripser",
        "windows of 12 channels of each region",
    ):
        assert words in text
    assert methods(Controls(), Quality()) == []
    (text,) = methods(Controls(sizes=CONTROLS.sizes), Quality())
    assert text == (
        "Effective sample sizes are n over the integrated autocorrelation time (Geyer 1992)."
    )
