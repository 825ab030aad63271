"""Choice of the crop of unlabelled clips in which a network's answers carry most information.

A network that was trained in one crop is less accurate in another. In a crop that suits it, the network is sure of each
clip and gives different clips different answers, so the mutual information of clips and answers is large (Bridle,
Heading and MacKay 1991, "Unsupervised classifiers, mutual information and phantom targets").
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from utils.train.ensemble import Ensemble, predict
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.samples import Samples

CLIPS = 128  # on which a crop is judged
ZOOMS = (0.7, 0.85, 1.0, 1.15, 1.3, 1.45, 1.6)
HEIGHTS = (-0.12, -0.06, 0.0, 0.06, 0.12)
STEPS = {"x": 0.06, "stretch": 0.12, "zoom": 0.08, "y": 0.03}  # of the search around the best zoom and height
MARGIN = 0.1  # relative gain of information below which the clips stay uncropped


class Crop(NamedTuple):
    """A crop of a map: `zoom` times closer, `stretch` times closer again in height, and moved to the right and down by
    `x` and `y`, in shares of the side. The second of two views is moved by -x, like its mirror image."""

    zoom: float = 1.0
    stretch: float = 1.0
    x: float = 0.0
    y: float = 0.0


def cropped(maps: np.ndarray, crop: Crop, pixels: bool = True) -> np.ndarray:
    """The crop of maps (N, V, P, 3, H, W) at their old size, zero beyond their edge.

    pixels: the maps are flow in pixels, which grows with the zoom. The values of flow images do not grow.
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
    """Mutual information in nats of clips and answers (N, K): the entropy of the mean answer minus the mean entropy.

    single: each clip has one of the K labels; otherwise the labels are independent and their information is added up.
    """
    p = np.clip(probability, 1e-6, 1 - 1e-6)

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p) + (0 if single else (1 - p) * np.log(1 - p))).sum(-1)

    return float(entropy(p.mean(0)) - entropy(p).mean())


def match_crop(ensemble: Ensemble, maps: np.ndarray, pixels: bool = True) -> Crop:
    """The crop of clips (N, V, P, 3, H, W) with the most information, or `Crop()` if no crop gains more than MARGIN."""
    clips = maps[np.unique(np.linspace(0, len(maps) - 1, CLIPS).astype(int))]
    single = ensemble.train_config.mode == "single-label"

    @cache
    def score(crop: Crop) -> float:
        return information(predict(ensemble, cropped(clips, crop, pixels))[0], single)

    best = max((Crop(zoom=zoom, y=y) for zoom in ZOOMS for y in HEIGHTS), key=score)
    for share in (1.0, 0.5):
        for name, step in STEPS.items():
            value = getattr(best, name)
            best = max((best._replace(**{name: value + move * step * share}) for move in (0, -1, 1)), key=score)
    return best if score(best) > (1 + MARGIN) * score(Crop()) else Crop()


def crop_matched(
    estimator: Estimator, ensemble: Ensemble, pixels: bool = True, transduction: bool = False
) -> Estimator:
    """An estimator that crops all clips to suit the network `ensemble`, in training and in prediction.

    The crop is chosen on the training clips. transduction: for prediction it is chosen on the clips to be judged, which
    is fair if they come from another source with another crop.
    """
    choose = partial(match_crop, ensemble, pixels=pixels)

    def matched(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        crop = choose(train.x)
        classifier = estimator(replace(train, x=cropped(train.x, crop, pixels)), inner, seed)

        def probabilities(x: np.ndarray) -> np.ndarray:
            return classifier.probabilities(cropped(x, choose(x) if transduction else crop, pixels))

        return replace(classifier, probabilities=probabilities, notes=classifier.notes | {"crop": crop._asdict()})

    return matched
