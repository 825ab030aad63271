"""`Views`, the result of stage 01 for one sequence."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

N_VIEWS = {"render": 2, "split": 2, "single": 1}  # number of views for each value of the parameter `views`


@dataclass(frozen=True)
class Views:
    """What `01_render` leaves of one sequence; every later stage reads it."""

    frames: np.ndarray  # (T, V, S, S, 3) uint8 RGB
    masks: np.ndarray  # (V, S, S) bool, the face in the first frame
    boxes: np.ndarray  # (V, 3) float, x, y, side of each view's crop in pixels of the uncropped view
    # How the crop was found: "override", "mesh", "face" (of a larger mesh), "detector", "picture", "centred"
    source: str
    stabilised: bool  # whether the head's rigid motion was removed in 3D
    axes: str = "y-up"  # axes of the mesh file, a key of `utils.render.axes.AXES`
    warnings: tuple[str, ...] = ()

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name as arrays, in the form in which they are stored."""
        parts = {name: np.asarray(value) for name, value in vars(self).items()}
        return parts | {"warnings": np.array(self.warnings, dtype=str)}

    @classmethod
    def from_arrays(cls, parts: Mapping[str, np.ndarray]) -> "Views":
        """The views that `arrays` was called on."""
        scalars = {name: parts[name].item() for name in ("source", "stabilised", "axes")}
        return cls(**{**parts, **scalars, "warnings": tuple(parts["warnings"].tolist())})
