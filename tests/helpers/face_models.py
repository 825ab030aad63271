"""A face model as a user brings one: ours with other axes, place and length unit, and with a few blend shapes."""

from pathlib import Path

import numpy as np
from helpers.mesh_files import Gltf, obj_text

from utils.synthetic.expressions import rotation
from utils.synthetic.face_model import load_face_model

TURN = rotation(np.array([5.0, -10.0, 20.0]))
HALVES = ("browInnerUp_L", "browInnerUp_R")  # some models have two shapes where ours has one
# With these few shapes each emotion can be shown in at least one way.
NAMES = ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "mouthPucker", "mouthSmileLeft", "mouthSmileRight", "browDownLeft")
NAMES += ("browDownRight", "browOuterUpLeft", "browOuterUpRight", "mouthFrownLeft", "mouthFrownRight")
NAMES += ("mouthDimpleLeft", "mouthDimpleRight", "eyeSquintLeft", "eyeSquintRight")


def elsewhere(vertices):
    """Turn vertices (V, 3) mm, convert them to centimetres, and shift them."""
    return 0.1 * vertices @ TURN.T + [3.0, -2.0, 50.0]


def shapes() -> dict[str, np.ndarray]:
    """Offsets (V, 3) mm of the user's blend shapes by name, before `elsewhere`."""
    model = load_face_model()
    left = (model.template[:, :1] > 0).astype(float)
    offsets = {name.replace("mouthSmileLeft", "mouthSmile_L"): model.shapes[name] for name in NAMES}
    return offsets | {
        name: side * model.shapes["browInnerUp"] for name, side in zip(HALVES, (left, 1 - left), strict=True)
    }


def write_obj_model(folder: Path) -> Path:
    """Write the model as a folder of OBJ files: a neutral face, another person's face, and the shapes."""
    folder.mkdir(exist_ok=True)
    template = load_face_model().template
    write_obj(folder / "generic_neutral_mesh.obj", template)
    write_obj(folder / "identity000.obj", template * [1.05, 1, 1])
    for name, offset in shapes().items():
        write_obj(folder / f"{name}.obj", template + offset)
    return folder


def write_obj(path: Path, vertices: np.ndarray) -> None:
    path.write_text(obj_text(elsewhere(vertices), load_face_model().faces, head="# a face"))


def gltf_model() -> Gltf:
    """The model as a glTF with morph targets, without another person's face, and with a second part, the lashes."""
    model, gltf = load_face_model(), Gltf()
    primitive = gltf.part(elsewhere(model.template) / 100, model.faces)
    moves = {name: np.asarray(offset @ TURN.T / 1000, "<f4") for name, offset in shapes().items()}
    primitive["targets"] = [{"POSITION": gltf.numbers(move)} for move in moves.values()]
    gltf.json["meshes"][0]["extras"] = {"targetNames": list(moves)}
    gltf.part(elsewhere(model.template + [0, 0, 3]) / 100, model.faces, name="Eyelashes")
    return gltf
