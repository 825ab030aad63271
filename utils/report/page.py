"""The page that a run ends in: `report.html`, one file with all that a person wants to see of it.

Made of what the run left and of nothing else: records, tables and figures of `artefacts/<run>` and
`submissions/<run>`, and the card of its data. What the run did not leave is left out, or a sentence says so.
"""

from collections.abc import Iterable, Mapping
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
# What each figure shows, by the name of its file; the overview, the scores, the curves, the ablation and those of the
# submission stand in sections of their own.
CAPTIONS = {
    "03_overview": "The method on one held-out clip: mesh or picture, views, flow of both phases, attention, answer",
    "03_class_scores": "F1 of each class and macro-UF1 on held-out people, with 95% intervals",
    "03_learning_curves": "Loss over the epochs of the networks with the largest weight, in the first outer fold; the "
    "dot marks the epoch that was kept",
    "04_ablation": "Variants: macro-UF1, and the paired difference to the reference, with 95% intervals",
    "leaderboard": "macro-UF1 on the hidden labels of the test clips, beside answers that look at no clip",
    "predicted_shares": "Share of clips of each class: decided for the test clips, and true in training",
    "01_labels": "Training clips of each class, and those that carry two",
    "01_sequence": "One sequence: its mesh or picture with the crops, and its views over time",
    "01_identities": "One clip of each person, in its first view, with its labels",
    "02_motion_curves": "Motion against the onset over time, with the apex found and that of the data",
    "02_flow": "The flow of one clip in every view and both phases, as colours and as arrows",
    "02_mean_flow": "Mean flow from onset to apex of the clips of each class",
    "03_calibration": "Reliability of the probabilities on held-out people",
    "03_confusion": "Decisions against the truth on held-out people, a table for each class",
    "03_attention": "Which stream the fusion attention listens to, by class",
    "03_saliency": "Where in the face the decision comes from, by class and view",
    "03_unit_scores": "Average precision of each action unit, beside that of a guess",
    "03_units": "The action units of one clear clip: which, where and when",
}
OWN_SECTION = ("03_overview", "03_class_scores", "03_learning_curves", "04_ablation")
CARD_PICTURES = {
    "statistics": "Synthetic clips: lengths, place of the apex, peak motion, and what disturbs",
    "identities": "One photograph of each synthetic person",
}


@dataclass(frozen=True)
class FinishedRun:
    """What a run left: its folders, its data root, and its records by stage."""

    name: str
    work: Path
    out: Path
    data: Path
    records: Mapping[str, Mapping[str, Any]]

    @cached_property
    def scores(self) -> Mapping[str, Any]:
        """All that its stages scored, by name, but what the submission's record holds."""
        stages = (record["scores"] for stage, record in self.records.items() if stage != SUBMIT)
        return {name: value for scores in stages for name, value in scores.items()}

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Those of the network that is scored, or else of the last stage there is."""
        return self.records.get(TRAIN, list(self.records.values())[-1])["parameters"]

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """What was said of held-out clips (`joined_seeds`); None before 03_train."""
        path = self.work / "held_out" / "predictions.csv"
        return joined_seeds(read_artefact(path), CLASSES) if path.exists() else None


def write_page(path: Path, name: str, work: Path) -> None:
    """Write the page of a run beside its submission, atomically. Raises ValueError for a run without records."""
    html = page(read_run(name, work, path.parent))
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def read_run(name: str, work: Path, out: Path) -> FinishedRun:
    """What the run left in its folders. Raises ValueError where no stage has finished."""
    records = {file.stem: read_artefact(file) for file in sorted((work / "records").glob("*.json"))}
    if (out / "run.json").exists():
        records[SUBMIT] = read_artefact(out / "run.json")
    if not records:
        raise ValueError(f"RUN={name}: no stage of it has left a record yet. Remedy: make all RUN={name}.")
    owner = work / "data_root.json"
    given = read_artefact(owner)["data"] if owner.exists() else ""
    dataset = next(iter(records.values()))["parameters"]["dataset"]
    return FinishedRun(name, work, out, Path(given) if given else ROOT / "data" / dataset, records)


def page(run: FinishedRun) -> str:
    """The whole page as HTML; every text is escaped."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        run=run.name,
        about=about(run),
        merits=figures_of_merit(run),
        classes=class_table(run),
        warnings=warnings_of(run),
        own=pictures(run.work / "figures", OWN_SECTION),
        ablation=ablation_table(run),
        ablation_source=source_of(run, ABLATION, "ablation"),
        wrong=wrong_section(run),
        test=test_section(run),
        figures=pictures(run.work / "figures", [name for name in CAPTIONS if name not in OWN_SECTION]),
        card=card_section(run),
        provenance=provenance(run),
    )


# What comes out -----------------------------------------------------------------------------------------------------


def about(run: FinishedRun) -> dict[str, Any]:
    """What the run was made on, and when it was last at work."""
    clips, data = run.predictions, run.records.get(SUBMIT, {}).get("data", {})
    return {
        "synthetic": data.get("synthetic", (run.data / "truth").is_dir()),  # its data may be gone by now
        "root": run.data.name,
        "clips": None if clips is None else len(clips),
        "people": None if clips is None else clips["subject"].nunique(),
        "folds": run.parameters["folds"],
        "seeds": run.parameters["seeds"],
        "time": max(record["time"] for record in run.records.values()).replace("T", " ").removesuffix("+00:00"),
    }


def figures_of_merit(run: FinishedRun) -> list[dict[str, str]]:
    """The scores that the run's records hold, each with what it was measured on; the headline first."""
    found = []
    if "interval" in run.scores:
        found.append(_merit("macro-UF1, held-out people", run.scores["interval"], "of the training split"))
    board = _board(run)
    if len(board):
        ours, trivial = board.iloc[0], board.iloc[1:].nlargest(1, "macro_uf1").iloc[0]
        spans = ({"value": row["macro_uf1"], "low": row["low"], "high": row["high"]} for row in (ours, trivial))
        found.append(_merit("macro-UF1, test people", next(spans), "local leaderboard, hidden labels"))
        found.append(_merit("macro-UF1 without looking", next(spans), f"best such answer there: {trivial.name}"))
    for name, label, unit in (
        ("apex_mean_abs_frames", "apex, mean error", "frames"),
        ("flow_epe_px", "flow, mean end-point error", "px"),
    ):
        if name in run.scores:
            found.append({"label": label, "value": cell(run.scores[name]), "span": "", "note": unit})
    return found


def _merit(label: str, span: Mapping[str, float], note: str) -> dict[str, str]:
    value, bounds = str(Interval(**span)).split(" ", 1)
    return {"label": label, "value": value, "span": f"{bounds}, 95% interval", "note": note}


def class_table(run: FinishedRun) -> pd.DataFrame | None:
    """Held-out scores of each class; None before 03_train."""
    if "per_class" not in run.scores:
        return None
    names = {"f1": "F1", "precision": "precision", "recall": "recall", "average_precision": "average precision"}
    table = pd.DataFrame.from_dict(run.scores["per_class"], orient="index")
    text = {heading: [_number(value) for value in table[name]] for name, heading in names.items()}
    return pd.DataFrame({"class": table.index, **text, "clips": table["support"].round().astype(int).tolist()})


def _number(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"


def ablation_table(run: FinishedRun) -> pd.DataFrame | None:
    """Every variant with its interval and its paired difference; None before 04_ablation."""
    path = run.work / "ablation.csv"
    if not path.exists():
        return None
    table = read_artefact(path)
    return scores_with_intervals(table).assign(UAR=table["uar"].map(_number), mAP=table["map"].map(_number))


def source_of(run: FinishedRun, stage: str, target: str) -> str:
    """The command that makes a stage's numbers and its commit; empty where it has not run."""
    record = run.records.get(stage)
    return f"{run_command(target, run.name, record)}, commit {short_commit(record['commit'])}" if record else ""


def wrong_section(run: FinishedRun) -> dict[str, Any] | None:
    """The worst of the wrong clips, how many there are of how many, and the colours of motion; None before 03_train."""
    if run.predictions is None:
        return None
    rows = wrong_rows(run.predictions, CLASSES)
    shown = wrong_clips(rows.head(WORST), CLASSES, run.work)
    wheel = picture_of_array(flow_wheel(121), "Colour wheel: the hue of each direction of motion")
    return {"count": len(rows), "all": len(run.predictions), "clips": shown, "wheel": wheel}


def test_section(run: FinishedRun) -> dict[str, Any] | None:
    """What the submission's record has of the test clips; None before 05_submit."""
    record = run.records.get(SUBMIT)
    if record is None:
        return None
    board = _board(run)
    table = None
    if len(board):
        spans = [str(Interval(row["macro_uf1"], row["low"], row["high"])) for _, row in board.iterrows()]
        table = pd.DataFrame({"answer": board.index, "macro-UF1 [95%]": spans})
    return {"clips": record["data"]["test"], "board": table, "figures": pictures(run.out, CAPTIONS)}


def _board(run: FinishedRun) -> pd.DataFrame:
    """The local leaderboard by prediction, ours first; empty where no hidden labels are at hand."""
    rows = run.records.get(SUBMIT, {}).get("scores", {}).get("leaderboard", [])
    return pd.DataFrame(rows).set_index("prediction") if rows else pd.DataFrame()


def pictures(folder: Path, names: Iterable[str]) -> dict[str, Picture]:
    """The figures of a folder by name: those of `names` that lie there."""
    files = {name: folder / f"{name}.png" for name in names}
    return {
        name: picture_of_file(path, CAPTIONS[name], CAPTIONS[name]) for name, path in files.items() if path.exists()
    }


# What it was made from ----------------------------------------------------------------------------------------------


def card_section(run: FinishedRun) -> dict[str, Any]:
    """Clips per class of the training split, and what the card of synthetic data says of all of them."""
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
        "macro-UF1 by the true action units": cell(card.get("bounds", {}).get("true_units", "")),
        "macro-UF1 of every label for every clip": cell(card.get("bounds", {}).get("all_ones", "")),
    }
    files = {run.data / "card" / f"{name}.png": text for name, text in CARD_PICTURES.items()}
    shown = [picture_of_file(path, text, text) for path, text in files.items() if path.exists()]
    return {"counts": counts, "facts": _facts(facts), "pictures": shown}


def warnings_of(run: FinishedRun) -> list[str]:
    """What the stages warned of, each once, and stages that were made with other parameters than the one scored."""
    given = [text for record in run.records.values() for text in record["warnings"]]
    for stage, record in run.records.items():
        others = [
            f"{name}={value}"
            for name, value in record["parameters"].items()
            if name not in NO_RESULT and value != run.parameters.get(name)
        ]
        if others:
            given.append(f"{stage} stands here as it was made with {', '.join(others)}. Remedy: make all again.")
    return list(dict.fromkeys(given))


def provenance(run: FinishedRun) -> dict[str, Any]:
    """Stages with commit, time and seconds; what they ran on; the versions of packages; all parameters."""
    last = list(run.records.values())[-1]
    stages = [
        {
            "stage": stage,
            "commit": short_commit(record["commit"]),
            "finished (UTC)": record["time"].replace("T", " ").removesuffix("+00:00"),
            "seconds": record["seconds"],
        }
        for stage, record in run.records.items()
    ]
    facts = {
        "command": run_command("all", run.name, last),
        "renderer": run.scores.get("renderer"),
        "Python": last["python"],
        "machine": "{system}, {processor}, {cores} cores".format(**last["machine"]),
        "digest of the data": last.get("data", {}).get("digest"),
    }
    parameters = pd.DataFrame(run.parameters.items(), columns=["parameter", "value"])
    versions = pd.DataFrame(last["packages"].items(), columns=["package", "version"])
    return {"stages": pd.DataFrame(stages), "facts": _facts(facts), "versions": versions, "parameters": parameters}


def _facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Those that are known."""
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}
