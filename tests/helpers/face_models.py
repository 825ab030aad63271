"""A made-up face model as a user brings one: ours in another place, size and unit, with a few blend shapes."""

from pathlib import Path

import numpy as np
from helpers.mesh_files import Gltf

from utils.synthetic.expressions import rotation
from utils.synthetic.face_model import load_face_model

TURN = rotation(np.array([5.0, -10.0, 20.0]))
HALVES = ("browInnerUp_L", "browInnerUp_R")  # some models have two of what ours has one
# A few, by which each emotion can be shown in one way at least
UNITS = ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen", "mouthPucker", "mouthSmileLeft", "mouthSmileRight", "browDownLeft")
UNITS += ("browDownRight", "browOuterUpLeft", "browOuterUpRight", "mouthFrownLeft", "mouthFrownRight")
UNITS += ("mouthDimpleLeft", "mouthDimpleRight", "eyeSquintLeft", "eyeSquintRight")


def elsewhere(vertices):
    """In centimetres, turned and shifted."""
    return 0.1 * vertices @ TURN.T + [3.0, -2.0, 50.0]


def shapes() -> dict[str, np.ndarray]:
    """Offsets (V, 3) mm by the names that a user's model has."""
    model = load_face_model()
    left = (model.template[:, :1] > 0).astype(float)
    found = {name: model.shapes[name] for name in UNITS}
    found |= {name: side * model.shapes["browInnerUp"] for name, side in zip(HALVES, (left, 1 - left), strict=True)}
    return {name.replace("mouthSmileLeft", "mouthSmile_L"): offset for name, offset in found.items()}


def write_obj_model(folder: Path) -> Path:
    """A folder of OBJ files, one of another person."""
    folder.mkdir(exist_ok=True)
    template = load_face_model().template
    write_obj(folder / "generic_neutral_mesh.obj", template)
    write_obj(folder / "identity000.obj", template * [1.05, 1, 1])
    for name, offset in shapes().items():
        write_obj(folder / f"{name}.obj", template + offset)
    return folder


def write_obj(path: Path, vertices: np.ndarray) -> None:
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in elsewhere(vertices)]
    lines += [f"f {a} {b} {c}" for a, b, c in load_face_model().faces + 1]
    path.write_text("\n".join(["# a face", *lines]) + "\n")


def gltf_model() -> Gltf:
    """The same as a glTF of morph targets, without another person, with lashes before it."""
    model, gltf = load_face_model(), Gltf()
    primitive = gltf.part(elsewhere(model.template) / 100, model.faces)
    moves = {name: np.asarray(offset @ TURN.T / 1000, "<f4") for name, offset in shapes().items()}
    primitive["targets"] = [{"POSITION": gltf.numbers(move)} for move in moves.values()]
    gltf.json["meshes"][0]["extras"] = {"targetNames": list(moves)}
    gltf.part(elsewhere(model.template + [0, 0, 3]) / 100, model.faces, name="Eyelashes")
    return gltf
