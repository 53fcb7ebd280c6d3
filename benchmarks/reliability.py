"""Run what the promises about files, faults and hostile input stand on; write docs/reliability.md.

    python benchmarks/reliability.py [--only T4 T19] [--dry]

Each promise names its tests. They are run by pytest, and what pytest writes down is counted: a case
counts once, or as often as the test says it tried ("cases"). Longer work is not run again; its
newest kept result is read (benchmarks/results: faults-*, fuzz-*, large-*, streaming-*). The tables
stand between marks of the page, and nothing there is written by hand. Fails if a promise is broken.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOME = Path(__file__).parents[1]
PAGE = HOME / "docs" / "reliability.md"
SUMMARY = "<!-- summary: made by benchmarks/reliability.py -->", "<!-- end of summary -->"
TABLE = "<!-- promises: made by benchmarks/reliability.py -->", "<!-- end of promises -->"
KINDS = {
    "fault": "faults injected",
    "input": "bad inputs tried",
    "payload": "attempts to run code or to leave the folder",
    "check": "other checks",
}


@dataclass(frozen=True)
class Count:
    """How often something was tried, how often it held, what could not be run here."""

    tried: int = 0
    held: int = 0
    skipped: int = 0
    lost_bytes: int = 0

    def __add__(self, other: Count) -> Count:
        mine, theirs = vars(self).values(), vars(other).values()
        return Count(*(a + b for a, b in zip(mine, theirs, strict=True)))


Kept = Callable[[], tuple[str, str, Count]]
"""A kept result: the kind of what was tried, the result in words, the counts."""


@dataclass(frozen=True)
class Promise:
    """What must hold, and the tests it stands on, "file::name" by kind, without "test_"."""

    key: str
    says: str
    check: str = ""
    fault: str = ""
    input: str = ""
    payload: str = ""
    kept: tuple[Kept, ...] = field(default=())

    def tests(self) -> dict[str, str]:
        """Kind of each test, by its full name."""
        found = {}
        for kind in KINDS:
            for word in getattr(self, kind).split():
                file, name = word.split("::")
                found[f"tests/test_{file}.py::test_{name}"] = kind
        return found


# --- Kept results ---------------------------------------------------------------------------------


def newest(stem: str) -> Any:
    """The result that was kept last, None where there is none."""
    found = sorted((HOME / "benchmarks" / "results").glob(f"{stem}-20*.json"))
    return json.loads(found[-1].read_text()) if found else None


def killed() -> tuple[str, str, Count]:
    """Commands that were killed (`make faults`)."""
    told = newest("faults")
    if told is None:
        return "fault", "", Count(skipped=1)
    rows = told["rows"]
    kills = sum(row["kills"] for row in rows)
    lost = sum(row["lost_bytes"] for row in rows)
    compared = sum(row["compared_bytes"] for row in rows)
    each = ", ".join(f"{row['command']} {row['kills']}" for row in rows)
    words = f"{each} kills; {compared:,} bytes compared, {lost} lost ({told['date']})"
    return "fault", words, Count(kills, kills if lost == 0 else 0, 0, lost)


def fuzzed() -> tuple[str, str, Count]:
    """Mutated recordings (`make fuzz`)."""
    told = newest("fuzz")
    if told is None:
        return "input", "", Count(skipped=1)
    outcomes = told["outcomes"]
    good = sum(outcomes.get(kind, 0) for kind in ("value", "refused", "apart"))
    words = (
        f"{sum(outcomes.values()):,} mutated recordings: {outcomes.get('value', 0):,} read, "
        f"{outcomes.get('refused', 0):,} refused, {outcomes.get('apart', 0)} that HDF5 looped or "
        f"died on, slowest {told['slowest_s']} s, {told['most_memory_mb']} MB ({told['date']})"
    )
    return "input", words, Count(sum(outcomes.values()), good)


def large() -> tuple[str, str, Count]:
    """A recording as large as the memory (benchmarks/large.py)."""
    rows = newest("large")
    if rows is None:
        return "check", "", Count(skipped=1)
    held = sum(row["private_gb"] < row["limit_gb"] for row in rows)
    words = "; ".join(
        f"{row['file_gb']:.1f} GB as {row['format']} under {row['limit_gb']:g} GB: fitted and "
        f"embedded with {row['private_gb']:.2f} GB"
        for row in rows
    )
    return "check", f"{words} ({rows[0]['date']})", Count(len(rows), held)


def streamed() -> tuple[str, str, Count]:
    """What opening a recording over the network costs (benchmarks/streaming.py)."""
    told = newest("streaming")
    if told is None:
        return "check", "", Count(skipped=1)
    rows = [row for row in told["rows"] if row["reader"] == "grevy"]
    held = sum(row["requests"] <= 60 and row["mb"] <= 60 for row in rows)
    words = "; ".join(
        f"{row['what']} {row['file_mb']:.0f} MB: {row['requests']} requests, {row['mb']} MB"
        for row in rows
    )
    return "check", f"{words} ({told['date']})", Count(len(rows), held)


# --- The promises ---------------------------------------------------------------------------------

PROMISES = (
    Promise(
        "T1", "A saved model comes back bit for bit, in under 50 ms; no file is a pickle",
        check="""store::round_trip_is_bit_equal store::a_file_costs_under_50_milliseconds
        store::the_file_is_safetensors_and_says_what_it_is grid_search::no_pickles
        hostile_run::no_file_of_a_run_is_a_pickle""",
    ),
    Promise(
        "T2", "Models, pickles, joblib and torch files that carry code are refused and run nothing",
        payload="""store::nothing_in_a_file_is_ever_executed restricted::nothing_is_executed
        restricted::hostile_torch_archives checkpoints::a_hostile_model_runs_nothing
        loading::code_is_never_run settings::no_module_runs_text_or_unpickles""",
        check="restricted::the_hostile_pickles_do_work",
    ),
    Promise(
        "T3", "Forged headers, tensors and sizes are refused before memory is taken",
        input="""store::a_changed_header_is_refused store::changed_tensors_are_refused
        store::notes_that_fit_no_run_are_refused store::a_pipe_is_no_model
        store::a_file_is_read_once_its_header_fits_and_there_is_room
        store::a_file_cut_short_anywhere_is_refused store::no_change_of_a_byte_raises_anything_else
        restricted::declared_sizes_are_checked restricted::damage_gives_a_sentence
        report::changed_results_are_refused_with_the_place report::changed_arrays_are_refused
        report::arrays_with_false_sizes_are_refused_before_they_are_made""",
    ),
    Promise(
        "T4", "Files of every format version are read bit for bit; a newer one says to upgrade",
        check="saved::every_version_is_kept_and_small saved::models saved::checkpoints "
        "saved::grids saved::results",
        input="saved::the_next_version_is_refused_with_a_hint",
    ),
    Promise(
        "T5", "Killed at any instant, the same command goes on and ends with the same bytes",
        fault="""interrupted::killed_at_random_instants_they_end_with_the_same_bytes
        pipeline::interrupted_at_any_time_it_ends_as_if_it_had_not_been
        unfinished::the_end_is_the_same_to_the_last_bit
        unfinished::sessions_shapes_and_other_company_go_on_too
        unfinished::going_on_and_adapting_go_on grid_search::an_interrupted_grid_goes_on
        unfinished::what_cannot_be_trusted_is_said_and_trained_anew
        model_cli::a_fit_that_was_killed_after_its_last_step_ends_but_overwrites_no_other_model""",
        kept=(killed,),
    ),
    Promise(
        "T6", "A disk that is full, read-only or forbidden: one sentence, the last good file stays",
        fault="""atomic::whatever_the_disk_refuses_the_old_file_stays
        atomic::a_checkpoint_that_cannot_be_written_leaves_the_one_before
        atomic::a_full_and_a_read_only_disk_are_one_sentence
        store::an_error_leaves_the_old_file_and_no_other store::a_failing_disk_leaves_the_old_file
        report::a_failed_write_leaves_the_old_file_and_nothing_else
        room::a_full_disk_is_said_before_anything_is_written
        dandi::a_disk_that_is_too_small_is_told_before dandi::a_disk_that_fails_half_way""",
    ),
    Promise(
        "T7", "Of two processes on one output one wins, the other says who holds it",
        fault="""locks::the_holder_is_named_and_its_death_frees_the_lock
        locks::an_error_frees_it_too
        locks::a_lock_that_was_removed_meanwhile_is_taken_anew
        pipeline::a_folder_in_use_says_by_whom grid_search::one_process_at_a_time_works_in_a_folder
        locks::the_lock_of_another_user_says_whose_it_is_and_falls_with_its_holder
        export::two_exports_at_once_do_not_harm_one_another
        export::what_takes_the_name_meanwhile_is_not_written_over
        model_cli::of_two_fits_to_one_file_one_wins dandi::two_processes_do_not_meet""",
    ),
    Promise(
        "T8", "A signal to end is heard: the state is written and the process gone within 5 s",
        fault="""dandi::a_command_that_waits_for_hdf5_ends_when_it_is_told_to
        signals::a_signal_comes_at_the_end_of_the_block signals::a_second_one_does_not_wait
        signals::a_program_ends_in_time_whatever_it_does
        unfinished::a_signal_is_heard_once_the_state_is_written""",
    ),
    Promise(
        "T9", "One seed gives the same bits on a CPU, in any process, with any number of threads",
        check="""pipeline::the_same_run_gives_the_same_numbers
        training::equal_configs_equal_weights_and_another_seed_others
        training::the_number_of_threads_changes_no_bit
        training::alone_is_the_same_as_in_a_grid_bit_for_bit
        contract::cuda_trains_as_the_cpu_does""",
    ),
    Promise(
        "T10", "Tables do not depend on workers or on the order of the work",
        check="""grid_search::the_table_depends_on_neither_order_nor_threads
        training::order_and_company_do_not_matter
        grid_search::every_model_is_the_one_that_fit_makes""",
    ),
    Promise(
        "T11", "A recording with something wrong: one sentence in 5 s, or told what was done",
        input="""malformed::a_command_ends_in_one_sentence
        malformed::what_is_read_with_something_wrong_is_told
        nwb_activity::axes_that_nothing_decides_are_refused
        nwb_activity::orientation_and_one_timestamp_off nwb_activity::no_usable_clock
        nwb_activity::timestamps_that_do_not_increase nwb_activity::no_cell_accepted
        nwb_units::spikes_that_are_wrong nwb_units::invalid_times_are_left_out
        nwb_labels::index_series nwb_labels::wrong_clock_of_a_label
        stimulus::bad_tables_are_refused stimulus::every_unusable_stimulus_has_its_reason""",
        check="""nwb_activity::rate_conversion_and_offset nwb_activity::number_types
        nwb_activity::linked_timestamps nwb_units::observed_time_of_units
        stimulus::rows_of_an_interval_table_may_come_in_any_order""",
    ),
    Promise(
        "T12", "Values that are not finite are refused with their place; what else is asked for",
        input="""nwb_activity::nan_policies
        nwb_activity::long_and_outer_gaps_are_not_interpolated
        nwb_activity::a_mask_changes_nothing_of_whole_traces_and_refuses_what_it_leaves_nothing_of""",
        check="nwb_activity::samples_are_masked",
    ),
    Promise(
        "T13", "Data and links outside of a recording are refused",
        payload="""nwb_hostile::links_to_other_files_are_refused
        nwb_hostile::bytes_of_other_files_are_refused
        nwb_hostile::virtual_datasets_of_other_files_are_refused
        nwb_hostile::tables_without_a_name_are_refused
        loading::hdf5_stays_within_its_file loading::tables_of_hdf5_stay_within_their_file""",
        check="""nwb_hostile::external_data_are_for_who_asks_for_them
        nwb_hostile::a_run_reads_external_data_if_its_caller_says_so
        nwb_hostile::allowed_links_may_go_round_or_nowhere""",
    ),
    Promise(
        "T14", "What declares far more than it stores, or than there is, is refused before reading",
        input="""nwb_hostile::size_bombs_are_refused_before_reading
        nwb_hostile::a_bomb_among_the_words_is_refused
        nwb_hostile::a_chunk_that_unpacks_to_much_more_is_refused
        nwb_hostile::a_chunk_larger_than_memory_is_refused
        loading::archives_that_unpack_without_end_are_refused_by_their_headers
        loading::a_packed_stream_without_end_is_refused_early
        loading::what_does_not_fit_into_memory_is_put_on_disk_or_refused
        loading::too_little_memory_is_no_damage loading::pipes_are_not_waited_for
        nwb_hostile::what_no_disk_holds_is_refused_before_reading
        nwb_hostile::timestamps_larger_than_memory_are_refused
        loading::sizes_are_checked_before_memory_is_taken
        loading::chunks_are_no_larger_than_their_content
        loading::lists_and_groups_that_unfold_without_end
        restricted::copies_of_one_part_are_bounded""",
        check="""loading::honest_constants_are_read_and_once
        loading::shapes_are_read_from_headers_alone""",
    ),
    Promise(
        "T15", "Mutated files: no crash, no hang over 30 s, no traceback, under 2 GB",
        input="""fuzz::mutated_recordings_are_values_or_one_sentence fuzz::what_broke_once
        fuzz::a_file_that_hdf5_hangs_on_is_one_sentence fuzz::commands_do_not_hang
        fuzz::other_files_that_hdf5_hangs_on_are_one_sentence fuzz::limits_of_the_process_apart
        dandi::what_hdf5_dies_on_afar_is_one_sentence
        fuzz::any_arrays_may_be_traces fuzz::any_arrays_may_be_tables
        fuzz::any_arrays_may_be_asked_to_be_a_recording nwb_hostile::damage_is_one_sentence
        loading::damage_gives_a_sentence checkpoints::damage_gives_a_sentence""",
        check="fuzz::the_harness_notices",
        kept=(fuzzed,),
    ),
    Promise(
        "T16", "Names in a file never become paths outside the folder of the run",
        payload="""hostile_run::nothing_is_written_outside_the_folder_of_the_run
        hostile_run::names_of_models_become_names_of_files
        hostile_run::all_names_are_told_apart dandi::names_stay_in_their_folder
        locks::what_else_bears_the_name_of_a_lock_is_refused_untouched
        atomic::a_line_is_never_put_behind_half_of_one_nor_into_what_a_link_names
        dandi::names_of_any_text_stay_in_their_folder dandi::different_hostile_names_do_not_meet
        dandi::paths_and_digests_of_the_server_stay_inside""",
    ),
    Promise(
        "T17", "No text of a file becomes markup or script; a report asks the network for nothing",
        payload="""report::no_string_of_a_run_becomes_markup
        report::no_name_becomes_markup_in_figures_or_the_live_view
        report::the_policy_stops_what_would_slip_through
        hostile_run::the_report_holds_no_markup_of_the_file
        report::a_browser_draws_the_live_view_and_complains_of_nothing""",
        check="""report::the_checks_notice_a_payload_that_is_not_escaped
        report::the_policy_knows_each_inline_text_and_nothing_else""",
    ),
    Promise(
        "T18", "Formulas, format strings, mathematics and escapes of terminals are only text",
        payload="""report::format_strings_and_mathematics_are_only_text
        report::control_characters_are_shown_as_such report::sheets_find_no_formula_in_the_scores
        hostile_run::sheets_and_the_terminal_get_no_commands
        nwb_hostile::text_of_the_file_cannot_steer_the_terminal
        restricted::names_in_a_message_are_printable loading::names_in_a_message_are_printable""",
    ),
    Promise(
        "T19", "Settings are data: unknown ones are named with the nearest, none is run",
        payload="settings::settings_run_nothing nwb_units::conditions_that_are_none",
        input="settings::wrong_settings_are_named settings::a_file_that_is_not_toml_is_named",
        check="settings::the_hostile_settings_do_work",
    ),
    Promise(
        "T20", "A bad network costs time, or ends in one sentence; wrong bytes never stay",
        fault="""dandi::trouble_that_passes dandi::trouble_that_does_not_pass
        dandi::the_api_may_stumble dandi::an_api_that_is_none_is_told_at_once
        dandi::a_server_that_asks_to_wait_is_waited_for
        dandi::a_server_that_stays_down_is_left_after_some_tries
        dandi::a_server_that_drips_is_left dandi::answers_of_the_api_end_in_time
        dandi::odd_facts_are_refused dandi::odd_lists_are_refused
        dandi::wrong_bytes_are_never_kept dandi::content_replaced_half_way_is_never_mixed
        dandi::content_that_changed_is_seen_before_all_of_it_is_there
        dandi::streaming_through_trouble dandi::streaming_fails_as_a_matter_of_the_network
        dandi_folders::trouble_that_passes dandi_folders::trouble_that_does_not_pass
        dandi_folders::the_list_comes_through_trouble dandi_folders::wrong_bytes_are_never_kept
        dandi_folders::a_folder_that_changes_on_its_way
        dandi_folders::a_failure_does_not_wait_for_the_others""",
        input="""dandi_folders::a_list_that_is_wrong_costs_no_byte
        dandi_folders::a_list_without_end_ends""",
        payload="""dandi::the_key_goes_to_the_api_alone_and_into_no_text
        dandi::the_api_must_be_https dandi_folders::no_name_leads_out_of_the_folder
        dandi_folders::links_in_what_is_there_are_not_followed""",
    ),
    Promise(
        "T21", "A download goes on where it ended, trusts nothing unchecked, fetches nothing twice",
        fault="""dandi::a_killed_download_goes_on dandi::the_part_of_another_digest_is_discarded
        dandi::a_file_that_is_there_is_not_trusted_and_not_lost
        dandi::nothing_is_written_through_what_lies_in_the_place_of_a_part
        dandi_folders::a_killed_download_goes_on
        dandi_folders::the_part_of_another_state_is_discarded
        dandi_folders::a_folder_that_is_there_is_not_trusted_and_not_lost""",
        check="""dandi::download_and_a_second_run_that_fetches_nothing
        dandi::every_byte_is_fetched_once dandi_folders::what_is_there_is_not_fetched_again
        dandi_folders::download_and_a_second_run_that_fetches_nothing
        dandi_folders::the_checksum_is_that_of_the_format""",
    ),
    Promise(
        "T22", "To open 343 MB and read traces and stimuli takes at most 60 MB and 60 requests",
        check="dandi::streaming_reads_what_is_needed dandi::blocks_read_as_the_file_does",
        kept=(streamed,),
    ),
    Promise(
        "T23", "1,000,000 samples of 1,000 channels are fitted and embedded under 4 GB, or refused",
        check="""room::large_arrays_lie_on_disk_and_leave_nothing
        room::nwb_files_larger_than_memory_are_read room::hdf5_files_larger_than_memory_are_read
        memory::the_prediction_is_within_a_factor_of_two
        memory::more_than_there_is_is_refused_before_it_is_taken
        staging::the_estimator_takes_a_mapped_array""",
        kept=(large,),
    ),
    Promise(
        "T24", "A full GPU: smaller chunks for embedding and neighbours, advice for training",
        fault="""chunks::embedding_halves_its_chunks chunks::neighbours_halve_their_chunks
        chunks::not_even_one_is_one_sentence
        unfinished::memory_that_runs_out_in_training_is_advice""",
    ),
    Promise(
        "T25", "Neighbours of 100,000 among 100,000 take less than 512 MB",
        check="""decode::neighbours_of_100_000_queries_take_under_512_megabytes
        decode::predictions_hold_few_neighbours_at_once""",
    ),
    Promise(
        "T26", "Help and import load nothing heavy; the doctor passes",
        check="""surface::import_and_help_are_light
        surface::a_bad_recording_is_refused_before_what_decodes_and_draws_is_loaded
        doctor::it_passes_here
        doctor::what_fails_is_said_and_is_no_success""",
    ),
)  # fmt: skip


# --- Running and counting -------------------------------------------------------------------------


def absent(promises: Iterable[Promise] = PROMISES) -> list[str]:
    """Tests that a promise names and that are not there."""
    there: dict[str, set[str]] = {}
    missing = []
    for name in (n for promise in promises for n in promise.tests()):
        file, test = name.split("::")
        if file not in there:
            path = HOME / file
            tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
            there[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if test not in there[file]:
            missing.append(name)
    return missing


def ran(names: Sequence[str]) -> dict[str, Count]:
    """Run tests; what became of the cases of each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "told.xml"
        words = ["-q", "-m", "slow or not slow", "-o", "junit_family=xunit1", f"--junitxml={file}"]
        subprocess.run([sys.executable, "-m", "pytest", *words, *names], cwd=HOME, check=False)
        return counted(file)


def counted(file: Path) -> dict[str, Count]:
    """The cases of each test, from what pytest writes down."""
    found: dict[str, Count] = {}
    for case in ElementTree.parse(file).iter("testcase"):
        module, test = case.get("classname", ""), case.get("name", "").partition("[")[0]
        name = f"{module.replace('.', '/')}.py::{test}"
        told = {p.get("name"): p.get("value") for p in case.iter("property")}
        n = int(told.get("cases") or 1)
        failed = any(case.find(kind) is not None for kind in ("failure", "error"))
        skipped = case.find("skipped") is not None
        one = Count(skipped=1) if skipped else Count(n, 0 if failed else n)
        found[name] = found.get(name, Count()) + one
    return found


def judged(
    promises: Sequence[Promise], cases: dict[str, Count]
) -> tuple[list[str], dict[str, Count], list[str]]:
    """Rows of the table, the sums of each kind, and the promises that are broken."""
    rows, sums, broken = [], {kind: Count() for kind in KINDS}, []
    for promise in promises:
        whole, words = Count(), []
        for name, kind in promise.tests().items():
            one = cases.get(name, Count(1))  # a test that did not even start holds nothing
            whole, sums[kind] = whole + one, sums[kind] + one
        for kept in promise.kept:
            kind, said, one = kept()
            whole, sums[kind] = whole + one, sums[kind] + one
            words += [said] if said else []
        verdict = "held" if whole.held == whole.tried else "BROKEN"
        if verdict == "BROKEN":
            broken.append(promise.key)
        not_run = f"{whole.skipped}" if whole.skipped else ""
        cells = [promise.key, promise.says, f"{whole.tried:,}", f"{whole.held:,}", not_run, verdict]
        rows.append("| " + " | ".join([*cells, "; ".join(words)]) + " |")
    return rows, sums, broken


def summary(sums: dict[str, Count]) -> list[str]:
    """What came of all of it, in seven numbers."""
    fault, bad, payload = sums["fault"], sums["input"], sums["payload"]
    lines = ["| | |", "|---|---|"]
    for what, n in (
        ("faults injected", fault.tried),
        ("survived", fault.held),
        ("bytes lost, of those compared after kills", fault.lost_bytes),
        ("bad inputs tried", bad.tried),
        ("a value, or one clear sentence", bad.held),
        ("attempts to have code run, markup drawn, a path or key let out", payload.tried),
        ("of these that worked", payload.tried - payload.held),
    ):  # fmt: skip
        lines.append(f"| {what} | {n:,} |")
    return lines


def put(text: str, marks: tuple[str, str]) -> None:
    """Write text between two marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    at, until = page.index(marks[0]) + len(marks[0]), page.index(marks[1])
    PAGE.write_text(f"{page[:at]}\n{text}\n{page[until:]}", encoding="utf-8")


def main() -> None:
    """What `make reliability` runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[p.key for p in PROMISES])
    parser.add_argument("--dry", action="store_true", help="print, and leave the page as it is")
    options = parser.parse_args()
    promises = [p for p in PROMISES if not options.only or p.key in options.only]
    missing = absent(promises)
    if missing:
        raise SystemExit(f"promises stand on tests that are not there: {', '.join(missing)}")
    names = list(dict.fromkeys(n for promise in promises for n in promise.tests()))
    # Tests send it; a shell that starts this in the background has it ignored by all that follow.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows, sums, broken = judged(promises, ran(names))
    real = "with" if os.environ.get("GREVY_DATA") else "without"
    head = "| | what must hold | tried | held | not run here | | kept results |"
    date = datetime.now(UTC).date().isoformat()
    made = (
        f"Made on {date}: {len(names)} tests, {platform.system()} on {platform.machine()}, "
        f"Python {platform.python_version()}, {real} real recordings."
    )
    tables = "\n".join([*summary(sums), "", made]), "\n".join([head, "|---" * 7 + "|", *rows])
    if options.dry or options.only:
        print("\n\n".join(tables))
    else:
        put(tables[0], SUMMARY)
        put(tables[1], TABLE)
        print(PAGE)
    raise SystemExit(f"broken: {', '.join(broken)}" if broken else 0)


if __name__ == "__main__":
    main()
