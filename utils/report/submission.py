"""The end of a run: the submission file, and the local leaderboard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.artefacts import atomic_path
from utils.dataset.tables import load_labels, read_table
from utils.errors import DataError, Refuse, raise_it
from utils.evaluate.protocol import OutOfFold
from utils.evaluate.scores import compare, interval

# Submission -----------------------------------------------------------------------------------------


def write_submission(
    path: str | Path,
    ids: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
    sample: pd.DataFrame,
    prior: np.ndarray,
    reasons: Mapping[str, str] | None = None,
) -> list[str]:
    """Write the predictions in the rows and columns of the sample, atomically, and validate the file.

    ids: (N,), in any order
    labels: (N, K) 0/1, columns as in `classes`
    sample: the sample submission, from `utils.dataset.tables.load_sample_submission`
    prior: (K,) 0/1, fills the row of every test Id that has no prediction, see `prior_labels`
    reasons: why there is no prediction, by Id, where it is known

    Returns one warning per filled row, for the log and the record of the run. Raises DataError for repeated
    Ids, Ids unknown to the sample, labels that are not 0/1, and arrays that do not fit each other.
    """
    path, ids, labels = Path(path), list(ids), np.asarray(labels)
    if labels.shape != (len(ids), len(classes)) or not np.isin(labels, (0, 1)).all():
        raise DataError.at(
            path,
            f"the labels {labels.shape} are not 0/1 per Id and class",
            f"pass decisions of the shape {len(ids), len(classes)}",
        )
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
    return [_prior_warning(id, prior, classes, (reasons or {}).get(id)) for id in missing]


def _prior_warning(id: str, prior: np.ndarray, classes: Sequence[str], reason: str | None) -> str:
    names = ", ".join(name for name, on in zip(classes, prior, strict=True) if on)
    return f"Id {id} has no prediction, so its row is the training prior ({names}). {reason or ''}".rstrip()


def validate_submission(path: str | Path, sample: pd.DataFrame, refuse: Refuse = raise_it) -> pd.DataFrame:
    """Read a submission (as texts) and hold it against the sample: columns, Ids, the order of both, and 0/1.

    refuse: gets each fault as a DataError, of which the usual one raises the first.
    """
    table = read_table(Path(path), ["Id"], known=sample.columns)
    if table.columns.tolist() != sample.columns.tolist():
        fault = f"its columns are {', '.join(table)}"
        refuse(DataError.at(path, fault, f"write {', '.join(sample)}, in this order"))
    given, expected = table["Id"].tolist(), sample["Id"].tolist()
    for some, others, fault in ((expected, given, "is missing"), (given, expected, "is not a test Id")):
        for odd in sorted(set(some) - set(others)):
            refuse(DataError.at(path, f"Id {odd} {fault}", f"give the {len(expected)} Ids of the sample"))
    if given != expected and sorted(given) == sorted(expected):
        refuse(DataError.at(path, "its rows are in another order than the sample's", "sort them alike"))
    for name in table.columns.intersection(sample.columns).drop("Id"):
        for id, text in table.loc[~table[name].isin(["0", "1"]), ["Id", name]].itertuples(index=False):
            refuse(DataError.at(path, f"Id {id} has {name} = {text!r}", "write 0 or 1"))
    return table


def prior_labels(labels: np.ndarray) -> np.ndarray:
    """The training prior as a prediction (K,) 0/1, from training labels (N, K).

    The classes that at least half of the clips carry, or else the most frequent one.
    """
    prevalence = np.asarray(labels, dtype=float).mean(axis=0)
    prior = prevalence >= 0.5
    if not prior.any():
        prior[prevalence.argmax()] = True
    return prior.astype(np.int8)


# Leaderboard ----------------------------------------------------------------------------------------


def leaderboard(
    submission_path: str | Path,
    solution_path: str | Path,
    classes: Sequence[str],
    train_labels: np.ndarray,
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Macro-UF1 of a submission beside predictions that look at no clip, with 95% intervals over subjects.

    all ones       every label for every clip; the best constant prediction under macro-UF1, since a class
                   that is never predicted scores 0
    prior labels   `prior_labels` of the training labels (N, K) for every clip
    prior random   every label by a coin of its training prevalence, averaged over `draws`

    Returns one row per prediction, ours first: macro_uf1, low, high, and the paired difference of ours to it
    with its interval (gain, gain_low, gain_high; the same subjects drawn for both).
    """
    classes, solution_path = list(classes), Path(solution_path)
    truth = load_labels(solution_path.parent, classes, file_name=solution_path.name)
    submitted = read_table(Path(submission_path), ["Id", *classes]).set_index("Id")
    if set(submitted.index) != set(truth["Id"]):
        raise DataError.at(submission_path, f"its Ids are not those of {solution_path.name}", "submit the test Ids")
    ours = submitted.loc[truth["Id"], classes].to_numpy() == "1"
    shape, labels = ours.shape, np.asarray(train_labels)
    coins = np.random.default_rng(seed).random((draws, *shape))
    rows = {
        "ours": ours[None],
        "all ones": np.ones((1, *shape), bool),
        "prior labels": np.broadcast_to(prior_labels(labels) == 1, (1, *shape)),
        "prior random": coins < labels.mean(axis=0),
    }
    return pd.DataFrame([_board_row(name, decision, ours, truth, classes) for name, decision in rows.items()])


def _board_row(
    name: str, decision: np.ndarray, ours: np.ndarray, truth: pd.DataFrame, classes: list[str]
) -> dict[str, Any]:
    """Scores of decisions (R, N, K), and how much better `ours` (N, K) is."""
    theirs = _as_predictions(decision, truth, classes)
    same_draws = _as_predictions(np.broadcast_to(ours, decision.shape), truth, classes)
    own, gain = interval(theirs), compare(same_draws, theirs)
    return {
        "prediction": name,
        "macro_uf1": own.value,
        "low": own.low,
        "high": own.high,
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
    }


def _as_predictions(decision: np.ndarray, truth: pd.DataFrame, classes: list[str]) -> OutOfFold:
    """Decisions (R, N, K) in the form that the bootstrap takes; draws stand in the place of seeds."""
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
