"""The views of one sequence, as `01_render` leaves them and every later stage reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

N_VIEWS = {"render": 2, "split": 2, "single": 1}  # by the way in which they are made


@dataclass(frozen=True)
class Views:
    """What `01_render` leaves for the stages after it."""

    frames: np.ndarray  # (T, V, S, S, 3) uint8 RGB
    masks: np.ndarray  # (V, S, S) bool, the face in the first frame
    boxes: np.ndarray  # (V, 3) float, x, y, side of each view's crop in pixels of the uncropped view
    # How the crop was found: "override", "mesh", "face" (of a larger mesh), "detector", "picture", "centred"
    source: str
    stabilised: bool  # whether the head's rigid motion was removed in 3D
    axes: str = "y-up"  # of the mesh's file, see `utils.render.axes`
    warnings: tuple[str, ...] = field(default=())

    def arrays(self) -> dict[str, np.ndarray]:
        """The parts by name, as an artefact keeps them; `from_arrays` takes them back."""
        return {name: np.asarray(value) for name, value in vars(self).items() if name != "warnings"} | {
            "warnings": np.array(self.warnings, dtype=str)
        }

    @classmethod
    def from_arrays(cls, parts: Mapping[str, np.ndarray]) -> "Views":
        """What `arrays` gave."""
        simple = {name: str(parts[name]) for name in ("source", "axes")} | {"stabilised": bool(parts["stabilised"])}
        return cls(**{**parts, **simple, "warnings": tuple(parts["warnings"].tolist())})
