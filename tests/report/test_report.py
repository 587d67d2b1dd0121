"""The report: well-formed, self-contained, escaped, and right about the numbers it draws."""

import ast
import html.parser
import json
import math
import os
import re
import secrets
import struct
import subprocess
import sys

import numpy as np
import pytest

from jaxalign.errors import UserError, printable
from jaxalign.evaluation import best_of_n_kl, preference_calibration
from jaxalign.report import (
    about,
    labels,
    learning_curves,
    plots,
    reward_kl,
    sections,
    style,
    write_report,
)
from jaxalign.report.run import FILES, read_run
from tests import run_fixture

VOID = {"meta", "br", "img", "link", "hr", "input"}
SECTIONS = [
    "results",
    "frontier",
    "over-optimisation",
    "reward-model",
    "samples",
    "learning",
    "run",
]


class Page(html.parser.HTMLParser):
    """Parses a page and notes what it holds; an end tag must close the last open one."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:], self.getpos())
        self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]

    @property
    def text(self):
        return " ".join(self.texts)


def report(directory):
    return write_report(directory).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = run_fixture.write_run(tmp_path_factory.mktemp("run"))
    write_report(path)
    return path


@pytest.fixture(scope="module")
def source(directory):
    return (directory / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def bare(tmp_path, **files):
    """A run directory with some files only."""
    for name, content in files.items():
        run_fixture.dump(tmp_path / f"{name}.json", content)
    return tmp_path


# the page


@pytest.mark.slow
def test_page_has_all_sections_in_order_and_links_to_them(page):
    sections = [value for tag, name, value in page.attributes if (tag, name) == ("section", "id")]
    assert sections == SECTIONS
    assert [link[1:] for link in page.values("href") if link[1:] in SECTIONS] == SECTIONS


def test_page_needs_nothing_else(source, page):
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|javascript:", source.replace("://", "//"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert all(address == "#" for address in re.findall(r"url\(['\"]?(.)", source))
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "src"]


def test_ids_are_unique_and_references_have_targets(source, page):
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    references = set(re.findall(r"url\(#([^)]+)\)", source))
    references |= {link[1:] for link in page.values("href")}
    assert references <= set(ids)


def test_what_users_wrote_is_text(source, page):
    assert "<script" not in source and "<img" not in source
    for text in ("<script>alert('prompt')</script> & co", "</p><img src=x onerror=alert(1)>"):
        assert text in page.text
    assert 'unknown "method"' in page.text


HOSTILE = (
    '<script>1</script></title></style></svg><img src=x onerror=y> " onload="x" \' ]]> --> <!-- '
    '&lt; url(#a) id="b" javascript:x \x1b[2J\x00\ud800\u202e\r\n$\\frac{$ \u65e5\u672c'
)


def hostile(content, text):
    """The same with that text in the place of every text, and of every free name."""
    if isinstance(content, str):
        return text
    if isinstance(content, list):
        return [hostile(part, text) for part in content]
    if isinstance(content, dict):
        more = {text: {text: [text]}} if "model" in content else {}
        return {k: hostile(v, text) for k, v in content.items()} | more
    return content


def test_nothing_that_a_run_says_is_obeyed_in_its_report(page, tmp_path):
    """No element and no attribute comes from a text of the run, wherever that stands."""
    text = HOSTILE
    assert len(text) < 200  # longer names are cut
    results = run_fixture.results()
    rows = [row | {text: 1.0} for row in results["rows"][:3]]
    parts = {
        "config": run_fixture._config(),
        "versions": {"device": "x", "jax": "y"},
        "results": {
            "rows": rows,
            "title": "x",
            "notes": ["x"],
            "curves": results["curves"][:4],
            "reward_model": results["reward_model"][:2],
            "timing": {"sft": 1.0},
        },
        "samples": [{"prompt": "x", "responses": {"SFT": {"text": "x"}}}],
    }
    written = {name: hostile(part, text) for name, part in parts.items()}
    written["versions"] |= {text: text}
    written["results"]["timing"] |= {text: 2.0}
    written["samples"][0]["responses"] |= {text: {"text": text}}
    for name in written:
        (tmp_path / f"{name}.json").write_text(json.dumps(written[name]))
    line = {"stage": text, "step": 1, "loss": 1.0, text: 2.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    source = report(tmp_path)
    found = Page(source)
    assert set(found.tags) <= set(page.tags)
    assert {(tag, name) for tag, name, _ in found.attributes} <= {
        *((tag, name) for tag, name, _ in page.attributes), ("details", "open"),
    }  # fmt: skip
    assert not any(letter < " " and letter not in "\n\t" for letter in source)
    shown = printable(text)
    assert sum(shown.split()[0] in said for said in found.texts) > 10
    assert len(set(found.values("id"))) == len(found.values("id"))
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert all(re.fullmatch(r"\w{1,90}\.png", name) for name in names)


def test_what_a_page_can_show_is_bounded(tmp_path):
    samples = [{"prompt": f"p{i}", "responses": {"SFT": {"text": "x"}}} for i in range(1001)]
    lines = [{"stage": f"s{i}", "step": 1, "a": math.nan} for i in range(21)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Page(report(bare(tmp_path, samples=samples)))
    assert "p999" in found.texts and "p1000" not in found.texts
    assert "The first 1000 of 1001 are shown." in found.text
    assert sections.learning(read_run(tmp_path), figures=None) is None  # no numbers, no curves


class Asked(dict):
    """A line that counts how often it is asked for a name."""

    times = 0

    def __contains__(self, name):
        self.times += 1
        return super().__contains__(name)

    def __getitem__(self, name):
        self.times += 1
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.times += 1
        return super().get(name, default)


def test_panels_of_many_metrics_are_found_in_one_pass():
    """Many lines of many metrics of their own each: not every name is sought in every line."""
    lines = [Asked({"step": i, **{f"m{i}_{j}": 1.0 for j in range(200)}}) for i in range(200)]
    assert len(learning_curves.panels(lines)) == learning_curves.MAX_PANELS
    assert sum(line.times for line in lines) <= 10 * 200 * 200  # not 200 times each of the names


def test_every_shown_column_is_explained(page):
    headings = {"win rate, %", "KL, nats", "ppl of samples", "copied, %", "pairs, %", "Spearman"}
    assert headings <= set(page.texts)
    assert any("upper bound" in text for text in page.texts)


def test_absent_numbers_are_dashes(page):
    assert "–" in page.texts
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)


def test_intervals_and_numbers_are_printed_as_percent(page):
    at = page.texts.index("74.1")
    assert page.texts[at + 1] == "70.1 – 78.0"


def test_colours_follow_the_theme(source):
    svg = "".join(re.findall(r"<svg.*?</svg>", source, flags=re.DOTALL))
    assert svg.count("var(--ink)") > 20
    assert not set(re.findall(r"#[0-9a-f]{6}", svg)) - {"#ffffff"}


def test_plots_are_kept_as_png(directory):
    names = {path.name for path in (directory / "plots").iterdir()}
    assert {"win_rates.png", "frontier_judge_score.png", "over_optimisation_1.png"} <= names
    assert {"scorers.png", "calibration.png", "sft_1.png", "ppo_1.png"} <= names
    for path in (directory / "plots").iterdir():
        header = path.read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", header[16:24])
        assert width > 400 and height > 200


def test_the_same_run_gives_the_same_page(tmp_path):
    path = bare(tmp_path, results={"rows": run_fixture.results()["rows"]})
    assert report(path) == report(path)


# parts of a run


def test_one_stage_has_a_page(tmp_path):
    lines = [line for line in run_fixture.metrics() if line["stage"] == "dpo"]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"stage": "dpo", "st')
    bare(tmp_path, config={"seed": 3})
    page = Page(report(tmp_path))
    sections = [value for tag, name, value in page.attributes if (tag, name) == ("section", "id")]
    assert sections == ["learning", "run"]
    assert tmp_path.name in page.text


def test_nothing_yet(tmp_path):
    page = Page(report(bare(tmp_path, versions={})))
    assert "section" not in page.tags
    assert "not written any results" in page.text


@pytest.mark.parametrize(
    "results",
    [
        {"rows": [], "curves": [], "best_of_n": [], "reward_model": [], "timing": {}, "notes": []},
        {"rows": None, "timing": None, "title": None},
        {"rows": [{"method": "SFT"}], "reward_model": [{"scorer": "x"}], "curves": [{}]},
        {"rows": [{"method": "SFT", "kl": 0, "judge_score": float("nan"), "win_rate": None}]},
        {
            "rows": [{"method": "$x_1$ & <b>", "kl": 1.0, "judge_score": 1.0, "win_rate": 0.5}],
            "curves": [{"method": "PPO", "step": 1, "kl": 0.0, "judge_score": 0.1}],
            "best_of_n": [{"n": 2, "judge_score": 0.3}],
            "reward_model": [{"scorer": "only", "pair_accuracy": 0.6}],
            "calibration": [{"predicted": 0.6, "observed": 0.5, "count": 1}],
            "timing": {"sft": float("nan"), "ppo": 0.0},
        },
    ],
)
def test_gaps_do_no_harm(tmp_path, results):
    page = Page(report(bare(tmp_path, results=results, samples=[{"prompt": "a"}, {}])))
    assert not re.search(r"\b(nan|None)\b", page.text)


def test_rows_by_name_with_deviations_over_seeds(tmp_path):
    rows = {
        "pretrained": {
            "accuracy": [0.855, 0.012],
            "recalls": [0.1, 0.2, 0.3],
            "recall_8": [0.3, 0.1],
        }
    }
    page = Page(report(bare(tmp_path, results={"rows": rows, "seeds": [0, 1], "seconds": 3.0})))
    at = page.texts.index("85.5")
    assert page.texts[at + 1] == "± 1.2"
    assert "recall 8" in page.texts


def test_seeds_become_rows(tmp_path):
    seeds = [{"seed": 7, "mean_return": 480.25, "solved_at_step": None}]
    results = {"seeds": seeds, "mean_return": 480.25, "sd_return": 0.5}
    page = Page(report(bare(tmp_path, results=results)))
    assert "seed 7" in page.texts and "all seeds" in page.texts
    assert page.texts.count("480.2") == 2 and "± 0.5" in page.texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", '{"rows": [}', "results.json is not JSON"),
        ("results.json", '{"rows": [3]}', r"results.json: Expected `object`, .* `\$.rows\[0\]`"),
        ("results.json", '{"timing": {"sft": "1"}}', r"results.json: Expected .*\$.timing"),
        ("results.json", '{"rows": [{"kl": {}}]}', r"results.json: Expected .*\$.rows\[0\]"),
        ("results.json", '{"curves": {}}', r"results.json: Expected .*\$.curves"),
        ("results.json", '{"notes": [1]}', r"results.json: Expected .*\$.notes\[0\]"),
        ("results.json", f'{{"rows": [{"{}," * 200} {{}}]}}', "rows has more than 200 entries"),
        ("samples.json", "{}", "samples.json: Expected `array`, got `object`"),
        ("samples.json", '[{"responses": {"a": {"text": 1}}}]', r"samples.json: .*\.text`"),
        ("versions.json", '{"jax": []}', "versions.json: Expected"),
        ("config.json", "[1]", "config.json: Expected `object`"),
        ("config.json", '{"a": ' * 99 + "1" + "}" * 99, "config.json is nested more than 30"),
        ("config.json", '{"a": ' + "9" * 5000 + "}", "config.json is not JSON"),
        ("metrics.jsonl", '{"stage": "a", "step": 1}\nnonsense\n', "metrics.jsonl:2 is not JSON"),
        ("metrics.jsonl", '{"stage": 1, "step": 1}\n', "metrics.jsonl:1 holds nothing"),
        ("metrics.jsonl", '{"step": 1}\n', "metrics.jsonl:1 holds nothing of a step; remove"),
        (
            "metrics.jsonl",
            '{"stage": "a", "step": 1, "x": []}\n',
            "metrics.jsonl:1: 'x' is .* no num",
        ),
        ("metrics.jsonl", '"a"\n', "metrics.jsonl:1: Expected `object`"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    bare(tmp_path, **({"versions": {}} if name == "config.json" else {}))
    with pytest.raises(UserError, match=message):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["config.json", *FILES])
def test_what_is_no_file_of_a_run_is_named(tmp_path, name):
    bare(tmp_path, **({"versions": {}} if name == "config.json" else {}))
    for make, why in (
        (lambda path: path.mkdir(), "is a directory"),
        (os.mkfifo, "is a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(tmp_path / "none"), "does not exist"),
        (lambda path: path.write_bytes(b"\xff\n"), "no UTF-8 at byte 1"),
    ):
        make(tmp_path / name)
        with pytest.raises(UserError, match=why) as error:
            write_report(tmp_path)
        assert name in str(error.value) and "\n" not in str(error.value)
        (tmp_path / name).rename(tmp_path.parent / secrets.token_hex(8))


def test_plots_do_not_go_through_a_link(tmp_path):
    (tmp_path / "theirs").mkdir()
    bare(tmp_path, config={"seed": 1}, versions={})
    (tmp_path / "plots").symlink_to(tmp_path / "theirs")
    with pytest.raises(UserError, match="plots is a link"):
        write_report(tmp_path)


def test_a_directory_of_no_run_is_named(tmp_path):
    bare(tmp_path, config={"model_type": "llama"})  # of a published model
    with pytest.raises(UserError, match=r"holds none of versions\.json"):
        write_report(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(UserError, match="absent is not a directory"):
        write_report(tmp_path / "absent")


# the plots


def drawn(figure, at=0):
    """(x, y) of all lines of one of the figure's axes."""
    return [tuple(np.asarray(line.get_data(), float)) for line in figure.axes[at].lines]


def holds(figure, x, y, at=0):
    """Whether some line of the figure is exactly this."""
    return any(
        len(xs) == len(x) and np.allclose(xs, x) and np.allclose(ys, y)
        for xs, ys in drawn(figure, at)
    )


def test_frontier_draws_the_numbers():
    rows = [
        {"method": "SFT", "kl": -0.001, "judge_score": 0.1},
        {"method": "DPO", "kl": None, "kl_estimate": 2.0, "judge_score": 0.4},
        {"method": "lost", "kl": 1.0, "judge_score": None},
    ]
    best = [{"n": n, "judge_score": 0.1 * n} for n in (1, 2, 4)]
    figure = reward_kl.frontier(rows, [], best, key="judge_score", name="judge")
    assert holds(figure, [0.0], [0.1]) and holds(figure, [2.0], [0.4])
    assert holds(figure, best_of_n_kl(np.array([1, 2, 4])), [0.1, 0.2, 0.4])
    assert len(figure.axes[0].lines) == 3
    assert {text.get_text() for text in figure.axes[0].texts} == {"SFT", "DPO", "best of n"}
    assert figure.axes[0].get_xscale() == "linear"


def test_frontier_makes_room_for_an_outlier():
    rows = [{"method": f"m{kl}", "kl": kl, "judge_score": kl} for kl in (1, 2, 3, 4, 80)]
    figure = reward_kl.frontier(rows, [], [], key="judge_score", name="judge")
    assert figure.axes[0].get_xscale() == "function"
    assert "square-root" in figure.axes[0].get_xlabel()


def test_over_optimisation_shows_gains_over_the_start_along_training():
    start = {"judge_score": 1.0, "reward_score": -1.0}
    points = [
        {"step": 2, "kl": 4.0, "judge_score": 1.5, "reward_score": 1.0, "distinct_2": 0.8},
        {"step": 1, "kl": 1.0, "judge_score": 2.0, "reward_score": 0.0, "distinct_2": 0.9},
        {"step": 3, "kl": 2.25, "judge_score": 1.0, "reward_score": 3.0, "distinct_2": 0.5},
    ]
    figure = reward_kl.over_optimisation(points, method="PPO", start=start, fits={})
    assert holds(figure, [1, 2, 1.5], [1, 0.5, 0]) and holds(figure, [1, 2, 1.5], [1, 2, 4])
    assert holds(figure, [1, 2, 1.5], [0.9, 0.8, 0.5], at=1)
    assert len(figure.axes) == 2


def test_curves_start_at_the_supervised_model(tmp_path):
    results = {
        "rows": [{"method": "SFT", "judge_score": 0.5}],
        "curves": [
            {"method": "PPO", "step": 5, "kl": 2.0, "judge_score": 1.0},
            {"method": "DPO", "step": 0, "kl": 1e-7, "judge_score": 0.4},
            {"method": "DPO", "step": 5, "kl": 1.0, "judge_score": 0.9},
        ],
    }
    curves = sections.by_method(read_run(bare(tmp_path, results=results)))
    assert [row["judge_score"] for row in curves["PPO"]] == [0.5, 1.0]
    assert curves["PPO"][0]["kl"] == 0
    # DPO has measured its own start, on the prompts of its curve.
    assert [row["judge_score"] for row in curves["DPO"]] == [0.4, 0.9]


def test_fits_are_those_of_the_gains(tmp_path):
    d = np.linspace(0, 3, 7)
    curve = [
        {"method": "PPO", "kl": x**2, "step": i, "judge_score": 1 + x * (2 - 0.5 * np.log(x or 1))}
        for i, x in enumerate(d.tolist())
    ]
    page = Page(report(bare(tmp_path, results={"curves": curve})))
    assert "judge α\xa0=\xa02.00, β\xa0=\xa00.50" in page.text
    few = Page(report(bare(tmp_path, results={"curves": curve[:4]})))
    assert "least-squares" not in few.text


def test_win_rates_draws_intervals_in_percent():
    rows = [{"method": "PPO", "win_rate": 0.6, "win_rate_low": 0.5, "win_rate_high": 0.7}]
    figure = plots.win_rates([*rows, {"method": "without", "win_rate": None}])
    assert holds(figure, [50, 70], [-0.14, -0.14]) and holds(figure, [60], [-0.14])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["PPO"]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plots.win_rates([]),
        lambda: plots.scorers([{}]),
        lambda: plots.calibration([]),
        lambda: reward_kl.frontier([], [], [], key="judge_score", name="x"),
        lambda: reward_kl.over_optimisation([], method="x", start={}, fits={}),
        lambda: learning_curves.learning_curve(
            [], learning_curves.Panel(title="x", lines={"y": ""})
        ),
    ],
)
def test_an_empty_plot_says_so(figure):
    assert [text.get_text() for text in figure().axes[0].texts] == ["no data"]


def test_learning_curves_smooth_only_long_lines():
    lines = [{"step": step, "loss": float(step % 2)} for step in range(100)]
    panel = learning_curves.panels(lines)[0]
    raw, smooth = drawn(learning_curves.learning_curve(lines, panel))
    assert raw[1].tolist() == [line["loss"] for line in lines]
    # Four neighbours on either side: of nine alternating values, four or five are 1.
    assert set(np.round(smooth[1][4:-4] * 9).astype(int)) == {4, 5}
    assert len(drawn(learning_curves.learning_curve(lines[:20], panel))) == 1


def test_panels_group_what_belongs_together():
    lines = [
        {"stage": "s", "step": 0, "time": 1.0, "rewards/chosen": 1.0, "rewards/rejected": 0.0,
         "mystery": 1.0, "loss": float("nan"), "returns/seed_0": 1.0, "returns/seed_1": 2.0,
         "judge_score": 1.0},
    ]  # fmt: skip
    found = learning_curves.panels(lines, without={"judge_score"})
    assert [panel.title for panel in found] == [
        "mean return of episodes",
        "implicit reward",
        "mystery",
    ]
    assert found[0].pale == ("returns/seed_0", "returns/seed_1")
    assert list(found[1].lines.values()) == ["chosen", "rejected"]
    figure = learning_curves.learning_curve(lines, found[0])
    assert len(figure.axes[0].lines) == 2


def test_labels_are_moved_apart():
    figure, (axes,) = style.new_figure(300, 300)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    near = [labels.Label(x=0.5, y=0.5 + 0.001 * i, text=f"name {i}", colour="k") for i in range(4)]
    labels.place(axes, near)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_end_labels_keep_their_order():
    figure, (axes,) = style.new_figure(300, 300)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    ends = [labels.Label(x=1, y=y, text=str(y), colour="k") for y in (0.52, 0.5, 0.51)]
    labels.end_labels(axes, ends, gap=11)
    figure.draw_without_rendering()
    middles = {text.get_text(): text.get_window_extent() for text in axes.texts}
    heights = [(middles[name].y0 + middles[name].y1) / 2 for name in ("0.5", "0.51", "0.52")]
    points = np.diff(heights) * 72 / figure.dpi
    assert (points > 10.5).all()


# style


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", [name for name in style.COLOURS if name != "grid"])
def test_every_colour_can_be_read_as_text(name):
    light, dark = style.COLOURS[name]
    assert 1.05 / (luminance(light) + 0.05) >= 4.5
    assert (luminance(dark) + 0.05) / (luminance("#14171b") + 0.05) >= 4.5


def test_families_share_a_mark_and_differ_from_others():
    alike = [
        ("SFT", "SFT again (control)"),
        ("DPO, human pairs", "DPO β=0.1"),
        ("PPO", "PPO without KL"),
        ("best of 64", "best-of-n"),
    ]
    others = ["preferred-FT", "pretrained", "supervised (ceiling)"]
    found = style.marks([*(name for pair in alike for name in pair), *others])
    assert all(found[one] == found[other] for one, other in alike)
    distinct = [*(one for one, _ in alike), *others]
    assert len({found[name].colour for name in distinct}) == len(distinct)
    assert len({style.marks(map(str, "abcdefghijk"))[name].marker for name in "abcdefgh"}) == 8


def test_durations():
    assert [about.duration(s) for s in (0, 59.6, 61, 3599.7, 7380)] == [
        "0.0 s", "60 s", "1 min 1 s", "1 h 0 min", "2 h 3 min"
    ]  # fmt: skip


# calibration


def test_calibration_of_a_calibrated_model():
    generator = np.random.default_rng(0)
    differences = generator.normal(0, 2, 40_000)
    preferred = generator.random(40_000) < 1 / (1 + np.exp(-differences))
    rows = preference_calibration(differences, preferred, bins=8)
    assert [row["count"] for row in rows] == [5000] * 8
    for row in rows:
        # Four standard errors of 5,000 coin flips: 0.028.
        assert row["observed"] == pytest.approx(row["predicted"], abs=0.028)
        assert row["observed_low"] <= row["observed"] <= row["observed_high"]


def test_calibration_does_not_depend_on_which_text_is_first():
    generator = np.random.default_rng(1)
    differences, preferred = generator.normal(size=200), generator.random(200)
    flip = generator.random(200) < 0.5
    turned = preference_calibration(
        np.where(flip, -differences, differences), np.where(flip, 1 - preferred, preferred)
    )
    for one, other in zip(preference_calibration(differences, preferred), turned, strict=True):
        assert one == pytest.approx(other)


def test_calibration_of_few_and_of_none():
    assert preference_calibration(np.zeros(0), np.zeros(0)) == []
    (row,) = preference_calibration(np.zeros(1), np.ones(1))
    assert row["predicted"] == 0.5 and row["observed"] == 0.5  # a tie agrees with neither
    with pytest.raises(UserError, match="preferences"):
        preference_calibration(np.zeros(2), np.zeros(3))


def test_read_run_keeps_the_order_of_methods_and_stages(directory):
    run = read_run(directory)
    assert run.methods[:3] == ["SFT", "SFT (fresh samples)", "Preferred-FT"]
    assert run.stages == ["sft", "reward", "ppo", "dpo"]


def test_import_needs_no_matplotlib():
    code = "import sys, jaxalign.report; print(sorted(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "matplotlib" not in ast.literal_eval(printed.stdout)
