"""From the views of a clip to the network's input x (V, P=2, C=3, S, S) float32 with channels u, v, magnitude."""

import cv2
import numpy as np

from utils.flow.apex import spot_apex
from utils.flow.methods import phase_flows
from utils.render.view_set import Views

Moments = tuple[int, int, int]  # positions of onset, apex and offset in the sequence


def flow_maps(flows: np.ndarray, masks: np.ndarray, size: int) -> np.ndarray:
    """Maps (V, P, C=3, size, size) float32 px from flows (V, P, H, W, 2) and face masks (V, H, W).

    Motion outside the face is set to zero. Each map pixel is the mean over its area; the magnitude is computed before
    averaging, so that opposite motions within an area do not cancel in it.
    """
    magnitude = np.linalg.norm(flows, axis=-1, keepdims=True)
    planes = np.concatenate([flows, magnitude], -1) * masks[:, None, :, :, None]
    small = [[cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in view] for view in planes]
    return np.moveaxis(np.array(small, np.float32), -1, 2)


def clip_flows(views: Views, moments: Moments, method: str) -> np.ndarray:
    """The phase flows (V, P=2, S, S, 2) of a clip. The head's motion is subtracted if it was not removed in 3D."""
    return phase_flows(views.frames, moments, method, None if views.stabilised else views.masks)


def clip_features(views: Views, moments: Moments, size: int = 28, method: str = "faceflow") -> np.ndarray:
    """The network's input (V, P=2, C=3, size, size) for one clip with these moments."""
    return flow_maps(clip_flows(views, moments, method), views.masks, size)


def features_of(
    views: Views,
    flow_method: str,
    apex_method: str,
    apex_size: int,
    feature_size: int,
    given: Moments | None = None,
    longer: bool = False,
) -> dict[str, np.ndarray]:
    """Stage 02 for one clip.

    given: the moments to use instead of the spotted ones; longer: whether the clip may begin before its onset and end
    after its offset. Returns x, the network's input; spotted (3,), the spotted moments; moments (3,), those that x
    was made from; curve (T,), the motion curve.
    """
    spotting = spot_apex(views.frames, views.masks, apex_size, apex_method)
    spotted = spotting.moments(longer)
    moments = given or spotted
    x = clip_features(views, moments, feature_size, flow_method)
    return {"x": x, "spotted": np.array(spotted), "moments": np.array(moments), "curve": spotting.curve}
