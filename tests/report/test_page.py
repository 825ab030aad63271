"""Facts about the page of a run: it is one whole file, true to what the run left, and readable on every screen."""

import re
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers.browser import find_chromium, open_browser

from utils.artefacts import read_artefact, write_artefact
from utils.config import load_config
from utils.paths import ROOT
from utils.report import page
from utils.report.page import CAPTIONS, write_page
from utils.report.wrong_clips import joined_seeds, wrong_rows
from utils.synthetic.action_units import ACTION_UNITS, AU_NAMES
from utils.train.samples import CLASSES, Samples

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPAN = {"value": 0.781, "low": 0.7, "high": 0.86}
NASTY = "<script>alert('x')</script>&"
IDS = [f"S{i:02d}_{NASTY.replace('/', '')}" for i in range(15)]


def record(scores, warnings=(), **changes):
    """The record of a stage, with changed parameters."""
    entries = {"scores": scores, "warnings": list(warnings), "commit": COMMIT, "seconds": 7.5}
    entries |= {"time": "2026-01-02T03:04:05+00:00", "python": "3.11.7", "packages": {"torch": "2.13.0"}}
    entries["machine"] = {"system": "Linux", "processor": "x86_64", "cores": 2}
    return entries | {"parameters": load_config("smoke", **changes).record}


def predictions(wrong, seeds=(0,)):
    """Held-out predictions of IDS; the first `wrong` clips are wrong in every class, and the first of them most."""
    rows = []
    for seed in seeds:
        for i, id in enumerate(IDS):
            row = {"Id": id, "subject": id[:3], "seed": seed, "fold": 0}
            for k, name in enumerate(CLASSES):
                truth = (i + k) % 2
                decision = 1 - truth if i < wrong else truth
                probability = 0.5 + (decision - 0.5) * (0.9 - 0.01 * i)
                row |= {f"{name}_truth": truth, f"{name}_probability": probability, f"{name}_decision": decision}
            rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def rendered(tmp_path, monkeypatch):
    """A run after 01_render, which left a warning: its folders, and `write`, which returns the text of its page."""
    monkeypatch.setattr(page, "ROOT", tmp_path)
    work, out = tmp_path / "artefacts" / "x", tmp_path / "submissions" / "x"
    write_artefact(work / "records" / "01_render.json", record({"renderer": "embree"}, [f"crop of {NASTY}"]))
    write_artefact(work / "data_root.json", {"data": str(tmp_path / "4D & <b>ME")})

    def write():
        write_page(out / "report.html", "x", work)
        return (out / "report.html").read_text()

    return SimpleNamespace(work=work, out=out, write=write)


@pytest.fixture
def finished(rendered):
    """The same run after all stages."""
    work, out = rendered.work, rendered.out
    scores = {"f1": 0.5, "precision": 0.5, "recall": 0.5, "average_precision": None, "support": 3.0}
    scores = {"interval": SPAN, "per_class": dict.fromkeys(CLASSES, scores)}
    write_artefact(work / "records" / "03_train.json", record(scores))
    write_artefact(work / "records" / "04_ablation.json", record({}, seed=3))
    board = [{"prediction": name, "macro_uf1": 0.4, "low": 0.3, "high": 0.5} for name in ("ours", "all ones")]
    write_artefact(out / "run.json", record({"leaderboard": board}) | {"data": {"test": 7, "digest": "f00"}})
    write_artefact(work / "held_out" / "predictions.csv", predictions(wrong=14))
    write_artefact(work / "held_out" / "units.csv", pd.DataFrame({"Id": IDS} | dict.fromkeys(ACTION_UNITS, 0.25)))
    names = ("difference", "difference_low", "difference_high", "uar", "map")
    row = {"variant": f"flow by {NASTY}", "macro_uf1": 0.5, "low": 0.4, "high": 0.6} | dict.fromkeys(names, 0.1)
    write_artefact(work / "ablation.csv", pd.DataFrame([row]))
    write_artefact(work / "features" / "moments.csv", pd.DataFrame({"Id": IDS, "apex": 1}))
    x = np.random.default_rng(0).normal(size=(len(IDS), 2, 2, 3, 8, 8))
    labels = np.zeros((len(IDS), len(CLASSES)))
    Samples(x, labels, np.array(IDS), np.array(IDS), CLASSES).save(work / "features" / "train.npz")
    for id in IDS[:3]:
        write_artefact(work / "views" / "train" / f"{id}.npz", {"frames": np.full((2, 2, 32, 32, 3), 90, np.uint8)})
    (work / "figures").mkdir()
    for name in CAPTIONS:
        cv2.imwrite(str(work / "figures" / f"{name}.png"), np.full((400, 1300, 3), 200, np.uint8))
    cv2.imwrite(str(out / "leaderboard.png"), np.full((300, 700, 3), 200, np.uint8))
    return rendered


def test_a_run_without_a_record_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="RUN=x: no stage.*Remedy: make all RUN=x"):
        write_page(tmp_path / "submissions" / "report.html", "x", tmp_path / "artefacts" / "x")
    assert not list(tmp_path.iterdir())


def test_a_section_without_its_source_says_so(rendered):
    text = rendered.write()
    for sentence in ("03_train has not scored", "04_ablation has not run", "05_submit has not run", "have no card"):
        assert sentence in text
    assert "<img" not in text and "0.000" not in text


@pytest.mark.parametrize(
    ("clips", "sentences"), [(0, ["no test split"]), (7, ["decisions on 7 clips", "labels are not available"])]
)
def test_a_submission_without_hidden_labels_has_no_score(rendered, clips, sentences):
    write_artefact(rendered.out / "run.json", record({}) | {"data": {"test": clips}})
    text = rendered.write()
    assert all(sentence in text for sentence in sentences) and "leaderboard" not in text


def test_every_text_of_the_user_is_escaped(finished):
    text = finished.write()
    assert "<script" not in text and "<b>ME" not in text
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;"
    assert f"crop of {escaped}" in text and f"flow by {escaped}" in text
    assert "4D &amp; &lt;b&gt;ME" in text and IDS[0].partition("<")[0] + "&lt;script&gt;" in text


def test_the_page_holds_all_that_it_shows_and_no_path_of_the_machine(finished, tmp_path):
    text = finished.write()
    links = re.findall(r"""(?:src|href|url\(|@import)\s*=?\s*["']?([^"'\s>)]+)""", text)
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert str(tmp_path) not in text


def test_scores_ablation_leaderboard_and_other_parameters_are_those_of_the_records(finished):
    text = finished.write()
    assert "0.781" in text and "[0.700, 0.860], 95% interval" in text
    assert "+0.100 [+0.100, +0.100]" in text and "0.400 [0.300, 0.500]" in text
    assert "04_ablation ran with other parameters than the rest: seed=3" in text


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_record_says_whether_faces_are_synthetic_even_if_the_data_are_gone(finished, synthetic):
    run = read_artefact(finished.out / "run.json")
    write_artefact(finished.out / "run.json", run | {"data": run["data"] | {"synthetic": synthetic}})
    assert ("The faces are synthetic" in finished.write()) == synthetic


def test_the_worst_wrong_clips_are_shown_and_all_are_counted(finished):
    text = finished.write()
    assert "14 of 15 held-out clips" in text and text.count('<article class="clip">') == 12
    assert text.count("data:image/jpeg") == 3 + 1  # the clips that still have views, and the colour wheel
    assert text.count("no longer has the views") == 9
    assert "false alarm" in text and f"({AU_NAMES['AU1']}) 0.25" in text


def test_wrong_clips_come_in_the_order_of_their_log_loss():
    rows = wrong_rows(joined_seeds(predictions(wrong=3), CLASSES), CLASSES)
    assert rows["Id"].tolist() == IDS[:3]


@pytest.mark.parametrize(("wrong_seeds", "wrong"), [(1, []), (2, IDS[:1])])
def test_the_majority_of_three_seeds_decides(wrong_seeds, wrong):
    table = predictions(wrong=0, seeds=(0, 1, 2))
    changed = (table["Id"] == IDS[0]) & (table["seed"] < wrong_seeds)
    table.loc[changed, "Negative_decision"] = 1 - table.loc[changed, "Negative_truth"]
    assert wrong_rows(joined_seeds(table, CLASSES), CLASSES)["Id"].tolist() == wrong


def test_every_figure_of_the_notebooks_has_a_caption():
    books = (nbformat.read(path, as_version=4) for path in (ROOT / "notebooks").glob("*.ipynb"))
    cells = "\n".join(cell.source for book in books for cell in book.cells if cell.cell_type == "code")
    assert set(re.findall(r'(?:figures|run) / "(\w+)\.png"', cells)) == set(CAPTIONS)


def test_every_action_unit_has_a_name():
    assert set(AU_NAMES) == set(ACTION_UNITS)


# In a browser -------------------------------------------------------------------------------------------------------

# Texts whose contrast with their background is below 4.5 (WCAG 2.2, 1.4.3), as [text, contrast].
LOW_CONTRAST = """(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = parts(colour).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (parts(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const low_contrast = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text) continue;
    const [low, high] = [getComputedStyle(element).color, background(element)].map(luminance).sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) low_contrast.push([text, contrast]);
  }
  return low_contrast;
})()"""


@pytest.fixture(scope="module")
def browser():
    if find_chromium() is None:
        pytest.skip("no Chromium is installed")
    with open_browser() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_shows_its_pictures_and_can_be_read(finished, browser, width, scheme):
    finished.write()
    browser.errors.clear()
    browser.set_width(width)
    browser.set_media("screen", scheme)
    browser.open((finished.out / "report.html").as_uri())
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
    assert browser.evaluate("[...document.images].filter(image => !image.naturalWidth || !image.alt).length") == 0
    assert browser.evaluate("document.images.length") > len(CAPTIONS) - 2
    assert browser.evaluate(LOW_CONTRAST) == []
    assert browser.errors == []


def test_low_contrast_and_errors_of_a_page_are_noticed(browser, tmp_path):
    html = "<body style='background:#fff'><p style='color:#888'>grey</p><script>missing()</script>"
    (tmp_path / "bad.html").write_text(html)
    browser.set_media()
    browser.open((tmp_path / "bad.html").as_uri())
    [[text, contrast]] = browser.evaluate(LOW_CONTRAST)
    assert text == "grey" and 3.5 < contrast < 3.6
    assert "missing is not defined" in browser.errors[-1]
