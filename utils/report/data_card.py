"""The card of a synthetic data root: its clips in numbers and figures, and how hard its classes are to tell apart.

Two bounds on held-out subjects of the training split say how hard: the score of a classifier that is given the true
intensity of every action unit, and the score of the best trivial answer. A classifier that learns from pictures of the
same clips scores between them.

    python -m utils.report.data_card DATA      # writes README.md, card.json and figures to DATA/card
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

OUTER, INNER = 6, 3  # folds by subject, fewer if there are fewer subjects


def describe(table: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """A row per class: all clips with this label, with it alone, and with another label beside it, and their share."""
    labels = table[list(classes)].to_numpy(int)
    alone = labels[labels.sum(1) == 1].sum(0)
    counts = {"clips": labels.sum(0), "alone": alone, "with another": labels.sum(0) - alone}
    return pd.DataFrame(counts | {"share": labels.mean(0).round(3)}, index=list(classes))


def label_texts(table: pd.DataFrame, classes: tuple[str, ...]) -> list[str]:
    """Subject and labels of each clip, on two lines."""
    labels = table[list(classes)].to_numpy(bool)
    names = ["+".join(name for name, on in zip(classes, row, strict=True) if on) for row in labels]
    return [f"{subject}\n{name}" for subject, name in zip(table["subject"], names, strict=True)]


def load_card(root: Path) -> dict:
    """The content of `card.json` of a data root; {} for real data, which have no card."""
    path = root / "card" / "card.json"
    return read_artefact(path) if path.exists() else {}


def bounds(truth: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, float]:
    """Macro-UF1 on held-out subjects: `true_units`, given the true action units, and `all_ones`, all labels everywhere.

    truth: rows of the training split from `load_truth`. Returns {} for fewer than three subjects: of the subjects that
    are not held out, one more must be held out for the thresholds.
    """
    if truth["subject"].nunique() < 3:
        return {}
    units = truth[[c for c in truth if c in ACTION_UNITS or c.removesuffix("_side") in ACTION_UNITS]].to_numpy(float)
    peak = np.abs(units).max(1, keepdims=True)
    features = np.hstack([units, units / np.maximum(peak, 1e-9)])
    y, subjects = truth[list(classes)].to_numpy(int), truth["subject"].to_numpy(str)
    probability, decision = np.zeros(y.shape), np.zeros(y.shape, bool)
    for train, test in grouped_folds(y, subjects, min(OUTER, len(set(subjects)))):
        inner = np.zeros(y[train].shape)
        for fit_on, check in grouped_folds(y[train], subjects[train], min(INNER, len(set(subjects[train])))):
            inner[check] = _probabilities(features[train][fit_on], y[train][fit_on], features[train][check])
        probability[test] = _probabilities(features[train], y[train], features[test])
        decision[test] = decide(probability[test], choose_thresholds(y[train], inner, y[train].mean(0)).values)
    ones = np.ones_like(decision)
    return {
        "true_units": score(y, decision, probability, classes)["macro_uf1"],
        "all_ones": score(y, ones, ones.astype(float), classes)["macro_uf1"],
    }


def _probabilities(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """Probability (N, K) of every class for x_new, by one forest per class trained on x and y.

    A class that all or no training clips carry gets its share among them.
    """
    forest = ExtraTreesClassifier(100, min_samples_leaf=2, class_weight="balanced_subsample", random_state=0)
    share = y.mean(axis=0)
    probability = np.tile(share, (len(x_new), 1))
    for k in np.flatnonzero((share > 0) & (share < 1)):
        probability[:, k] = forest.fit(x, y[:, k]).predict_proba(x_new)[:, 1]
    return probability


def write_card(root: Path, key: str | None = None) -> dict:
    """Write the card of a synthetic data root from its truth; returns the content of `card.json`."""
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
    shown = truth.groupby("subject").head(1)
    folders = [root / row["split"] / row["Id"] for _, row in shown.iterrows()]
    faces = [np.hsplit(open_sequence(folder).texture(0), 2)[0] for folder in folders]
    save_figure(label_counts(truth, CLASSES), root / "card" / "labels.png")
    save_figure(clip_statistics(truth), root / "card" / "statistics.png")
    save_figure(contact_sheet(faces, shown["subject"].tolist()), root / "card" / "identities.png")
    counts = describe(truth, CLASSES).reset_index(names="class")
    bound = BOUNDS.format(**card["bounds"]) if card["bounds"] else "Bounds need three training subjects or more."
    origin = OTHER_MODEL if (root / USER_FACE_MODEL).exists() else OUR_MODEL
    with atomic_path(root / "card" / "README.md") as temporary:
        text = CARD.format(**card, table=markdown_table(counts), bound=bound, origin=origin)
        temporary.write_text(text, encoding="utf-8")
    write_artefact(root / "card" / "card.json", card, key)
    return card


CARD = """# Synthetic 4D faces

{clips} clips of {subjects} people, {frames} frames ({mean_frames:.1f} a clip, 60 a second). `python -m utils.make_data`
makes them from one seed. They are a test bench for the method; a score on them does not tell how well the method works
on real faces.

{table}

{origin}

A table says which action units an emotion moves: here LITERATURE of `utils.synthetic.expressions`, which follows coders
of recordings, but EMFACS in the clips that taught the classifiers. Some combinations are in both tables. With
`SET="expressions=emfacs"` the clips of the data root are drawn from EMFACS, too.

{bound} `card.json` has these numbers, the peak motion on a 256 px face (5%, 50% and 95% quantiles), and the share of
the clips with each confounder.

![Clips of each class](labels.png)
![Length, place of the apex, peak motion and confounders](statistics.png)
![One photograph of each person](identities.png)
"""

OUR_MODEL = """The shipped classifiers were taught with motion of the same face model, but with other people and
without pictures."""
OTHER_MODEL = """These people come from another face model than the one that taught the shipped classifiers: it has its
own head shapes and its own motion for each action unit. Skin, light and cameras are made in the same way."""
BOUNDS = """Macro-UF1 on held-out subjects of the training split: {true_units:.3f} for a classifier that is given the
true intensity of every action unit; {all_ones:.3f} for the best trivial answer, every label for every clip."""


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m utils.report.data_card DATA")
    write_card(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
