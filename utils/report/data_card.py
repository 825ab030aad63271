"""The card of a data root: counts for any data; for synthetic data also how hard it was made.

Two bounds, by subject-held-out cross-validation on the training split: a classifier that is given the true
intensity of every action unit, and the best trivial answer. What pictures can tell, learnt from the same clips, lies
between them.

    python -m utils.report.data_card DATA      # writes DATA/card/README.md, card.json and figures
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier

from utils.artefacts import atomic_path, read_artefact, write_artefact
from utils.dataset.readers import open_sequence
from utils.evaluate.protocol import grouped_folds
from utils.evaluate.scores import score
from utils.paths import USER_FACE_MODEL
from utils.report.figures.common import save_figure
from utils.report.figures.render import clip_statistics, contact_sheet, label_counts
from utils.report.tables import markdown_table
from utils.synthetic.action_units import ACTION_UNITS
from utils.synthetic.truth import CONFOUNDERS
from utils.train.decision import choose_thresholds, decide
from utils.train.samples import CLASSES

OUTER, INNER = 6, 3  # folds by subject, fewer where there are fewer subjects


def describe(table: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Clips per class: all, alone, with a second label, and the share."""
    labels = table[list(classes)].to_numpy(int)
    alone = labels.sum(1) == 1
    return pd.DataFrame(
        {
            "clips": labels.sum(0),
            "alone": labels[alone].sum(0),
            "with another": labels[~alone].sum(0),
            "share": labels.mean(0).round(3),
        },
        index=list(classes),
    )


def label_texts(table: pd.DataFrame, classes: tuple[str, ...]) -> list[str]:
    """Subject and labels of each clip of a table, on two lines."""
    labels = table[list(classes)].to_numpy(bool)
    names = ["+".join(name for name, on in zip(classes, row, strict=True) if on) for row in labels]
    return [f"{subject}\n{name}" for subject, name in zip(table["subject"], names, strict=True)]


def load_card(root: Path) -> dict:
    """What `card.json` of a data root holds; empty for real data, which have none."""
    path = root / "card" / "card.json"
    return read_artefact(path) if path.exists() else {}


def bounds(truth: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    """Macro-UF1 of the two bounds: `true_units` and `all_ones`. truth: rows of the training split from `load_truth`.

    Empty for fewer than three subjects: no two of them can be held out, one inside the other's training set.
    """
    if truth["subject"].nunique() < 3:
        return {}
    units = truth[[c for c in truth if c in ACTION_UNITS or c.removesuffix("_side") in ACTION_UNITS]].to_numpy(float)
    peak = np.abs(units).max(1, keepdims=True)
    features = np.hstack([units, units / np.maximum(peak, 1e-9)])
    y, subjects = truth[list(classes)].to_numpy(int), truth["subject"].to_numpy(str)
    probability, decision = np.zeros(y.shape), np.zeros(y.shape, bool)
    for train, test in _folds(y, subjects, OUTER):
        inner = np.zeros(y[train].shape)
        for fit_on, check in _folds(y[train], subjects[train], INNER):
            inner[check] = _probabilities(features[train][fit_on], y[train][fit_on], features[train][check])
        probability[test] = _probabilities(features[train], y[train], features[test])
        decision[test] = decide(probability[test], choose_thresholds(y[train], inner, y[train].mean(0)).values)
    ones = np.ones_like(decision)
    return {
        "true_units": score(y, decision, probability, classes)["macro_uf1"],
        "all_ones": score(y, ones, ones.astype(float), classes)["macro_uf1"],
    }


def _folds(y: np.ndarray, subjects: np.ndarray, k: int) -> list:
    return grouped_folds(y, subjects, min(k, len(np.unique(subjects))))


def _probabilities(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Probability (N, K) of every class by a forest each; one that all or none carry keeps that share."""
    forest = ExtraTreesClassifier(100, min_samples_leaf=2, class_weight="balanced_subsample", random_state=0)
    return np.stack(
        [
            forest.fit(x, column).predict_proba(x_new)[:, 1]
            if 0 < column.mean() < 1
            else np.full(len(x_new), column.mean())
            for column in y.T
        ],
        axis=1,
    )


def write_card(root: Path, key: str | None = None) -> dict:
    """Write the card of a synthetic data root from its truth; returns what `card.json` holds."""
    truth = read_artefact(root / "truth" / "clips.csv")
    card = {
        "clips": len(truth),
        "subjects": truth["subject"].nunique(),
        "frames": int(truth["n_frames"].sum()),
        "mean_frames": float(truth["n_frames"].mean()),
        "peak_px": {f"{q:.0%}": float(truth["peak_px"].quantile(q)) for q in (0.05, 0.5, 0.95)},
        "confounders": {name: float(truth[name].mean()) for name in CONFOUNDERS},
        "bounds": bounds(truth[truth["split"] == "train"], CLASSES),
    }
    save_figure(label_counts(truth, CLASSES), root / "card" / "labels.png")
    save_figure(clip_statistics(truth), root / "card" / "statistics.png")
    shown = truth.groupby("subject").head(1)
    folders = [root / row["split"] / row["Id"] for _, row in shown.iterrows()]
    faces = [np.hsplit(open_sequence(folder).texture(0), 2)[0] for folder in folders]
    save_figure(contact_sheet(faces, shown["subject"].tolist()), root / "card" / "identities.png")
    counts = describe(truth, CLASSES).reset_index(names="class")
    bound = BOUNDS.format(**card["bounds"]) if card["bounds"] else "Bounds need three training subjects or more."
    shared = OTHER_MODEL if (root / USER_FACE_MODEL).exists() else OUR_MODEL
    text = CARD.format(**card, table=markdown_table(counts), bound=bound, shared=shared)
    with atomic_path(root / "card" / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_artefact(root / "card" / "card.json", card, key)
    return card


CARD = """# Synthetic 4D faces

{clips} clips of {subjects} people, {frames} frames ({mean_frames:.1f} a clip, 60 a second). Made from one seed by
`python -m utils.make_data`; a test bench for the method, never a claim about real faces.

{table}

{shared} Which
action units an emotion moves stands in a table of its own here, as coders of recordings have it, and in another there
(`utils.synthetic.expressions`: LITERATURE, EMFACS); a part of the combinations is in both, since a smile is a smile.
`SET="expressions=emfacs"` draws these clips, too, from the teacher's table: then that is shared as well.

Peak motion on a 256 px face (5%, 50%, 95% of the clips), confounders (share of the clips) and all else: `card.json`.
{bound}

![labels](labels.png)
![lengths, apex, motion, confounders](statistics.png)
![one photograph of each person](identities.png)
"""

OUR_MODEL = (
    "The classifiers that ship were taught by motion of the same face model, of other people and without any picture."
)
OTHER_MODEL = """The people are of another face model than ours, by which the classifiers that ship were taught: the
shapes of their heads and of what each muscle moves are its own. Skin, light and cameras are made as ever."""

BOUNDS = """Macro-UF1 on held-out subjects of the training split of a classifier that is given the true intensity of
every action unit: {true_units:.3f}; of the best trivial answer, every label for every clip: {all_ones:.3f}."""


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m utils.report.data_card DATA")
    write_card(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
