"""The shipped networks, which synthetic motion taught: their files, and how to use and fine-tune them."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from utils.paths import WEIGHTS, data_file
from utils.train.ensemble import Ensemble, forward_all, load_ensemble, predict
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.network import count_parameters
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

FILES = {  # by kind of network: the weights and their record
    "dual": (data_file("weights/classifier-dual.safetensors"), data_file("weights/classifier-dual.json")),
    "frontal": (data_file("weights/classifier-frontal.safetensors"), data_file("weights/classifier-frontal.json")),
    "single": (data_file("weights/classifier-single.safetensors"), data_file("weights/classifier-single.json")),
}
KINDS = {1: "frontal", 2: "dual"}  # kind of network by the number of views of a clip

FINE_TUNE = {  # settings of fine-tuning by kind of network; gentle for the clips of the pipeline
    **dict.fromkeys(KINDS.values(), TrainConfig(loss="bce", epochs=12, lr=2e-4, patience=0)),
    "single": TrainConfig(mode="single-label", loss="bce", epochs=40, lr=2e-3, patience=0, interpolation=0.8),
}
# Hard fine-tuning: as many epochs and as large steps as from scratch, for clips that differ from the synthetic ones.
TUNE_HARD = TrainConfig(loss="bce", epochs=40, lr=2e-3, patience=0)


@lru_cache
def load_pretrained(kind: str) -> Ensemble:
    """The shipped network "dual" or "frontal" (two views or one, two phases, CLASSES) or "single" (a flow image)."""
    return load_ensemble(WEIGHTS, FILES[kind][0].stem)


def initial_state(kind: str) -> dict[str, torch.Tensor]:
    """The shipped weights, for `fit(..., init=...)`. "scale" (2,) is the scale of their input (`TrainedNetwork`)."""
    member = load_pretrained(kind).members[0]
    return {**member.state, "scale": torch.tensor(member.scale)}


def zero_shot_estimator(ensemble: Ensemble, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Estimator:
    """An estimator for `protocol.cross_validate` that learns nothing: it returns the network unchanged.

    The network's classes correspond to the classes of the samples by position. `change` is applied to the clips before
    the network sees them. Raises ValueError if the numbers of classes differ.
    """

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        if len(train.classes) != len(ensemble.classes):
            raise ValueError(
                f"the samples have classes {train.classes}, the network knows {ensemble.classes}. "
                "Remedy: give samples with as many, in that order."
            )
        notes = {"parameters": count_parameters(ensemble.model_config), "epochs": []}
        return Classifier(lambda x: predict(ensemble, change(x))[0], ensemble.thresholds, notes)

    return estimator


def unit_probabilities(kind: str, x: np.ndarray) -> np.ndarray:
    """Probability (N, 19) of each of ACTION_UNITS in clips x (N, V, P, 3, H, W), by the shipped network."""
    return forward_all(load_pretrained(kind), x)[2].sigmoid().mean(0).numpy()
