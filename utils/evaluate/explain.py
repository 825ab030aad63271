"""Why a network decided: saliency of the input maps, and the action units (AUs) of a clip: which, where and when.

The units come from the shipped network, which was taught by synthetic motion (`utils.train.shipped`); the emotions come
from the network that is explained. The shipped network learnt the intensities of the units by cross-entropy, so its
probability of a weak unit stays low even where the unit is surely there.
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

# A unit is named from this probability: on 2000 clips of `sample_dual(2000, 991)`, people never trained on,
# nine of ten units named so were there, and seven of ten that were there are named.
NAMED_FROM = 0.3
# A unit is called one-sided from this log of the ratio of odds, and else "both". Cautious, as tests/test_explain.py has
# it: of the units that moved by three times as much on one side about half are called so, very few with the wrong side.
ONE_SIDED_FROM = 1.5
HEADS = {"emotions": 0, "units": 2}  # position among the outputs of MicroAttNet.forward_all


# Where --------------------------------------------------------------------------------------------------------------


def contributions(ensemble: Ensemble, x: np.ndarray, output: int, head: str = "emotions") -> np.ndarray:
    """Gradient x input of one output's logit for clips x (N, V, P, 3, S, S): what each value adds to it, as x in shape.

    head "emotions" or "units". The logit is averaged over member networks and mirror images, as `fitted.predict` does
    with probabilities (Simonyan et al. 2014, "Deep inside convolutional networks", with the input as a factor).
    """
    maps = torch.from_numpy(x).requires_grad_()
    small = resize_maps(maps, ensemble.model_config.size)
    variants = (small, mirror(small)) if ensemble.train_config.mirror_average else (small,)
    logit = 0.0
    for member in ensemble.members:
        network = build_network(ensemble, member)
        for variant in variants:
            logit = logit + network.forward_all(scale_maps(variant, member.scale))[HEADS[head]][:, output].sum()
    logit.backward()
    return (maps.grad * maps).detach().numpy() / (len(ensemble.members) * len(variants))


def saliency(ensemble: Ensemble, samples: Samples) -> np.ndarray:
    """Mean size of the contributions to each class's logit over that class's clips, (K, V, S, S) float32, each summing
    to 1. Summed over phases and channels; a class without clips gets zeros.
    """
    maps = np.zeros((len(samples.classes), samples.x.shape[1], *samples.x.shape[-2:]), np.float32)
    for k in np.flatnonzero(samples.y.any(axis=0)):
        each = np.abs(contributions(ensemble, samples.x[samples.y[:, k] > 0], k))
        maps[k] = _sum_to_one(each.sum(axis=(2, 3)).mean(axis=0))
    return maps


def unit_maps(x: np.ndarray, units: Sequence[int]) -> np.ndarray:
    """Where motion speaks for each of some units (positions) in one clip x (V, P, 3, S, S): (len(units), V, S, S).

    The contributions summed over phases and channels; what speaks against is zero. Each sums to 1.
    """
    ensemble = load_pretrained(KINDS[x.shape[0]])
    each = [contributions(ensemble, x[None], unit, "units")[0].sum(axis=(1, 2)).clip(0) for unit in units]
    return np.stack([_sum_to_one(maps) for maps in each])


def _sum_to_one(maps: np.ndarray) -> np.ndarray:
    return maps / max(maps.sum(), 1e-12)  # a clip in which nothing moves has zeros


# Which --------------------------------------------------------------------------------------------------------------


def unit_table(ids: Sequence[str], units: np.ndarray, order: Sequence[str] | None = None) -> pd.DataFrame:
    """A row per clip: Id and the probabilities (N, 19) to three digits; empty for an Id of `order` that has none."""
    table = pd.DataFrame(units, index=pd.Index(ids, name="Id"), columns=list(ACTION_UNITS))
    return table.astype(float).round(3).reindex(ids if order is None else order).reset_index()


def named_units(units: np.ndarray, most: int = 3) -> np.ndarray:
    """Positions of the units (19,) that are named, the most probable first: at most `most`, from NAMED_FROM up."""
    order = np.argsort(-units)[:most]
    return order[units[order] >= NAMED_FROM]


def unit_sides(x: np.ndarray) -> np.ndarray:
    """How much more the left half of a face tells of each unit than the right one: log of the ratio of odds (N, 19) for
    clips x (N, V, P, 3, S, S), each half of every view shown with the other held still.

    Left is the person's, who stands at the right in a picture that is not mirrored.
    """
    middle, kind = x.shape[-1] // 2, KINDS[x.shape[1]]
    halves = []
    for still in (np.s_[..., :middle], np.s_[..., middle:]):
        half = x.copy()
        half[still] = 0
        halves.append(logit(np.clip(unit_probabilities(kind, half).astype(float), 1e-6, 1 - 1e-6)))
    return halves[0] - halves[1]


def side_names(units: np.ndarray, sides: np.ndarray) -> list[str]:
    """ "left", "right" or "both" for each unit of a clip, from its probabilities and `unit_sides`, both (19,); "" for
    one that is not named, and for one of the middle of the face."""
    found = []
    for au, probability, side in zip(ACTION_UNITS, units, sides, strict=True):
        sided = any(len(sides_of(unit)) == 2 for unit in ACTION_UNITS[au])
        one = "both" if abs(side) < ONE_SIDED_FROM else "left" if side > 0 else "right"
        found.append(one if sided and probability >= NAMED_FROM else "")
    return found


def unit_scores(units: np.ndarray, truth: pd.DataFrame, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Average precision of each unit's probability (N, 19) against its presence; units that no clip shows are left out.

    truth: the rows of `load_truth` in the order of the clips. Index AU; columns name, clips (that show it),
    prevalence (the average precision of a guess), average_precision, and low, high: its 95% interval by bootstrap over
    subjects, where a draw without the unit does not count.
    """
    subjects, member = np.unique(truth["subject"], return_inverse=True)
    weights = subject_weights(len(subjects), draws, seed)[:, member]
    rows = {}
    for au, probability in zip(ACTION_UNITS, units.T, strict=True):
        present = truth[au].to_numpy() > 0
        if present.any():
            value, *drawn = average_precision(present, probability, weights[weights[:, present].any(axis=1)])
            low, high = np.percentile(drawn, (2.5, 97.5))
            count = int(present.sum())
            rows[au] = (AU_NAMES[au], count, count / len(present), value, low, high)
    columns = ["name", "clips", "prevalence", "average_precision", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def average_precision(present: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (B,) of probability (N,) under each row of clip weights (B, N), for probabilities without ties.

    The weighted mean of the precision at each present clip, as scikit-learn defines it, for thousands of draws at once.
    """
    order = np.argsort(-probability)
    weights, present = weights[:, order], present[order]
    hits = weights * present
    precision = hits.cumsum(axis=1) / np.maximum(weights.cumsum(axis=1), 1e-12)
    return (hits * precision).sum(axis=1) / hits.sum(axis=1)


# When ---------------------------------------------------------------------------------------------------------------


def unit_course(views: Views, moments: tuple[int, int, int], config: Config) -> pd.DataFrame:
    """Probability of each unit as if frame t were the apex, for every t between onset and offset.

    Phases onset -> t and t -> offset, flow and maps as in the run of `config`. Index frame, columns AU.
    """
    onset, _, offset = moments
    frames = range(onset + 1, max(offset, onset + 2))  # a clip of two frames has its last one
    maps = [clip_features(views, (onset, t, offset), config.feature_size, config.flow_method) for t in frames]
    units = unit_probabilities(KINDS[views.frames.shape[1]], np.stack(maps))
    return pd.DataFrame(units, index=pd.Index(frames, name="frame"), columns=list(ACTION_UNITS))


# One clip -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitEvidence:
    """The action units of one clip: which, where and when."""

    id: str
    units: pd.Series  # probability by AU
    shown: tuple[str, ...]  # the AUs named, or else the most probable one
    maps: np.ndarray  # (len(shown), V, S, S) float32, `unit_maps` of these
    face: np.ndarray  # (V, H, W, 3) uint8, the apex frame
    course: pd.DataFrame  # `unit_course`
    apex: int  # as found
    fps: float


def unit_evidence(job: Job) -> UnitEvidence:
    """Which units move in a clip, and where and when those that are named do, from what 01 and 02 left of it."""
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
    """Position of the clip whose second most probable unit is surest, of units (N, 19): a clear one, no typical one."""
    return int(np.sort(units, axis=1)[:, -2].argmax())


def reason_of(stack: Stack, samples: Samples, i: int, units: np.ndarray) -> str:
    """`why` of the i-th clip of the samples: emotions by the networks of `stack`, from its units (N, 19)."""
    probability, _ = predict_stack(stack, samples.x[[i]])
    decision = decide(probability, stack.thresholds.values)
    return why(samples.ids[i], probability[0], decision[0], samples.classes, units[i])


def why(id: str, probability: np.ndarray, decision: np.ndarray, classes: Sequence[str], units: np.ndarray) -> str:
    """One clip in words: its decided emotions, from probability and decision (K,), with its named units, from (19,).

    "S03_017: Surprise 0.81, with AU1 (inner brow raiser) 0.93, AU2 (outer brow raiser) 0.88". Where no emotion reaches
    its threshold the nearest one is told.
    """
    decided = sorted(np.flatnonzero(decision), key=lambda k: -probability[k])
    emotions = " and ".join(f"{classes[k]} {probability[k]:.2f}" for k in decided)
    if not decided:
        k = int(probability.argmax())
        emotions = f"no emotion above its threshold (most probable {classes[k]} {probability[k]:.2f})"
    names = list(ACTION_UNITS)
    named = ", ".join(f"{names[i]} ({AU_NAMES[names[i]]}) {units[i]:.2f}" for i in named_units(units))
    return f"{id}: {emotions}, with {named or f'no action unit from {NAMED_FROM} up'}"
