"""What any network must beat, through the same folds and the same table: trivial answers, classical
features, small nets.

`baselines(mode)` gives name -> estimator for `protocol.cross_validate`. Every choice (C, input, epoch,
thresholds) is made on the inner folds of the training subjects. Classical models score one class against the
rest; their scores become probabilities by a logistic curve fitted on the inner out-of-fold scores (Platt
1999).
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

from utils.flow.strain import optical_strain
from utils.train.decision import Thresholds, choose_thresholds
from utils.train.estimator import Classifier, Estimator, Fold
from utils.train.fit import network_estimator
from utils.train.network import ModelConfig
from utils.train.samples import Samples
from utils.train.settings import TrainConfig

# Trivial answers -------------------------------------------------------------------------------------


def prior_random(mode: str = "multi-label") -> Estimator:
    """Every label at random, as often as in training."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        prevalence = train.y.mean(axis=0)

        def probabilities(x: np.ndarray) -> np.ndarray:
            noise = np.random.default_rng([seed, len(train)]).random((len(x), len(prevalence)))
            if mode == "multi-label":
                return noise
            # The arg max of this race is class k with probability prevalence[k].
            race = np.maximum(prevalence, 1e-9) / -np.log(noise)
            return race / race.sum(axis=1, keepdims=True)

        return Classifier(probabilities, _fixed(1 - prevalence, "1 - training prevalence", mode))

    return estimator


def all_ones(mode: str = "multi-label") -> Estimator:
    """Every label for every clip; it is also the constant answer with the best macro-UF1."""
    if mode != "multi-label":
        raise ValueError("all_ones gives several labels per clip. Remedy: leave it out where labels are single.")
    return lambda train, inner, seed: _constant(np.ones(train.y.shape[1]), mode)


def best_constant(mode: str = "multi-label") -> Estimator:
    """The constant answer that is right most often in training: per class the majority, or the most frequent
    class.
    """

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
    """Flow averaged over grid x grid blocks of every view and phase: x (N, V, P, 3, H, W) -> (N,
    V*P*channels*grid^2).
    """
    maps = torch.from_numpy(np.ascontiguousarray(x[:, :, :, :channels])).flatten(1, 3)
    return F.adaptive_avg_pool2d(maps, grid).flatten(1).numpy()


def bi_woof(x: np.ndarray, grid: int, bins: int = 8) -> np.ndarray:
    """Bi-weighted oriented optical flow: x (N, V, P, 3, H, W) -> (N, V*P*grid^2*bins).

    Per block, a histogram of flow directions weighted by magnitude; each block's histogram weighted by its
    mean optical strain. Source: Liong et al. 2018, "Less is more: micro-expression recognition from video
    using apex frame".
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
    """A classical model whose input and setting are chosen on the inner out-of-fold scores.

    extract(x, **input) -> features (N, D). train_all(features, y, settings) -> function from features (n, D)
    to scores (settings, n, K). Chosen by mean average precision, for single labels by macro F1 of the arg
    max.
    """

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        candidates = []
        for chosen in inputs:
            features = extract(train.x, **chosen)
            scores = np.zeros((len(settings), *train.y.shape))
            for fit_on, judge_on in inner:
                model = train_all(features[fit_on], train.y[fit_on], settings)
                scores[:, judge_on] = model(features[judge_on])
            candidates += [(chosen, setting, one) for setting, one in zip(settings, scores, strict=True)]
        chosen, setting, held_out = max(candidates, key=lambda one: _separation(train.y, one[2], mode))
        model, curves = (train_all(extract(train.x, **chosen), train.y, [setting]), _calibrate(held_out, train.y, mode))
        held_out, thresholds = curves(held_out), None
        if mode == "multi-label":
            source = "inner out-of-fold"
            thresholds = choose_thresholds(train.y, held_out, train.y.mean(axis=0), source=source)
        notes = {"input": chosen, "setting": setting}
        return Classifier(lambda x: curves(model(extract(x, **chosen))[0]), thresholds, notes, held_out)

    return estimator


def each_class(build: Callable) -> Trainer:
    """One binary model of `build(setting)` per class and setting, on standardised features."""

    def train_all(features: np.ndarray, y: np.ndarray, settings: Sequence) -> Callable[[np.ndarray], np.ndarray]:
        scaler = StandardScaler().fit(features)
        scaled = scaler.transform(features)
        models = [[_fit_binary(build(setting), scaled, column) for column in y.T] for setting in settings]
        return lambda new: _scores(models, scaler.transform(new))

    return train_all


class ShrunkenDiscriminant:
    """Linear discriminant of two classes with equally shrunken covariances, solved by Cholesky: scikit-learn's solver
    decomposes the matrix into its singular values, which takes tens of times as long and gives the same answer."""

    def __init__(self, shrinkage: float) -> None:
        self.shrinkage = shrinkage

    def fit(self, features: np.ndarray, labels: np.ndarray) -> ShrunkenDiscriminant:
        """features (N, D), labels (N,) 0 or 1, both present."""
        means = np.stack([features[labels == label].mean(axis=0) for label in (0, 1)])
        rest = features - means[labels.astype(int)]
        covariance = shrunk_covariance(rest.T @ rest / len(rest), self.shrinkage)
        self.slope = solve(covariance, means[1] - means[0], assume_a="pos")
        self.offset = np.log(labels.mean() / (1 - labels.mean())) - means.sum(axis=0) @ self.slope / 2
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        return features @ self.slope + self.offset


def kernel_machine(
    features: np.ndarray, y: np.ndarray, settings: Sequence[float]
) -> Callable[[np.ndarray], np.ndarray]:
    """One RBF support vector machine per class and C; all share one kernel matrix, gamma 1 / dimensions."""
    scaler = StandardScaler().fit(features)
    scaled = scaler.transform(features)
    gram = rbf_kernel(scaled)
    machines = [
        [_fit_binary(SVC(C=c, kernel="precomputed", class_weight="balanced"), gram, column) for column in y.T]
        for c in settings
    ]
    return lambda new: _scores(machines, rbf_kernel(scaler.transform(new), scaled))


def _fit_binary(model, features: np.ndarray, labels: np.ndarray):
    """The fitted model, or where the labels have one value only, that value's constant score."""
    return model.fit(features, labels) if 0 < labels.sum() < len(labels) else float(2 * labels[0] - 1)


def _scores(models: list[list], features: np.ndarray) -> np.ndarray:
    """Decision scores (settings, n, K)."""
    return np.array(
        [
            [np.full(len(features), m) if isinstance(m, float) else m.decision_function(features) for m in row]
            for row in models
        ]
    ).transpose(0, 2, 1)


def _separation(y: np.ndarray, scores: np.ndarray, mode: str) -> float:
    """How well inner out-of-fold scores tell the classes apart: mean average precision, or macro F1 of the
    arg max.
    """
    if mode == "multi-label":
        present = y.any(axis=0)
        return float(average_precision_score(y[:, present], scores[:, present], average="macro"))
    return float(f1_score(y.argmax(axis=1), scores.argmax(axis=1), average="macro"))


def _calibrate(scores: np.ndarray, y: np.ndarray, mode: str) -> Callable[[np.ndarray], np.ndarray]:
    """Scores (N, K) -> probabilities (N, K): a logistic curve per class, or one softmax regression with
    equal priors.
    """
    if mode == "single-label":
        seen = np.flatnonzero(y.any(axis=0))
        joint = LogisticRegression(class_weight="balanced").fit(scores, y.argmax(axis=1))

        def softmax(new: np.ndarray) -> np.ndarray:
            probability = np.zeros(new.shape)
            probability[:, seen] = joint.predict_proba(new)
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
    """RBF support vector machine on averaged flow; grid, channels and C chosen inside (Cortes and Vapnik
    1995).
    """
    inputs = [{"grid": grid, "channels": channels} for grid in (4, 7, 10) for channels in (2, 3)]
    return tuned(averaged_flow, inputs, kernel_machine, (0.5, 2.0, 8.0), mode)


def lda(mode: str = "multi-label") -> Estimator:
    """Linear discriminant analysis on averaged flow; grid and shrinkage of the covariance chosen inside."""
    build = each_class(ShrunkenDiscriminant)
    return tuned(averaged_flow, [{"grid": grid, "channels": 2} for grid in (4, 7)], build, (0.3, 0.9), mode)


def bi_woof_svm(mode: str = "multi-label") -> Estimator:
    """Linear support vector machine on Bi-WOOF; grid and C chosen inside (Liong et al. 2018)."""
    build = each_class(lambda c: LinearSVC(C=c, class_weight="balanced", random_state=0))
    return tuned(bi_woof, [{"grid": 5}, {"grid": 8}], build, (0.001, 0.01, 0.1), mode)


# Small networks of the field -------------------------------------------------------------------------


class STSTNet(nn.Module):
    """Shallow triple stream three-dimensional CNN (Liong et al. 2019, "Shallow triple stream
    three-dimensional CNN (STSTNet) for micro-expression recognition"): three 3x3 convolutions of 3, 5, 8
    filters on all maps, side by side."""

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
    """Two streams, u and v, then two wide layers (Gan et al. 2019, "OFF-ApexNet on micro-expression
    recognition system").
    """

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
)  # Adam and nothing else, as the papers train


STSTNET = replace(PLAIN, loss="bce", epochs=100, patience=20, lr=3e-3)
OFF_APEXNET = replace(PLAIN, loss="bce", epochs=60, patience=15, lr=1e-4)


def plain_network(config: type[ModelConfig], train_config: TrainConfig) -> Estimator:
    """One network of `config`, shaped to the data, without augmentation, stopped on the first inner fold."""

    def estimator(train: Samples, inner: list[Fold], seed: int) -> Classifier:
        views, phases = train.x.shape[1:3]
        shaped = config(classes=len(train.classes), views=views, phases=phases, share_views=False)
        return network_estimator(shaped, train_config, how="first")(train, inner, seed)

    return estimator


def ststnet(mode: str = "multi-label") -> Estimator:
    """STSTNet, Adam, cross-entropy; more and larger steps than its 5e-5, which needs hours."""
    return plain_network(STSTNetConfig, replace(STSTNET, mode=mode))


def off_apexnet(mode: str = "multi-label") -> Estimator:
    """Off-ApexNet, Adam 1e-4, cross-entropy."""
    return plain_network(OffApexNetConfig, replace(OFF_APEXNET, mode=mode))


def paper_faithful(mode: str = "multi-label") -> Estimator:
    """Our network with the pieces that its paper names and nothing of ours (arXiv 2603.26849).

    One network, Adam, focal loss, early stopping; no shared views, augmentation, mixup, weight decay,
    schedule, mirror averaging or ensemble.
    """
    return plain_network(ModelConfig, replace(PLAIN, mode=mode))


# Together --------------------------------------------------------------------------------------------


def baselines(mode: str = "multi-label") -> dict[str, Estimator]:
    """name -> estimator, in the order of a table; single-label data has no all-ones row."""
    makers = {
        "prior-random": prior_random,
        "all-ones": all_ones,
        "best constant": best_constant,
        "LDA": lda,
        "RBF-SVM": rbf_svm,
        "Bi-WOOF + linear SVM": bi_woof_svm,
        "STSTNet": ststnet,
        "Off-ApexNet": off_apexnet,
        "paper-faithful": paper_faithful,
    }
    return {name: make(mode) for name, make in makers.items() if mode == "multi-label" or make is not all_ones}
