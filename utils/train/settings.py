"""How a network is trained: one frozen record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Defaults were chosen by subject-held-out validation and are ours, not the paper's."""

    mode: str = "multi-label"  # or "single-label": softmax and arg max instead of sigmoids and thresholds
    epochs: int = 40
    patience: int = 15  # epochs without a better validation loss before stopping; 0: all epochs, keep the last
    stop_by: str = "loss"  # of the validation clips; or, for single labels, their "accuracy"
    batch: int = 32  # clips
    lr: float = 2e-3
    weight_decay: float = 1e-2  # of AdamW; 0 makes it Adam
    schedule: str = "cosine"  # after a warm-up over a tenth of the steps; or "constant"
    loss: str = "focal"  # or "bce": cross-entropy, the same with gamma 0 and no class weights
    gamma: float = 2.0
    mirror: float = 0.5  # probability of a mirrored clip
    rotate: float = 8.0  # degrees, uniform within +-
    zoom: float = 0.08  # relative, uniform within +-
    shift: float = 0.04  # of the map's side, uniform within +-
    gain: float = 0.2  # sigma of the log of a factor on the whole clip
    mixup: float = 0.4  # Beta(a, a); 0 for none
    mirror_average: bool = True  # predict the clip and its mirror, average
    # Where training started from given weights: the share of the trained weights in the mean of both that is kept.
    interpolation: float = 1.0
    unit_weight: float = 1.0  # of the auxiliary action unit loss, where units are known
    device: str = "auto"  # "cuda" where there is one, else "cpu"
    precision: str = "auto"  # of the network: "bfloat16" on a CUDA device that computes in it, else "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("mode", ("multi-label", "single-label")),
            ("schedule", ("cosine", "constant")),
            ("loss", ("focal", "bce")),
            ("precision", ("auto", "float32", "bfloat16")),
            ("stop_by", ("loss", "accuracy") if self.mode == "single-label" else ("loss",)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}. Remedy: one of {allowed}.")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation is {self.interpolation}. Remedy: 0 (initial weights) to 1 (trained ones).")
