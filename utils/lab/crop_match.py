"""A crop found without a label: the part of the maps in which a network's answers tell most.

A network that was taught faces in one crop knows them less well in another. Where the crop fits, it is sure of each
clip and says different things of different ones: the mutual information of clips and answers is large (Bridle, Heading
and MacKay 1991, "Unsupervised classifiers, mutual information and phantom targets").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from utils.train.ensemble import Ensemble, predict
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.samples import Samples

CLIPS = 128  # that a crop is tried on
ZOOMS = (0.7, 0.85, 1.0, 1.15, 1.3, 1.45, 1.6)
HEIGHTS = (-0.12, -0.06, 0.0, 0.06, 0.12)
STEPS = {"x": 0.06, "stretch": 0.12, "zoom": 0.08, "y": 0.03}  # around the best of those, and then half as far
MARGIN = 0.1  # a crop that tells less than a tenth more than the clips as they are is not worth its risk


@dataclass(frozen=True)
class Crop:
    """A part of a map: `zoom` times closer, `stretch` times closer still in height, its middle moved to the right and
    down by `x` and `y`, in shares of the side. Of two views the second is moved by -x, as its mirror image would be."""

    zoom: float = 1.0
    stretch: float = 1.0
    x: float = 0.0
    y: float = 0.0


def cropped(maps: np.ndarray, crop: Crop, pixels: bool = True) -> np.ndarray:
    """Maps (N, V, P, 3, H, W) of a crop in their old size, zero beyond their edge.

    pixels: the maps are in pixels, which grow with the zoom; flow images are in units of their own range and do not.
    """
    if crop == Crop():
        return maps
    n, views = maps.shape[:2]
    side = torch.linspace(1, -1, views) if views > 1 else torch.ones(1)
    theta = torch.zeros(views, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = 1 / crop.zoom, 1 / (crop.zoom * crop.stretch)
    theta[:, 0, 2], theta[:, 1, 2] = 2 * crop.x * side, 2 * crop.y
    flat = torch.from_numpy(np.ascontiguousarray(maps)).flatten(2, 3).flatten(0, 1)  # (N * V, P * 3, H, W)
    grid = F.affine_grid(theta.repeat(n, 1, 1), list(flat.shape), align_corners=False)
    taken = F.grid_sample(flat, grid, align_corners=False).numpy().reshape(maps.shape)
    if pixels:
        taken = taken * (crop.zoom * np.float32([1, crop.stretch, 1]))[:, None, None]
        taken[..., 2, :, :] = np.hypot(taken[..., 0, :, :], taken[..., 1, :, :])
    return taken


def information(probability: np.ndarray, single: bool) -> float:
    """Mutual information in nats of clips and answers (N, K): the entropy of the mean answer, less the mean entropy.

    Of several labels the sum over them; of single ones, whose probabilities add up to one, of the one answer.
    """
    p = np.clip(probability, 1e-6, 1 - 1e-6)

    def entropy(p: np.ndarray) -> np.ndarray:
        rest = 0 if single else (1 - p) * np.log(1 - p)
        return -(p * np.log(p) + rest).sum(-1)

    return float(entropy(p.mean(0)) - entropy(p).mean())


def match_crop(ensemble: Ensemble, maps: np.ndarray, pixels: bool = True) -> Crop:
    """The crop of unlabelled clips (N, V, P, 3, H, W) of which the network tells most; all of them, as they are, where
    no other tells MARGIN more."""
    some = maps[np.unique(np.linspace(0, len(maps) - 1, CLIPS).astype(int))]
    single = ensemble.train_config.mode == "single-label"
    known: dict[Crop, float] = {}

    def tells(crop: Crop) -> float:
        if crop not in known:
            known[crop] = information(predict(ensemble, cropped(some, crop, pixels))[0], single)
        return known[crop]

    best = max((Crop(zoom=zoom, y=y) for zoom in ZOOMS for y in HEIGHTS), key=tells)
    for share in (1.0, 0.5):
        for name, step in STEPS.items():
            here = getattr(best, name)
            best = max((replace(best, **{name: here + move * step * share}) for move in (0, -1, 1)), key=tells)
    return best if tells(best) > (1 + MARGIN) * tells(Crop()) else Crop()


def crop_matched(
    estimator: Estimator, ensemble: Ensemble, pixels: bool = True, transduction: bool = False
) -> Estimator:
    """An estimator for `protocol.cross_validate` that crops all clips as suits the network `ensemble`, in training and
    in use.

    The crop is found on the training clips, without their labels. transduction: it is found anew, for the clips to be
    judged, on those themselves, as one may where they are another set with a crop of its own.
    """

    def wrapped(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        crop = match_crop(ensemble, train.x, pixels)
        classifier = estimator(replace(train, x=cropped(train.x, crop, pixels)), inner, seed)
        crop_of: Callable[[np.ndarray], Crop] = (
            (lambda x: match_crop(ensemble, x, pixels)) if transduction else lambda x: crop
        )
        return replace(
            classifier,
            probabilities=lambda x: classifier.probabilities(cropped(x, crop_of(x), pixels)),
            notes=classifier.notes | {"crop": asdict(crop)},
        )

    return wrapped
