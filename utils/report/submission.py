"""The submission file and the local leaderboard."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd

from utils.artefacts import atomic_path
from utils.dataset.tables import load_labels, read_table
from utils.errors import DataError, Refuse, raise_it
from utils.evaluate.protocol import OutOfFold
from utils.evaluate.scores import compare, interval

DRAWS = 20  # random predictions, whose scores the leaderboard averages


def write_submission(
    path: Path,
    ids: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    sample: pd.DataFrame,
    prior: np.ndarray,
    reasons: Mapping[str, str],
) -> list[str]:
    """Write the predictions in the rows and columns of the sample submission, atomically, and validate the file.

    ids: (N,), in any order
    labels: (N, K) 0/1, columns as in `classes`
    sample: from `utils.dataset.tables.load_sample_submission`
    prior: (K,) 0/1 from `prior_labels`, fills the row of every test Id without a prediction
    reasons: by Id, why there is no prediction, where that is known

    Returns a warning for each row that the prior fills. Raises DataError for repeated Ids, Ids that the sample lacks,
    labels other than 0/1, and arrays whose shapes disagree.
    """
    ids, labels = list(ids), np.asarray(labels)
    if labels.shape != (len(ids), len(classes)) or not np.isin(labels, (0, 1)).all():
        fault = f"the labels {labels.shape} are not 0/1 per Id and class"
        raise DataError.at(path, fault, f"pass decisions of the shape {len(ids), len(classes)}")
    table = pd.DataFrame(labels.astype(int), index=pd.Index(ids, name="Id"), columns=list(classes))
    wrong = table.index[table.index.duplicated() | ~table.index.isin(sample["Id"])]
    if len(wrong):
        raise DataError.at(path, f"Id {wrong[0]} is predicted twice or is not a test Id", "predict each test Id once")
    missing = [id for id in sample["Id"] if id not in table.index]
    table = table.reindex(sample["Id"])
    table.loc[missing] = np.asarray(prior, dtype=int)
    with atomic_path(path) as temporary:
        rows = table.astype(int).reset_index()[sample.columns.tolist()]
        rows.to_csv(temporary, index=False, lineterminator="\n")
        validate_submission(temporary, sample)
    names = ", ".join(name for name, on in zip(classes, prior, strict=True) if on)
    warning = f"has no prediction, so its row is the training prior ({names})."
    return [f"Id {id} {warning} {reasons.get(id, '')}".rstrip() for id in missing]


def validate_submission(path: Path, sample: pd.DataFrame, refuse: Refuse = raise_it) -> pd.DataFrame:
    """Read a submission as texts and check it against the sample: columns, Ids, the order of both, and 0/1.

    refuse: called with each fault as a DataError; by default it raises the first.
    """
    table = read_table(path, ["Id"], known=sample.columns)
    if table.columns.tolist() != sample.columns.tolist():
        fault = f"its columns are {', '.join(table)}"
        refuse(DataError.at(path, fault, f"write {', '.join(sample)}, in this order"))
    submitted, expected = table["Id"].tolist(), sample["Id"].tolist()
    faults = [(id, "is missing") for id in sorted(set(expected) - set(submitted))]
    faults += [(id, "is not a test Id") for id in sorted(set(submitted) - set(expected))]
    for id, fault in faults:
        refuse(DataError.at(path, f"Id {id} {fault}", f"give the {len(expected)} Ids of the sample"))
    if submitted != expected and sorted(submitted) == sorted(expected):
        refuse(DataError.at(path, "its rows are in another order than the sample's", "sort them alike"))
    for name in table.columns.intersection(sample.columns).drop("Id"):
        for id, text in table.loc[~table[name].isin(["0", "1"]), ["Id", name]].itertuples(index=False):
            refuse(DataError.at(path, f"Id {id} has {name} = {text!r}", "write 0 or 1"))
    return table


def prior_labels(labels: np.ndarray) -> np.ndarray:
    """The training prior (K,) 0/1 of labels (N, K): the classes of half of the clips or more, or else the commonest."""
    prevalence = np.asarray(labels, dtype=float).mean(axis=0)
    prior = prevalence >= 0.5
    if not prior.any():
        prior[prevalence.argmax()] = True
    return prior.astype(np.int8)


def leaderboard(
    submission_path: Path, solution_path: Path, classes: Sequence[str], train_labels: np.ndarray
) -> pd.DataFrame:
    """Macro-UF1 of a submission beside predictions that ignore the clips, with 95% intervals over subjects.

    all ones       every label for every clip: the best constant prediction, since a class that is never predicted
                   has a UF1 of 0
    prior labels   `prior_labels` of the training labels (N, K) for every clip
    prior random   every label at random with its training prevalence, averaged over DRAWS

    Returns a row per prediction, the submission ("ours") first: macro_uf1, low, high, and the paired difference of the
    submission to it with its interval (gain, gain_low, gain_high; the same subjects are drawn for both).
    """
    classes = list(classes)
    truth = load_labels(solution_path.parent, classes, file_name=solution_path.name)
    submitted = read_table(submission_path, ["Id", *classes]).set_index("Id")
    if set(submitted.index) != set(truth["Id"]):
        raise DataError.at(submission_path, f"its Ids are not those of {solution_path.name}", "submit the test Ids")
    ours = submitted.loc[truth["Id"], classes].to_numpy() == "1"
    labels = np.asarray(train_labels)
    decisions = {
        "ours": ours[None],
        "all ones": np.ones((1, *ours.shape), bool),
        "prior labels": np.broadcast_to(prior_labels(labels) == 1, (1, *ours.shape)),
        "prior random": np.random.default_rng(0).random((DRAWS, *ours.shape)) < labels.mean(axis=0),
    }
    rows = []
    for name, decision in decisions.items():
        compared = _as_predictions(decision, truth, classes)
        repeated = _as_predictions(np.broadcast_to(ours, decision.shape), truth, classes)
        rows.append((name, *astuple(interval(compared)), *astuple(compare(repeated, compared))))
    return pd.DataFrame(rows, columns=["prediction", "macro_uf1", "low", "high", "gain", "gain_low", "gain_high"])


def _as_predictions(decision: np.ndarray, truth: pd.DataFrame, classes: list[str]) -> OutOfFold:
    """Decisions (R, N, K) in the form that the bootstrap takes; the R draws take the place of seeds."""
    draws, clips, _ = decision.shape
    return OutOfFold(
        classes=tuple(classes),
        ids=truth["Id"].to_numpy(),
        subjects=truth["subject"].to_numpy(),
        fold=np.zeros(clips, int),
        seeds=tuple(range(draws)),
        truth=truth[classes].to_numpy() == 1,
        probability=decision.astype(float),
        decision=decision,
        thresholds=np.full((draws, 1, len(classes)), np.nan),
        notes=[[{}] for _ in range(draws)],
        seconds=0.0,
    )
