"""Baselines: trivial answers, classical features, and small networks of the field.

`baselines(mode)` gives the estimators for `protocol.cross_validate` by name. Every choice (C, input, epoch,
thresholds) is made on the inner folds of the training subjects. A classical model scores each class against the
rest; a logistic curve, fitted on the inner out-of-fold scores, turns the scores into probabilities (Platt 1999).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import solve
from sklearn.covariance import shrunk_covariance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn

from utils.evaluate.rows import EVERY_LABEL, PAPER_NETWORK, SVM
from utils.flow.strain import optical_strain
from utils.train.decision import Thresholds, choose_thresholds
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

# Trivial answers -------------------------------------------------------------------------------------


def prior_random(mode: str = "multi-label") -> Estimator:
    """Random labels, each as frequent as in the training clips."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        prevalence = train.y.mean(axis=0)

        def probabilities(x: np.ndarray) -> np.ndarray:
            noise = np.random.default_rng([seed, len(train)]).random((len(x), len(prevalence)))
            if mode == "multi-label":
                return noise
            # The arg max of these scores is class k with probability prevalence[k].
            scores = np.maximum(prevalence, 1e-9) / -np.log(noise)
            return scores / scores.sum(axis=1, keepdims=True)

        return Classifier(probabilities, _fixed(1 - prevalence, "1 - training prevalence", mode))

    return estimator


def all_ones(mode: str = "multi-label") -> Estimator:
    """Every label for every clip. No other constant answer has a higher macro-UF1."""
    if mode != "multi-label":
        raise ValueError("all_ones gives several labels per clip. Remedy: leave it out where labels are single.")
    return lambda train, inner, seed: _constant(np.ones(train.y.shape[1]), mode)


def best_constant(mode: str = "multi-label") -> Estimator:
    """The constant answer that is right most often in training: the majority value of each class, or, for single
    labels, the most frequent class."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        prevalence = train.y.mean(axis=0)
        answer = prevalence > 0.5 if mode == "multi-label" else prevalence == prevalence.max()
        return _constant(answer.astype(float), mode)

    return estimator


def _constant(answer: np.ndarray, mode: str) -> Classifier:
    return Classifier(lambda x: np.tile(answer, (len(x), 1)), _fixed(np.full(len(answer), 0.5), "fixed", mode))


def _fixed(values: np.ndarray, source: str, mode: str) -> Thresholds | None:
    return Thresholds(values, (source,) * len(values)) if mode == "multi-label" else None


# Classical features ----------------------------------------------------------------------------------


def averaged_flow(x: np.ndarray, grid: int, channels: int) -> np.ndarray:
    """Mean flow in grid x grid blocks of every view and phase: x (N, V, P, 3, H, W) -> (N, V*P*channels*grid^2)."""
    maps = torch.from_numpy(np.ascontiguousarray(x[:, :, :, :channels])).flatten(1, 3)
    return F.adaptive_avg_pool2d(maps, grid).flatten(1).numpy()


def bi_woof(x: np.ndarray, grid: int, bins: int = 8) -> np.ndarray:
    """Bi-weighted oriented optical flow: x (N, V, P, 3, H, W) -> (N, V*P*grid^2*bins).

    Each block has a histogram of the flow directions, weighted by magnitude. The mean optical strain of the block
    weights the whole histogram. Source: Liong et al. 2018, "Less is more: micro-expression recognition from video using
    apex frame".
    """
    u, v = x[:, :, :, 0], x[:, :, :, 1]
    direction = (np.arctan2(v, u) / (2 * np.pi) * bins).astype(int) % bins  # (N, V, P, H, W)
    weighted = (direction[..., None] == np.arange(bins)) * np.hypot(u, v)[..., None]
    histograms = _block_means(np.moveaxis(weighted, -1, 3), grid)  # (N, V, P, bins, grid, grid)
    histograms /= np.maximum(histograms.sum(axis=3, keepdims=True), 1e-9)
    return (histograms * _block_means(optical_strain(u, v)[:, :, :, None], grid)).reshape(len(x), -1)


def _block_means(maps: np.ndarray, grid: int) -> np.ndarray:
    flat = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32)).flatten(1, 3)
    return F.adaptive_avg_pool2d(flat, grid).numpy().reshape(*maps.shape[:4], grid, grid)


Trainer = Callable[[np.ndarray, np.ndarray, Sequence], Callable[[np.ndarray], np.ndarray]]


def tuned(
    extract: Callable[..., np.ndarray], inputs: Sequence[dict], train_all: Trainer, settings: Sequence, mode: str
) -> Estimator:
    """Estimator of a classical model. It chooses input and setting by the inner out-of-fold scores (`_separation`).

    extract(x, **input) -> features (N, D). train_all(features, y, settings) -> function from features (n, D)
    to scores (settings, n, K).
    """

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        candidates = []
        for options in inputs:
            features = extract(train.x, **options)
            scores = np.zeros((len(settings), *train.y.shape))
            for fit_on, test_on in inner:
                model = train_all(features[fit_on], train.y[fit_on], settings)
                scores[:, test_on] = model(features[test_on])
            candidates += [(options, *pair) for pair in zip(settings, scores, strict=True)]
        options, setting, held_out = max(candidates, key=lambda candidate: _separation(train.y, candidate[2], mode))
        model = train_all(extract(train.x, **options), train.y, [setting])
        curves = _calibrate(held_out, train.y, mode)
        held_out, thresholds = curves(held_out), None
        if mode == "multi-label":
            source = "inner out-of-fold"
            thresholds = choose_thresholds(train.y, held_out, train.y.mean(axis=0), source=source)
        notes = {"input": options, "setting": setting}
        return Classifier(lambda x: curves(model(extract(x, **options))[0]), thresholds, notes, held_out)

    return estimator


def each_class(build: Callable) -> Trainer:
    """A trainer of one binary model `build(setting)` per class and setting, on standardised features."""

    def train_all(features: np.ndarray, y: np.ndarray, settings: Sequence) -> Callable[[np.ndarray], np.ndarray]:
        scaler = StandardScaler().fit(features)
        scaled = scaler.transform(features)
        models = [[_fit_binary(build(setting), scaled, column) for column in y.T] for setting in settings]
        return lambda new: _scores(models, scaler.transform(new))

    return train_all


class ShrunkenDiscriminant:
    """Linear discriminant of two classes that share one shrunken covariance matrix, solved by Cholesky decomposition.

    scikit-learn's solver gives the same answer but uses a singular value decomposition, which is tens of times slower.
    """

    def __init__(self, shrinkage: float) -> None:
        self.shrinkage = shrinkage

    def fit(self, features: np.ndarray, labels: np.ndarray) -> ShrunkenDiscriminant:
        """features (N, D), labels (N,) 0 or 1; both values must occur."""
        means = np.stack([features[labels == label].mean(axis=0) for label in (0, 1)])
        residuals = features - means[labels.astype(int)]
        covariance = shrunk_covariance(residuals.T @ residuals / len(residuals), self.shrinkage)
        self.slope = solve(covariance, means[1] - means[0], assume_a="pos")
        self.offset = np.log(labels.mean() / (1 - labels.mean())) - means.sum(axis=0) @ self.slope / 2
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        return features @ self.slope + self.offset


def kernel_machine(
    features: np.ndarray, y: np.ndarray, settings: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """A trainer of one RBF support vector machine per class and C. All share one kernel matrix with gamma 1 / D."""
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    gram = rbf_kernel(scaled)
    machines = [
        [_fit_binary(SVC(C=c, kernel="precomputed", class_weight="balanced"), gram, column) for column in y.T]
        for c in settings
    ]
    return lambda new: _scores(machines, rbf_kernel(scaler.transform(new), scaled))


def _fit_binary(model, features: np.ndarray, labels: np.ndarray):
    """The fitted model, or a constant score (1 or -1) if all labels have the same value."""
    return model.fit(features, labels) if 0 < labels.sum() < len(labels) else float(2 * labels[0] - 1)


def _scores(models: list[list], features: np.ndarray) -> np.ndarray:
    """Decision scores (settings, n, K)."""
    return np.array(
        [
            [np.full(len(features), m) if isinstance(m, float) else m.decision_function(features) for m in by_class]
            for by_class in models
        ]
    ).transpose(0, 2, 1)


def _separation(y: np.ndarray, scores: np.ndarray, mode: str) -> float:
    """How well scores separate the classes: mean average precision, or macro F1 of the arg max for single labels."""
    if mode == "multi-label":
        present = y.any(axis=0)
        return float(average_precision_score(y[:, present], scores[:, present], average="macro"))
    return float(f1_score(y.argmax(axis=1), scores.argmax(axis=1), average="macro"))


def _calibrate(scores: np.ndarray, y: np.ndarray, mode: str) -> Callable[[np.ndarray], np.ndarray]:
    """Fit the function from scores (n, K) to probabilities (n, K): one logistic curve per class, or, for single labels,
    one softmax regression with equal priors."""
    if mode == "single-label":
        present = np.flatnonzero(y.any(axis=0))
        joint = LogisticRegression(class_weight="balanced").fit(scores, y.argmax(axis=1))

        def softmax(new: np.ndarray) -> np.ndarray:
            probability = np.zeros(new.shape)
            probability[:, present] = joint.predict_proba(new)
            return probability

        return softmax
    curves = [
        LogisticRegression().fit(scores[:, [k]], y[:, k]) if 0 < y[:, k].sum() < len(y) else float(y[0, k])
        for k in range(y.shape[1])
    ]
    return lambda new: np.stack(
        [
            np.full(len(new), curve) if isinstance(curve, float) else curve.predict_proba(new[:, [k]])[:, 1]
            for k, curve in enumerate(curves)
        ],
        axis=1,
    )


def rbf_svm(mode: str = "multi-label") -> Estimator:
    """RBF support vector machine on averaged flow (Cortes and Vapnik 1995); inner folds choose grid, channels, C."""
    inputs = [{"grid": grid, "channels": channels} for grid in (4, 7, 10) for channels in (2, 3)]
    return tuned(averaged_flow, inputs, kernel_machine, (0.5, 2.0, 8.0), mode)


def lda(mode: str = "multi-label") -> Estimator:
    """Linear discriminant analysis on averaged flow; inner folds choose grid and shrinkage of the covariance."""
    build = each_class(ShrunkenDiscriminant)
    return tuned(averaged_flow, [{"grid": grid, "channels": 2} for grid in (4, 7)], build, (0.3, 0.9), mode)


def bi_woof_svm(mode: str = "multi-label") -> Estimator:
    """Linear support vector machine on Bi-WOOF (Liong et al. 2018); inner folds choose grid and C."""
    build = each_class(lambda c: LinearSVC(C=c, class_weight="balanced", random_state=0))
    return tuned(bi_woof, [{"grid": 5}, {"grid": 8}], build, (0.001, 0.01, 0.1), mode)


# Small networks of the field -------------------------------------------------------------------------


class STSTNet(nn.Module):
    """Three parallel 3x3 convolutions with 3, 5 and 8 filters on all maps (Liong et al. 2019, "Shallow triple stream
    three-dimensional CNN (STSTNet) for micro-expression recognition")."""

    def __init__(self, config: STSTNetConfig) -> None:
        super().__init__()
        maps = 3 * config.views * config.phases
        side = ((config.size + 1) // 3 + 1) // 2
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(maps, width, 3, padding=2),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.MaxPool2d(3, 3, padding=1),
                nn.Dropout(0.5),
            )
            for width in (3, 5, 8)
        )
        self.head = nn.Sequential(nn.AvgPool2d(2, 2), nn.Flatten(), nn.Linear(16 * side**2, config.classes))

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = x.flatten(1, 3)
        logits = self.head(torch.cat([stream(maps) for stream in self.streams], dim=1))
        return logits, x.new_zeros(len(x), 0), x.new_zeros(len(x), 0)


class OffApexNet(nn.Module):
    """Two streams for u and v, then two wide layers (Gan et al. 2019, "OFF-ApexNet on micro-expression recognition
    system")."""

    def __init__(self, config: OffApexNetConfig) -> None:
        super().__init__()
        maps, wide = config.views * config.phases, 2 * 16 * (config.size // 4) ** 2
        self.streams = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(maps, 6, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2, 2),
                nn.Conv2d(6, 16, 5, padding=2),
                nn.ReLU(),
                nn.MaxPool2d(2, 2),
                nn.Flatten(),
            )
            for _ in range(2)
        )
        self.head = nn.Sequential(
            nn.Linear(wide, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, config.classes)
        )

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = [stream(x[:, :, :, channel].flatten(1, 2)) for channel, stream in enumerate(self.streams)]
        return self.head(torch.cat(features, dim=1)), x.new_zeros(len(x), 0), x.new_zeros(len(x), 0)


@dataclass(frozen=True)
class STSTNetConfig(ModelConfig):
    """Only classes, views, phases and size are used."""

    def build(self) -> nn.Module:
        return STSTNet(self)


@dataclass(frozen=True)
class OffApexNetConfig(ModelConfig):
    """Only classes, views, phases and size are used."""

    def build(self) -> nn.Module:
        return OffApexNet(self)


PLAIN = TrainConfig(
    lr=1e-3,
    weight_decay=0.0,
    schedule="constant",
    mirror=0.0,
    rotate=0.0,
    zoom=0.0,
    shift=0.0,
    gain=0.0,
    mixup=0.0,
    mirror_average=False,
)  # Adam alone, as in the papers
STSTNET = replace(PLAIN, loss="bce", epochs=100, patience=20, lr=3e-3)
OFF_APEXNET = replace(PLAIN, loss="bce", epochs=60, patience=15, lr=1e-4)


def plain_network(config: type[ModelConfig], train_config: TrainConfig) -> Estimator:
    """Estimator of one network. Its shape follows the data; the first inner fold decides when training stops."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        views, phases = train.x.shape[1:3]
        shaped = config(classes=len(train.classes), views=views, phases=phases, share_views=False)
        return network_estimator(shaped, train_config, how="first")(train, inner, seed)

    return estimator


def ststnet(mode: str = "multi-label") -> Estimator:
    """STSTNet with Adam and cross-entropy. The paper's learning rate of 5e-5 would take hours; this one is larger."""
    return plain_network(STSTNetConfig, replace(STSTNET, mode=mode))


def off_apexnet(mode: str = "multi-label") -> Estimator:
    """Off-ApexNet with Adam, learning rate 1e-4, and cross-entropy."""
    return plain_network(OffApexNetConfig, replace(OFF_APEXNET, mode=mode))


def paper_network(mode: str = "multi-label") -> Estimator:
    """The network as its paper describes it (arXiv 2603.26849): one network, Adam, focal loss, early stopping.

    It has none of our additions: shared views, augmentation, mixup, weight decay, schedule, mirror averaging, ensemble.
    """
    return plain_network(ModelConfig, replace(PLAIN, mode=mode))


# Together --------------------------------------------------------------------------------------------


def baselines(mode: str = "multi-label") -> dict[str, Estimator]:
    """The estimators by name, in the order of the table. Single-label data have no row EVERY_LABEL."""
    makers = {
        "prior-random": prior_random,
        EVERY_LABEL: all_ones,
        "best constant": best_constant,
        "LDA": lda,
        SVM: rbf_svm,
        "Bi-WOOF + linear SVM": bi_woof_svm,
        "STSTNet": ststnet,
        "Off-ApexNet": off_apexnet,
        PAPER_NETWORK: paper_network,
    }
    return {name: make(mode) for name, make in makers.items() if mode == "multi-label" or make is not all_ones}
