"""The page: nothing from a file becomes markup, nothing is left unsaid, nothing half written."""

from __future__ import annotations

import base64
import csv
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_results as fake
from grevy.errors import FormatError
from grevy.report import figures, saved
from grevy.report import page as report
from grevy.report.checklist import checklist
from grevy.report.evidence import controls_said, quality_said
from grevy.report.numbers import Scale
from grevy.results import EmbeddingArrays, Results

DPI = 40
PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "x onclick=alert(1) ",
    "<a href=javascript:alert(1)>x</a>",
    '<a href="JaVaScRiPt:alert(1)">x</a>',
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "javascript:alert(1)",
    "<iframe src=//example.org></iframe>",
    "<object data=//example.org></object>",
    "<embed src=//example.org>",
    "<link rel=stylesheet href=//example.org>",
    "<meta http-equiv=refresh content='0;url=//example.org'>",
    "<base href=//example.org>",
    "<form action=//example.org><input type=submit></form>",
    "<style>*{background:url(//example.org)}</style>",
    "<div style='background:url(//example.org)'>x</div>",
    "<!--<script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "{{ 7*7 }}{% raw %}{{ config }}",
    "${alert(1)}`-alert(1)-`\u2028alert(1)//",
    "\x00<scr\x00ipt>alert(1)</scr\x00ipt>",
)
TAGS = """
html head meta title style body header p h1 nav ol li a main section ul div h2 h3 b i figure img
figcaption table caption thead tbody tr th td small wbr details summary dl dt dd pre code footer
template script
"""


class Page(html.parser.HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.words: list[str] = []
        self._raw = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag if tag in ("script", "style") else ""
        if self._raw:
            self.inside.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""
        if tag in ("td", "th", "dt", "dd", "li", "p", "caption"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if self._raw:
            tag, text = self.inside[-1]
            self.inside[-1] = (tag, text + data)
        else:
            self.words.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def unknown_decl(self, data: str) -> None:
        self.comments.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for t, attributes in self.elements if t == tag]


def strangers(page: Page, *, scripts: int) -> list[str]:
    """Everything on a page that grevy did not put there."""
    found = [f"<{t}>" for t, _ in page.elements if t not in TAGS.split()] + page.comments
    for tag, attributes in page.elements:
        for key, value in attributes.items():
            text = (value or "").strip().lower()
            known = text.startswith(("#", "https://doi.org/10.1038/"))
            bad = key.startswith("on") or key in ("style", "srcdoc", "action", "formaction")
            bad |= key == "href" and not known
            bad |= key == "src" and not text.startswith("data:image/png;base64,")
            found += [f"{tag} {key}={text[:60]}"] if bad else []
    if [t for t, _ in page.inside] != ["style"] + ["script"] * scripts:
        found.append(f"inline: {[t for t, _ in page.inside]}")
    policies = [m for m in page.named("meta") if m.get("http-equiv")]
    return found + ([] if len(policies) == 1 else ["more than one policy"])


def poisoned(value: Any, turn: Callable[[str], str], *, kept: frozenset[str] = frozenset()) -> Any:
    """A copy in which every string was replaced."""
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: poisoned(getattr(value, f.name), turn, kept=kept) for f in fields(value)}
        return replace(value, **changed)
    match value:
        case str():
            return value if value in kept else turn(value)
        case tuple() | list():
            return type(value)(poisoned(v, turn, kept=kept) for v in value)
        case dict():
            return {turn(k): poisoned(v, turn, kept=kept) for k, v in value.items()}
    return value


def payload_of(shift: int) -> Callable[[str], str]:
    seen: dict[str, str] = {}

    def turn(text: str) -> str:
        if text not in seen:
            n = len(seen)
            seen[text] = f"{PAYLOADS[(n + shift) % len(PAYLOADS)]}{n}"
        return seen[text]

    return turn


def render(results: Results, embedding: EmbeddingArrays | None = None) -> Page:
    return Page(report._page(results, embedding, figures.draw(results, embedding, dpi=DPI)))


KEPT = frozenset(
    {*fake.METHODS, "frame", "stimulus", "accuracy", "r2", "median error", "baseline", "undecided"}
)


def small(results: Results) -> Results:
    """Only what is about the first two movies."""
    names = fake.MOVIES[:2]
    return replace(
        results,
        stimuli=results.stimuli[:2] + results.stimuli[-2:],
        scores=tuple(r for r in results.scores if r.stimulus in (*names, "")),
        differences=tuple(d for d in results.differences if d.stimulus in (*names, "")),
    )


@pytest.fixture(scope="module")
def movies(tmp_path_factory) -> tuple[Path, str, Results, EmbeddingArrays]:
    out = tmp_path_factory.mktemp("run") / "deep" / "folder"
    results, arrays = fake.movies()
    path = report.write_report(out, results, arrays, dpi=DPI)
    return out, path.read_text(encoding="utf-8"), results, arrays


# Safety


@pytest.mark.parametrize("payload", PAYLOADS[:29])
def test_the_checks_notice_a_payload_that_is_not_escaped(payload):
    if "<" not in payload:
        quote = "'" if payload[0] == "'" else '"'
        payload = f"<a {payload if payload[0] == 'x' else f'href={quote}{payload}{quote}'}>x</a>"
    page = '<meta http-equiv="Content-Security-Policy"><style></style>'
    assert strangers(Page(page), scripts=0) == []
    assert strangers(Page(page + payload), scripts=0)


@pytest.mark.parametrize("shift", range(len(PAYLOADS)))
def test_no_string_of_a_run_becomes_markup(shift):
    for kept in (frozenset[str](), KEPT):
        results = poisoned(small(fake.movies()[0]), payload_of(shift), kept=kept)
        results = replace(
            results, traces=(poisoned(fake.labels()[0], payload_of(shift)).traces[0],)
        )
        page = Page(report._page(results, None, []))
        assert strangers(page, scripts=0) == []
        shown = " ".join(report._visible(results.warnings[0]).split())
        assert shown in page.text


@pytest.mark.parametrize("shift", [0, 11, 22])
def test_no_name_becomes_markup_in_figures_or_the_live_view(shift):
    turn = payload_of(shift)
    results, arrays = fake.movies()
    results = poisoned(small(results), turn, kept=KEPT)
    page = render(results, replace(arrays, names=tuple(turn(n) for n in arrays.names)))
    assert strangers(page, scripts=3) == []
    data = next(text for tag, text in page.inside if tag == "script")
    assert not set(data) & set("<>&\u2028\u2029")
    for trace in json.loads(data)["data"]:  # plotly takes some HTML in names for markup
        assert "<" not in trace["name"]
        assert set(re.findall(r"<[^>]*>", " ".join(trace["text"]))) <= {"<br>"}
    labelled, points = fake.labels()
    labelled = poisoned(labelled, turn, kept=KEPT)
    points = replace(points, labels={turn(k): v for k, v in points.labels.items()})
    assert strangers(render(labelled, points), scripts=3) == []


def test_the_policy_knows_each_inline_text_and_nothing_else(movies):
    page = Page(movies[1])
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv"))
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def known(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    texts = [text for tag, text in page.inside if tag == "script"]
    kinds = [m.get("type") for m in page.named("script")]
    assert kinds == ["application/json", None, None]
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [known(t) for t in texts[1:]]
    style = next(text for tag, text in page.inside if tag == "style")
    assert rules["style-src"].split() == [known(style), "'unsafe-hashes'", known("")]
    assert rules["img-src"] == "data:"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe-inline" not in policy
    first = min(i for i, (tag, _) in enumerate(page.elements) if tag in ("style", "script", "img"))
    where = next(i for i, (_, a) in enumerate(page.elements) if a.get("http-equiv"))
    assert where < first


def test_pages_without_a_live_view_run_no_script():
    page = render(fake.minimal())
    assert any("script-src 'none'" in str(m.get("content")) for m in page.named("meta"))
    assert page.named("script") == []


def test_format_strings_and_mathematics_are_only_text():
    words = r"$\frac{1}{0}$ {0.__class__} %s {{ 7*7 }}"
    page = render(replace(fake.minimal(), headline=(words,), title=words))
    assert page.text.count(words) == 3  # title, heading, finding
    assert "49" not in page.text


def test_control_characters_are_shown_as_such():
    page = render(replace(fake.minimal(), warnings=("\x1b[31mred\u202e\x00\ud800",)))
    assert "�[31mred���" in page.text


def test_sheets_find_no_formula_in_the_scores(tmp_path):
    results, _ = fake.movies()
    bad = ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "\n=1", "％", "|x")
    rows = tuple(replace(r, stimulus=b) for r, b in zip(results.scores, bad, strict=False))
    low = replace(rows[0], value=-0.5, low=float("nan"))
    saved.save_results(tmp_path, replace(results, scores=(*rows, low)), None)
    with open(tmp_path / "scores.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    for line in read:
        assert not line["stimulus"].lstrip().startswith(tuple("=+-@|\t\r"))
    assert read[0]["stimulus"] == "'" + bad[0]
    assert read[-1]["value"] == "-0.5"
    assert read[-1]["low"] == ""


# What the page says


def test_the_page_says_every_warning_finding_and_difference(movies):
    _, text, results, _ = movies
    page = Page(text)
    for line in (*results.headline, *results.warnings, *results.methods, *results.session.notes):
        assert line in page.text
    for d in results.differences:
        verdict = {"embedding": "embedding better by", "baseline": "embedding worse by"}
        assert verdict.get(d.better, "undecided") in page.text
        if d.metric == "median error":
            value = f"{d.value:+.2f}".replace("-", "−")
            assert f"{d.stimulus} {value}" in page.text
    rows = re.findall(r'class="text (embedding|baseline|undecided)"', text)
    assert len(rows) == len(results.differences)
    assert rows.count("baseline") == sum(d.better == "baseline" for d in results.differences)


def test_the_page_tells_each_stimulus_and_why_some_are_not_decoded(movies):
    page = Page(movies[1])
    for stimulus in movies[2].stimuli:
        assert stimulus.name in page.text
    assert page.text.count("no: never repeats") == len(fake.ALONE)
    assert "10.1038/s41586-023-06031-6" in page.text
    assert movies[2].command in page.text


def test_the_page_says_what_may_be_claimed(movies):
    _, text, results, _ = movies
    page = Page(text).text
    assert "What may be claimed" in page
    for c in results.claims:
        assert c.refused in page
    assert f"{fake.UNDRIVEN}. No claim: the population is not shown to follow it." in page
    assert page.count("and not the clock since its onset alone.") == 1
    assert page.count("cannot be told.") == 1
    assert all(f"{c.null_mean:.2f} (" in page for c in results.claims if c.claim == "time-locked")
    assert "p = 0.001" in page
    assert "What may be claimed" not in render(replace(results, claims=())).text


def test_the_page_says_controls_quality_and_the_checklist(movies):
    _, text, results, _ = movies
    page = Page(text).text
    for line in (
        *controls_said(results.controls, results.differences),
        *quality_said(results.quality),
        *(f"{item.answer.capitalize()}. {item.because}" for item in checklist(results)),
    ):
        assert line in page
    assert "doi:10.1088/1741-2552/adbfbd" in page
    assert f"{fake.MOVIES[1]} 2.00 5.00 7.50" in page
    nothing = render(fake.minimal()).text
    assert "No control was computed" in nothing
    assert "was not judged in this run" in nothing


def test_the_page_is_accessible_and_complete(movies):
    page = Page(movies[1])
    assert page.named("html")[0]["lang"] == "en"
    images = page.named("img")
    assert len(images) == len(list((movies[0] / "figures").glob("*.png")))
    assert all(len(str(i["alt"])) > 20 for i in images)
    assert all(400 <= int(str(i["width"])) <= 960 for i in images)
    assert all(t.get("scope") in ("col", "row") for t in page.named("th"))
    links = {str(a["href"])[1:] for a in page.named("a") if str(a["href"]).startswith("#")}
    ids = [str(a["id"]) for _, a in page.elements if "id" in a]
    assert links <= set(ids)
    assert len(ids) == len(set(ids))


def test_missing_parts_are_said_in_words():
    page = render(fake.minimal())
    for words in (
        "makes no claim",
        "No stimulus was decoded",
        "were not told from one another",
        "No embedding was kept",
        "No training curve",
        "Nothing was chosen by data",
        "has no stimulus",
    ):
        assert words in page.text
    assert page.named("img") == page.named("table") == []


def test_a_label_run_shows_its_labels():
    page = render(*fake.labels())
    assert "Decoding labels" in page.text
    assert "heading +0.040 +0.020 to +0.060 8 embedding worse by 0.040 rad" in page.text
    assert "Decoding labels" not in render(fake.minimal()).text


def test_numbers_that_are_none_are_dashes():
    results = fake.movies()[0]
    nan = float("nan")
    rows = tuple(replace(r, value=nan, low=nan, high=nan, chance=nan) for r in results.scores)
    gaps = tuple(
        replace(d, value=nan, low=nan, high=nan, better="undecided") for d in results.differences
    )
    page = render(replace(results, scores=rows, differences=gaps))
    assert "nan" not in re.sub(r"[A-Za-z0-9+/=]{80,}", "", page.text).lower().split()
    assert "–" in page.text


@pytest.mark.parametrize(
    ("metric", "unit", "value", "text"),
    [
        ("accuracy", "", 0.7123, "71.2"),
        ("median error", "s", 2.345, "2.35"),
        ("median error", "s", 23.45, "23.4"),
        ("median error", "mm", 4321.0, "4321"),
        ("median error", "m", 0.01234, "0.012"),
        ("r2", "", -0.25, "−0.25"),
        ("r2", "", float("nan"), "–"),
    ],
)
def test_numbers_have_sensible_digits(metric, unit, value, text):
    assert Scale(metric, unit, [value]).number(value) == text


def test_the_live_view_holds_at_most_8000_points(movies):
    _, text, _, arrays = movies
    data = next(t for tag, t in Page(text).inside if tag == "script")
    view = json.loads(data)
    assert sum(len(t["x"]) for t in view["data"]) <= 8000
    assert {t["name"] for t in view["data"]} == {*fake.MOVIES, "no stimulus"}
    many = {
        f: np.tile(getattr(arrays, f), (4, 1) if f == "values" else 4)
        for f in ("values", "samples", "times_s", "padded", "index", "frame", "repeat")
    }
    large = replace(arrays, **many)
    shown = figures.show(large)
    assert shown is not None
    traces = report._view(fake.movies()[0], large, shown)
    assert traces is not None
    assert 4000 < sum(len(t["x"]) for t in traces["data"]) <= 8000


CHROMIUM = shutil.which("chromium")


def opened(path: Path, folder: Path) -> tuple[str, list[str]]:
    """The document of a page after its scripts have run, and what the console says."""
    options = "--headless --no-sandbox --disable-gpu --enable-unsafe-swiftshader --no-first-run"
    options += " --disable-background-networking --disable-component-update --disable-sync"
    options += " --disable-quic --virtual-time-budget=20000 --enable-logging=stderr --dump-dom"
    done = subprocess.run(
        [str(CHROMIUM), *options.split(), f"--user-data-dir={folder}", f"file://{path}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here: the page is not opened")
@pytest.mark.parametrize("hostile", [False, True])
def test_a_browser_draws_the_live_view_and_complains_of_nothing(hostile, tmp_path):
    """Whatever a page tries to run or fetch against its policy, the browser says on its console."""
    results, arrays = fake.movies() if hostile else fake.labels()
    few = replace(small(results), traces=results.traces[:1])
    if hostile:
        turn = payload_of(0)
        few = poisoned(few, turn, kept=KEPT)
        arrays = replace(arrays, names=tuple(turn(name) for name in arrays.names))
    path = report.write_report(tmp_path / "run", few, arrays, dpi=DPI)
    document, console = opened(path, tmp_path / "profile")
    assert 'id="session-view" class="on"' in document
    assert "gl-container" in document
    assert not [line for line in console if "Content Security" in line or "Uncaught" in line]
    page = Page(document)
    assert not {"iframe", "object", "embed", "base", "form", "link"} & {t for t, _ in page.elements}
    assert len(page.named("script")) == 3
    for tag, attributes in page.elements:
        assert not [k for k in attributes if k.startswith("on")], (tag, attributes)
        for key in ("href", "xlink:href", "src", "srcdoc", "action"):
            assert (attributes.get(key) or "#").startswith(("#", "https://doi.org/", "data:image/"))
    assert not few.headline or " ".join(report._visible(few.headline[0]).split()) in page.text


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here: the policy is not tried")
def test_the_policy_stops_what_would_slip_through(tmp_path):
    path = report.write_report(tmp_path / "run", fake.minimal(), None, dpi=DPI)
    evil = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    evil += "<img src=https://example.org/x.png><style>p { color: red }</style>"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</main>", f"{evil}</main>"), encoding="utf-8")
    document, console = opened(path, tmp_path / "profile")
    assert "<title>owned" not in document
    refused = [line for line in console if "Content Security" in line]
    assert {"script-src", "img-src", "style-src"} <= set(
        re.findall(r"[a-z]+-src", " ".join(refused))
    )
    path.write_text(re.sub(r'<meta http-equiv="Content-[^>]*>', "", path.read_text()), "utf-8")
    assert "<title>owned" in opened(path, tmp_path / "profile")[0]


# On disk


@pytest.mark.parametrize("which", [fake.movies, fake.labels])
def test_results_come_back_as_they_were(which, tmp_path):
    results, arrays = which()
    saved.save_results(tmp_path, results, arrays)
    read, points = saved.load_results(tmp_path)
    assert repr(read) == repr(results)  # in which NaN is equal to NaN
    assert points is not None
    for field in fields(EmbeddingArrays):
        a, b = getattr(arrays, field.name), getattr(points, field.name)
        if field.name == "labels":
            assert list(a) == list(b)
            assert all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)
        elif field.name == "names":
            assert a == b
        else:
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)


def test_numbers_that_are_none_come_back(tmp_path):
    nan, inf = float("nan"), float("inf")
    results = fake.movies()[0]
    row = replace(results.scores[0], value=-inf, chance=inf, low=nan, high=nan)
    saved.save_results(tmp_path, replace(results, scores=(row,)), None)
    read, points = saved.load_results(tmp_path)
    assert points is None
    assert repr(read.scores[0]) == repr(row)
    json.loads(  # strictly JSON: no bare NaN
        (tmp_path / "results.json").read_text(), parse_constant=lambda c: pytest.fail(c)
    )


def test_no_controls_leave_none_of_an_earlier_one(tmp_path):
    results, _ = fake.movies()
    saved.save_results(tmp_path, results, None)
    with open(tmp_path / "clocks.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [line["stimulus"] for line in read] == list(fake.MOVIES)
    assert [float(line["clock"]) for line in read] == [c.clock for c in results.controls.clocks]
    saved.save_results(tmp_path, fake.minimal(), None)
    assert {p.name for p in tmp_path.iterdir()} == {"results.json", "scores.csv", "claims.csv"}


def test_no_embedding_leaves_none_of_an_earlier_one(tmp_path):
    results, arrays = fake.movies()
    saved.save_results(tmp_path, results, arrays)
    saved.save_results(tmp_path, results, None)
    assert saved.load_results(tmp_path)[1] is None


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    whole = json.loads(path.read_text())
    edit(whole)
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda w: w.pop("format"), "format"),
        (lambda w: w.update(format_version=4), "version from 1 to 3; found 4"),
        (lambda w: w["results"].pop("scores"), "results.scores"),
        (lambda w: w["results"].update(extra=1), "results.extra"),
        (lambda w: w["results"]["scores"][3].update(value="high"), "results.scores.3.value"),
        (lambda w: w["results"]["scores"][3].update(value="0.5"), "results.scores.3.value"),
        (lambda w: w["results"]["scores"][3].update(value=None), "results.scores.3.value"),
        (lambda w: w["results"]["scores"][3].update(n_repeats=2.5), "results.scores.3.n_repeats"),
        (lambda w: w["results"]["session"].update(n_samples=True), "results.session.n_samples"),
        (lambda w: w["results"]["session"].update(more=""), "results.session.more"),
        (lambda w: w.update(results=[]), "results"),
        (lambda w: w.update(results=None), "results"),
    ],
)
def test_changed_results_are_refused_with_the_place(edit, words, tmp_path):
    saved.save_results(tmp_path, fake.movies()[0], None)
    change(tmp_path / "results.json", edit)
    with pytest.raises(FormatError, match=re.escape(words)) as caught:
        saved.load_results(tmp_path)
    assert "results.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_damaged_results_are_refused(content, tmp_path):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"results\.json"):
        saved.load_results(tmp_path)


def test_missing_results_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"results\.json"):
        saved.load_results(tmp_path)


def repack(path: Path, **arrays: Any) -> None:
    with np.load(path, allow_pickle=False) as file:
        kept = {k: file[k] for k in file.files}
    np.savez(path, **{k: v for k, v in {**kept, **arrays}.items() if v is not None})


@pytest.mark.parametrize(
    "changed",
    [
        {"values": None},
        {"values": np.zeros((3, 2), np.float32)},
        {"index": np.zeros(7320, np.int64)},
        {"index": np.full(7320, 12, np.int32)},
        {"names": np.array([{}], dtype=object)},
        {"names": np.zeros(3)},
        {"label_names": np.array(["x"])},
    ],
)
def test_changed_arrays_are_refused(changed, tmp_path):
    results, arrays = fake.movies()
    assert len(arrays.values) == 7320
    saved.save_results(tmp_path, results, arrays)
    repack(tmp_path / "embedding.npz", **changed)
    with pytest.raises(FormatError, match=r"embedding\.npz"):
        saved.load_results(tmp_path)


def test_arrays_with_false_sizes_are_refused_before_they_are_made(tmp_path):
    results, arrays = fake.movies()
    saved.save_results(tmp_path, results, arrays)
    path = tmp_path / "embedding.npz"
    with zipfile.ZipFile(path) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    shape = b"(7320, 8), "
    assert shape in parts["values.npy"]
    huge = b"(9999999999999, 8), "
    parts["values.npy"] = parts["values.npy"].replace(shape + b"}" + b" " * 9, huge + b"}", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(FormatError, match="does not hold what its header says"):
        saved.load_results(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", b"0" * 10**6)
    with pytest.raises(FormatError, match="compressed"):
        saved.load_results(tmp_path)


def _headed(words: str) -> bytes:
    """An array whose header holds some words."""
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words.encode()


HEADS = [
    (_headed("{'descr': '<f4', 'fortran_order': False, 'shape': ("), "no header"),
    (_headed("(" * 5000), "no header"),
    (_headed("'''"), "no header"),
    (_headed("{'descr': '<f4', 'fortran_order': False, 'shape': ()}") + b"1234", "shape"),
    (b"", "EOF"),
]


def test_headers_that_are_none_and_encrypted_arrays_are_refused(tmp_path):
    results, _ = fake.movies()
    saved.save_results(tmp_path, results, fake.embedding(latents=3, per_repeat=2))
    path = tmp_path / "embedding.npz"
    blob = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        parts = {n: archive.read(n) for n in archive.namelist()}
    for content, says in HEADS:
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in {**parts, "values.npy": content}.items():
                archive.writestr(name, part)
        with pytest.raises(FormatError, match=rf"embedding\.npz cannot be read as .*{says}"):
            saved.load_results(tmp_path)
    blob[blob.index(b"PK\x01\x02") + 8] |= 1
    blob[blob.index(b"PK\x03\x04") + 6] |= 1
    path.write_bytes(blob)
    with pytest.raises(FormatError, match=r"'values\.npy' is encrypted"):
        saved.load_results(tmp_path)


@pytest.mark.parametrize("cut", [0, 10, 1000, 100_000])
def test_truncated_arrays_are_refused(cut, tmp_path):
    results, arrays = fake.movies()
    saved.save_results(tmp_path, results, arrays)
    path = tmp_path / "embedding.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match=r"embedding\.npz"):
        saved.load_results(tmp_path)


def test_a_finished_folder_holds_no_temporary_file(movies):
    out, _, results, arrays = movies
    saved.save_results(out, results, arrays)
    names = {p.name for p in out.iterdir()}
    files = {"report.html", "results.json", "embedding.npz", "scores.csv", "claims.csv"}
    files |= {"behaviour.csv", "clocks.csv", "drift.csv", "samples.csv", "regions.csv"}
    assert names == {"figures", *files}
    assert all(p.suffix == ".png" for p in (out / "figures").iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    saved.write_whole(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        saved.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
