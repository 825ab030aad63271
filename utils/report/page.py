"""The page at the end of a run: `report.html`, one file with its scores, figures, tables and provenance.

The page uses only what the run left: the records, tables and figures in `artefacts/<run>` and `submissions/<run>`, and
the card of its data. A section whose source is missing says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.artefacts import atomic_path, read_artefact
from utils.config import NO_RESULT
from utils.evaluate.scores import Interval
from utils.paths import ROOT
from utils.report.data_card import describe, load_card
from utils.report.embedded import Picture, picture_of_array, picture_of_file
from utils.report.figures.flow import flow_wheel
from utils.report.tables import cell, run_command, scores_with_intervals, short_commit
from utils.report.wrong_clips import joined_seeds, wrong_clips, wrong_rows
from utils.train.samples import CLASSES

WORST = 12  # wrong clips that are shown
TRAIN, ABLATION, SUBMIT = "03_train", "04_ablation", "05_submit"
# Captions of the figures by file name.
CAPTIONS = {
    "03_overview": "The method on one held-out clip: mesh or picture, views, flow of both phases, attention, answer",
    "03_class_scores": "F1 of each class and macro-UF1 on held-out people, with 95% intervals",
    "03_learning_curves": "Training and validation loss of the learner with the largest weight, in the first outer "
    "fold; a dot marks the epoch that was kept",
    "04_ablation": "macro-UF1 of each variant and its paired difference to the reference, with 95% intervals",
    "leaderboard": "macro-UF1 on the hidden labels of the test clips: ours, and predictions that ignore the clips",
    "predicted_shares": "Share of clips of each class: decided for the test clips, and labelled in training",
    "01_labels": "Training clips of each class, and training clips with two classes",
    "01_sequence": "One sequence: its first frame with the crops, and its views over time",
    "01_identities": "One clip of each person: its first view and its labels",
    "02_motion_curves": "Motion since the onset over time, with the apex that was found and the apex of the data",
    "02_flow": "Flow of one clip in every view and both phases, as colours and as arrows",
    "02_mean_flow": "Mean flow from onset to apex over the clips of each class",
    "03_calibration": "Reliability of the probabilities on held-out people",
    "03_confusion": "Decisions against the truth on held-out people, a table for each class",
    "03_attention": "Attention weight of each stream, by class",
    "03_saliency": "Saliency: which parts of the face lead to the decision, by class and view",
    "03_unit_scores": "Average precision of each action unit, and of a guess",
    "03_units": "Action units of one clear clip: which, where and when",
}
CARD_CAPTIONS = {
    "statistics": "Synthetic clips: length, place of the apex, peak motion, and confounders",
    "identities": "One photograph of each synthetic person",
}


@dataclass(frozen=True)
class FinishedRun:
    """What a run left."""

    name: str
    work: Path  # artefacts/<run>
    out: Path  # submissions/<run>
    data: Path  # the data root
    records: Mapping[str, Mapping[str, Any]]  # by stage

    @cached_property
    def scores(self) -> Mapping[str, Any]:
        """The scores of all stages before 05_submit, by name."""
        stages = (record["scores"] for stage, record in self.records.items() if stage != SUBMIT)
        return {name: value for scores in stages for name, value in scores.items()}

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters of 03_train, or of the last stage if 03_train has not run."""
        return self.records.get(TRAIN, list(self.records.values())[-1])["parameters"]

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """The predictions on held-out clips (`joined_seeds`); None before 03_train."""
        path = self.work / "held_out" / "predictions.csv"
        return joined_seeds(read_artefact(path), CLASSES) if path.exists() else None

    @property
    def synthetic(self) -> bool:
        """Whether the faces are synthetic, according to run.json, or before 05_submit to the data root."""
        return self.records.get(SUBMIT, {}).get("data", {}).get("synthetic", (self.data / "truth").is_dir())

    @cached_property
    def board(self) -> Mapping[str, Interval]:
        """The local leaderboard by prediction, ours first; {} without hidden labels."""
        rows = self.records.get(SUBMIT, {}).get("scores", {}).get("leaderboard", [])
        return {row["prediction"]: Interval(row["macro_uf1"], row["low"], row["high"]) for row in rows}


def write_page(path: Path, name: str, work: Path) -> None:
    """Write the page of a run beside its submission, atomically. Raises ValueError for a run without records."""
    html = page(read_run(name, work, path.parent))
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def read_run(name: str, work: Path, out: Path) -> FinishedRun:
    """What the run left in its folders. Raises ValueError if no stage has finished."""
    records = {file.stem: read_artefact(file) for file in sorted((work / "records").glob("*.json"))}
    if (out / "run.json").exists():
        records[SUBMIT] = read_artefact(out / "run.json")
    if not records:
        raise ValueError(f"RUN={name}: no stage of it has left a record yet. Remedy: make all RUN={name}.")
    owner = work / "data_root.json"
    named = read_artefact(owner)["data"] if owner.exists() else ""
    dataset = next(iter(records.values()))["parameters"]["dataset"]
    return FinishedRun(name, work, out, Path(named) if named else ROOT / "data" / dataset, records)


def page(run: FinishedRun) -> str:
    """The whole page as HTML; every text is escaped."""
    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), **options)
    return environment.get_template("page.html").render(
        run=run,
        merits=figures_of_merit(run),
        classes=class_table(run),
        warnings=warnings_of(run),
        figures=pictures(run.work / "figures", CAPTIONS),
        ablation=ablation_section(run),
        wrong=wrong_section(run),
        test=test_section(run),
        card=card_section(run),
        provenance=provenance(run),
    )


# Results ------------------------------------------------------------------------------------------------------------


def figures_of_merit(run: FinishedRun) -> list[dict[str, str]]:
    """The scores in the run's records, each with what it was measured on, the most important first."""
    merits = []
    if "interval" in run.scores:
        span = Interval(**run.scores["interval"])
        merits.append(_merit("macro-UF1, held-out people", span, "of the training split"))
    if run.board:
        merits.append(_merit("macro-UF1, test people", run.board["ours"], "local leaderboard, hidden labels"))
        best = max((name for name in run.board if name != "ours"), key=lambda name: run.board[name].value)
        merits.append(_merit("macro-UF1, clips ignored", run.board[best], f"best such prediction there: {best}"))
    for name, label, unit in (
        ("apex_mean_abs_frames", "apex, mean error", "frames"),
        ("flow_epe_px", "flow, mean end-point error", "px"),
    ):
        if name in run.scores:
            merits.append({"label": label, "value": cell(run.scores[name]), "span": "", "note": unit})
    return merits


def _merit(label: str, span: Interval, note: str) -> dict[str, str]:
    value, bounds = str(span).split(" ", 1)
    return {"label": label, "value": value, "span": f"{bounds}, 95% interval", "note": note}


def class_table(run: FinishedRun) -> pd.DataFrame | None:
    """Held-out scores of each class; None before 03_train."""
    if "per_class" not in run.scores:
        return None
    names = {"f1": "F1", "precision": "precision", "recall": "recall", "average_precision": "average precision"}
    table = pd.DataFrame.from_dict(run.scores["per_class"], orient="index").rename_axis("class")
    clips = table["support"].round().astype(int)
    return table[list(names)].map(_number).rename(columns=names).assign(clips=clips).reset_index()


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def ablation_section(run: FinishedRun) -> dict[str, Any] | None:
    """Every variant with its interval and paired difference, and the command behind them; None before 04_ablation."""
    path, record = run.work / "ablation.csv", run.records.get(ABLATION)
    if not path.exists():
        return None
    table, source = read_artefact(path), ""
    if record:
        source = f"{run_command('ablation', run.name, record)}, commit {short_commit(record['commit'])}"
    texts = scores_with_intervals(table).assign(UAR=table["uar"].map(_number), mAP=table["map"].map(_number))
    return {"table": texts, "source": source}


def wrong_section(run: FinishedRun) -> dict[str, Any] | None:
    """The worst wrong clips, the numbers of wrong and of all clips, and the colour wheel; None before 03_train."""
    if run.predictions is None:
        return None
    rows = wrong_rows(run.predictions, CLASSES)
    clips = wrong_clips(rows.head(WORST), CLASSES, run.work)
    wheel = picture_of_array(flow_wheel(121), "Colour wheel: the hue of each direction of motion")
    return {"count": len(rows), "all": len(run.predictions), "clips": clips, "wheel": wheel}


def test_section(run: FinishedRun) -> dict[str, Any] | None:
    """Number of test clips, local leaderboard and figures; None before 05_submit."""
    if SUBMIT not in run.records:
        return None
    table = pd.DataFrame({"prediction": [*run.board], "macro-UF1 [95%]": [str(span) for span in run.board.values()]})
    clips, board = run.records[SUBMIT]["data"]["test"], table if run.board else None
    return {"clips": clips, "board": board, "figures": pictures(run.out, CAPTIONS)}


def pictures(folder: Path, captions: Mapping[str, str]) -> dict[str, Picture]:
    """The pictures `<name>.png` of a folder by name, of the names in `captions` that it has."""
    files = {name: folder / f"{name}.png" for name in captions}
    return {name: picture_of_file(path, captions[name]) for name, path in files.items() if path.exists()}


# Data, warnings and provenance --------------------------------------------------------------------------------------


def card_section(run: FinishedRun) -> dict[str, Any]:
    """Training clips per class, and the card of synthetic data, which counts all clips."""
    card, counts = load_card(run.data), None
    if run.predictions is not None:
        labels = run.predictions[[f"{name}_truth" for name in CLASSES]].set_axis(CLASSES, axis=1)
        counts = describe(labels.astype(int), CLASSES).reset_index(names="class")
    facts = {
        "clips": card.get("clips"),
        "people": card.get("subjects"),
        "frames": card.get("frames"),
        "peak motion on a 256 px face": ", ".join(f"{px:.2f} px ({q})" for q, px in card.get("peak_px", {}).items()),
        "clips with": ", ".join(f"{name} {share:.0%}" for name, share in card.get("confounders", {}).items()),
        "macro-UF1 given the true action units": cell(card.get("bounds", {}).get("true_units", "")),
        "macro-UF1 of every label for every clip": cell(card.get("bounds", {}).get("all_ones", "")),
    }
    return {"counts": counts, "facts": _known(facts), "pictures": pictures(run.data / "card", CARD_CAPTIONS).values()}


def warnings_of(run: FinishedRun) -> list[str]:
    """The warnings of all stages, without repetitions, and a warning for each stage with other parameters."""
    warnings = [text for record in run.records.values() for text in record["warnings"]]
    for stage, record in run.records.items():
        changed = [
            f"{name}={value}"
            for name, value in record["parameters"].items()
            if name not in NO_RESULT and value != run.parameters.get(name)
        ]
        if changed:
            fault = f"{stage} ran with other parameters than the rest: {', '.join(changed)}"
            warnings.append(f"{fault}. Remedy: make all again.")
    return list(dict.fromkeys(warnings))


def provenance(run: FinishedRun) -> dict[str, Any]:
    """Commit, time and seconds of each stage; command, machine and data; versions of packages; all parameters."""
    last = list(run.records.values())[-1]
    stages = []
    for stage, record in run.records.items():
        finished = record["time"].replace("T", " ").removesuffix("+00:00")
        stages.append((stage, short_commit(record["commit"]), finished, record["seconds"]))
    facts = {
        "command": run_command("all", run.name, last),
        "renderer": run.scores.get("renderer"),
        "Python": last["python"],
        "machine": "{system}, {processor}, {cores} cores".format(**last["machine"]),
        "digest of the data": last.get("data", {}).get("digest"),
    }
    return {
        "stages": pd.DataFrame(stages, columns=["stage", "commit", "finished (UTC)", "seconds"]),
        "facts": _known(facts),
        "versions": pd.DataFrame(last["packages"].items(), columns=["package", "version"]),
        "parameters": pd.DataFrame(run.parameters.items(), columns=["parameter", "value"]),
    }


def _known(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts that have a value, as texts."""
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
