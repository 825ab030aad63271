"""Why a network decided: saliency of the input maps, and the action units (AUs) of a clip: which, where and when.

The AUs come from the shipped network, which synthetic motion taught (`utils.train.shipped`). The emotions come from the
network to explain. The shipped network learnt the intensities of the AUs by cross-entropy, so a weak AU gets a low
probability even if it is certainly present.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import logit

from utils.config import Config
from utils.evaluate.scores import subject_weights
from utils.flow.features import clip_features
from utils.pipeline import Job
from utils.render.view_set import Views
from utils.synthetic.action_units import ACTION_UNITS, AU_NAMES, sides_of
from utils.train.augment import mirror
from utils.train.decision import decide
from utils.train.ensemble import Ensemble, build_network, resize_maps, scale_maps
from utils.train.samples import Samples
from utils.train.shipped import KINDS, load_pretrained, unit_probabilities
from utils.train.stacking import Stack, predict_stack

# Probability from which an AU is named. On synthetic clips of other people than those of the training
# (`sample_dual(2000, 991)`), nine of ten named AUs are present, and seven of ten AUs that are present are named.
NAMED_FROM = 0.3
MOST_NAMED = 3  # AUs of a clip
# Log odds ratio of the two sides from which a side is named instead of "both". It is cautious: of the AUs that move
# three times as much on one side, about half get a side, and few the wrong side (tests/evaluate/test_explain.py).
ONE_SIDED_FROM = 1.5
RESAMPLES = 2000  # of the subjects, in `unit_scores`
HEADS = {"emotions": 0, "units": 2}  # position among the outputs of `MicroAttNet.forward_all`


# Where --------------------------------------------------------------------------------------------------------------


def contributions(ensemble: Ensemble, x: np.ndarray, output: int, head: str = "emotions") -> np.ndarray:
    """Gradient x input of one output's logit: what each value of clips x (N, V, P, 3, S, S) adds to it, same shape.

    head: "emotions" or "units". The logit is averaged over networks and mirror images, as `ensemble.predict` averages
    probabilities (Simonyan et al. 2014, "Deep inside convolutional networks", multiplied by the input).
    """
    maps = torch.from_numpy(x).requires_grad_()
    small = resize_maps(maps, ensemble.model_config.size)
    images = (small, mirror(small)) if ensemble.train_config.mirror_average else (small,)
    total = 0.0
    for member in ensemble.members:
        network = build_network(ensemble, member)
        for image in images:
            total = total + network.forward_all(scale_maps(image, member.scale))[HEADS[head]][:, output].sum()
    total.backward()
    return (maps.grad * maps).detach().numpy() / (len(ensemble.members) * len(images))


def saliency(ensemble: Ensemble, samples: Samples) -> np.ndarray:
    """Saliency maps (K, V, S, S) float32: the mean absolute contribution to a class's logit over the clips of a class.

    The maps are summed over phases and channels. Each sums to 1; a class without clips has zeros.
    """
    maps = np.zeros((len(samples.classes), samples.x.shape[1], *samples.x.shape[-2:]), np.float32)
    for k in np.flatnonzero(samples.y.any(axis=0)):
        absolute = np.abs(contributions(ensemble, samples.x[samples.y[:, k] > 0], k))
        maps[k] = _sum_to_one(absolute.sum(axis=(2, 3)).mean(axis=0))
    return maps


def unit_maps(x: np.ndarray, units: Sequence[int]) -> np.ndarray:
    """Where one clip x (V, P, 3, S, S) shows each AU of `units` (positions): maps (len(units), V, S, S) that sum to 1.

    A map holds the contributions, summed over phases and channels. Negative sums are set to zero.
    """
    ensemble = load_pretrained(KINDS[x.shape[0]])
    maps = [contributions(ensemble, x[None], unit, "units")[0].sum(axis=(1, 2)).clip(0) for unit in units]
    return np.stack([_sum_to_one(values) for values in maps])


def _sum_to_one(maps: np.ndarray) -> np.ndarray:
    return maps / max(maps.sum(), 1e-12)  # a clip without motion has zeros


# Which --------------------------------------------------------------------------------------------------------------


def unit_table(ids: Sequence[str], units: np.ndarray, order: Sequence[str] | None = None) -> pd.DataFrame:
    """A row per clip: Id, and rounded probabilities from units (N, 19).

    order: the Ids of the rows, if not `ids`. An Id without probabilities gets an empty row.
    """
    table = pd.DataFrame(units, index=pd.Index(ids, name="Id"), columns=list(ACTION_UNITS))
    return table.astype(float).round(3).reindex(ids if order is None else order).reset_index()


def named_units(units: np.ndarray) -> np.ndarray:
    """Positions of the named AUs, most probable first, from probabilities (19,): at most MOST_NAMED."""
    order = np.argsort(-units)[:MOST_NAMED]
    return order[units[order] >= NAMED_FROM]


def unit_sides(x: np.ndarray) -> np.ndarray:
    """On which side of the face each AU moves: log odds ratio (N, 19) of the left to the right half, for clips x
    (N, V, P, 3, S, S). For each half, the flow of the other half is set to zero.

    Left is the person's left, which is on the right of the picture.
    """
    middle, kind = x.shape[-1] // 2, KINDS[x.shape[1]]
    halves = []
    for still in (np.s_[..., :middle], np.s_[..., middle:]):
        half = x.copy()
        half[still] = 0
        halves.append(logit(np.clip(unit_probabilities(kind, half).astype(float), 1e-6, 1 - 1e-6)))
    return halves[0] - halves[1]


def side_names(units: np.ndarray, sides: np.ndarray) -> list[str]:
    """ "left", "right" or "both" for each AU of a clip, from its probabilities and its `unit_sides`, both (19,).

    An AU that is not named, or that has no sides, gets "".
    """
    names = []
    for au, probability, side in zip(ACTION_UNITS, units, sides, strict=True):
        sided = any(len(sides_of(unit)) == 2 for unit in ACTION_UNITS[au])
        name = "both" if abs(side) < ONE_SIDED_FROM else "left" if side > 0 else "right"
        names.append(name if sided and probability >= NAMED_FROM else "")
    return names


def unit_scores(units: np.ndarray, truth: pd.DataFrame) -> pd.DataFrame:
    """Average precision of the probabilities (N, 19) of each AU, without the AUs that no clip shows.

    truth: the rows of `load_truth` in the order of the clips. Index AU; columns name, clips (that show it), prevalence
    (the average precision of a guess), average_precision, and low, high: the 95% interval by bootstrap over subjects.
    Resamples without the AU do not count.
    """
    subjects, subject_of = np.unique(truth["subject"], return_inverse=True)
    weights = subject_weights(len(subjects), RESAMPLES, seed=0)[:, subject_of]
    rows = {}
    for au, probability in zip(ACTION_UNITS, units.T, strict=True):
        present = truth[au].to_numpy() > 0
        if present.any():
            value, *drawn = average_precision(present, probability, weights[weights[:, present].any(axis=1)])
            count = int(present.sum())
            rows[au] = (AU_NAMES[au], count, count / len(present), value, *np.percentile(drawn, (2.5, 97.5)))
    columns = ["name", "clips", "prevalence", "average_precision", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def average_precision(present: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (B,) of probability (N,), without ties, for each row of clip weights (B, N).

    It is the weighted mean of the precision at each present clip, as in scikit-learn, for thousands of rows at once.
    """
    order = np.argsort(-probability)
    weights, present = weights[:, order], present[order]
    hits = weights * present
    precision = hits.cumsum(axis=1) / np.maximum(weights.cumsum(axis=1), 1e-12)
    return (hits * precision).sum(axis=1) / hits.sum(axis=1)


# When ---------------------------------------------------------------------------------------------------------------


def unit_course(views: Views, moments: tuple[int, int, int], config: Config) -> pd.DataFrame:
    """Probability of each AU over time: index frame, columns AU. The row of frame t takes t as the apex.

    The frames are those between onset and offset. Flow and maps are computed as in the run of `config`.
    """
    onset, _, offset = moments
    frames = range(onset + 1, max(offset, onset + 2))  # with adjacent onset and offset: the offset
    maps = [clip_features(views, (onset, t, offset), config.feature_size, config.flow_method) for t in frames]
    units = unit_probabilities(KINDS[views.frames.shape[1]], np.stack(maps))
    return pd.DataFrame(units, index=pd.Index(frames, name="frame"), columns=list(ACTION_UNITS))


# One clip -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitEvidence:
    """The AUs of one clip: which, where and when."""

    id: str
    units: pd.Series  # probability by AU
    shown: tuple[str, ...]  # the named AUs, or the most probable AU if none is named
    maps: np.ndarray  # (len(shown), V, S, S) float32, from `unit_maps`
    face: np.ndarray  # (V, H, W, 3) uint8, the apex frame
    course: pd.DataFrame  # from `unit_course`
    apex: int  # spotted apex, frame
    fps: float


def unit_evidence(job: Job) -> UnitEvidence:
    """The evidence of one clip, from the artefacts of 01 and 02."""
    views, features = job.views(), job.features()
    moments, x = tuple(features["moments"].tolist()), features["x"]
    units, names = unit_probabilities(KINDS[len(x)], x[None])[0], list(ACTION_UNITS)
    shown = named_units(units) if units.max() >= NAMED_FROM else [units.argmax()]
    return UnitEvidence(
        job.id,
        pd.Series(units, index=names),
        tuple(names[i] for i in shown),
        unit_maps(x, shown),
        views.frames[moments[1]],
        unit_course(views, moments, job.config),
        moments[1],
        job.sequence().fps,
    )


def clearest_clip(units: np.ndarray) -> int:
    """Position of an especially clear clip: the one with the largest second-highest probability in units (N, 19)."""
    return int(np.sort(units, axis=1)[:, -2].argmax())


def reason_of(stack: Stack, samples: Samples, i: int, units: np.ndarray) -> str:
    """`why` for clip i of the samples: its emotions from `stack`, its AUs from units (N, 19)."""
    probability, _ = predict_stack(stack, samples.x[[i]])
    decision = decide(probability, stack.thresholds.values)
    return why(samples.ids[i], probability[0], decision[0], samples.classes, units[i])


def why(id: str, probability: np.ndarray, decision: np.ndarray, classes: Sequence[str], units: np.ndarray) -> str:
    """One clip in words: the decided emotions, from probability and decision (K,), and the named AUs, from units (19,).

    "S03_017: Surprise 0.81, with AU1 (inner brow raiser) 0.93, AU2 (outer brow raiser) 0.88". If no emotion is decided,
    the most probable emotion is named.
    """
    decided = sorted(np.flatnonzero(decision), key=lambda k: -probability[k])
    emotions = " and ".join(f"{classes[k]} {probability[k]:.2f}" for k in decided)
    if not decided:
        k = int(probability.argmax())
        emotions = f"no emotion above its threshold (most probable {classes[k]} {probability[k]:.2f})"
    names = list(ACTION_UNITS)
    named = ", ".join(f"{names[i]} ({AU_NAMES[names[i]]}) {units[i]:.2f}" for i in named_units(units))
    return f"{id}: {emotions}, with {named or f'no action unit from {NAMED_FROM} up'}"
