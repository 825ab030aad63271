"""Facts about the code part of a key: it follows imports and data files, and nothing that changes no result."""

import ast
import shutil
from pathlib import Path

import pytest

from utils import pipeline
from utils.code_hash import code_hash, data_files, reached_modules
from utils.evaluate.held_out import held_out
from utils.lab.teachers.flow_lessons import pairs_of_person
from utils.paths import ROOT
from utils.render.views import make_views
from utils.synthetic import data_root as synthetic

MAKERS = {
    "data": synthetic.make_subject,
    "views": make_views,
    "features": pipeline._extract,
    "held out": held_out,
    "lessons": pairs_of_person,
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the package that may be edited."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "utils", root / "utils", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def source(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def changed_constant(text: str) -> str | None:
    """The source with its last number or text that is no docstring replaced by another; None without any."""
    tree = ast.parse(text)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str) and id(node) not in docs
    ]
    if not found:
        return None
    last = found[-1]
    last.value = last.value + "x" if isinstance(last.value, str) else not last.value
    return ast.unparse(tree)


@pytest.mark.parametrize("stage", MAKERS)
def test_a_constant_changed_in_any_module_that_a_stage_reaches_changes_its_key(copy, stage):
    maker = MAKERS[stage]
    before = code_hash(maker, copy)
    assert before == code_hash(maker)
    tried = 0
    for name in reached_modules(maker):
        file = source(name, copy)
        original = file.read_text()
        if (edited := changed_constant(original)) is None:
            continue
        file.write_text(edited)
        assert code_hash(maker, copy) != before, name
        file.write_text(original)
        tried += 1
    assert tried >= 5 and code_hash(maker, copy) == before


def test_every_stage_reaches_the_modules_that_decide_its_result():
    reached = {stage: set(reached_modules(maker)) for stage, maker in MAKERS.items()}
    assert {"utils.render.views", "utils.render.renderer", "utils.dataset.readers"} <= reached["views"]
    assert {"utils.pipeline", "utils.flow.apex", "utils.flow.methods", "utils.flow.faceflow_net"} <= reached["features"]
    assert {
        "utils.train.samples",
        "utils.train.fit",
        "utils.lab.teachers.classifier",
        "utils.synthetic.expressions",
    } <= reached["held out"]
    assert "utils.flow.apex" not in reached["views"]


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("data", "face_model.npz"),
        ("features", "flow.safetensors"),
        ("features", "flow.json"),
        ("held out", "classifier-dual.safetensors"),
        ("held out", "classifier-dual.json"),
    ],
)
def test_another_face_model_or_other_weights_change_the_key(copy, stage, name):
    before = code_hash(MAKERS[stage], copy)
    (file,) = copy.rglob(name)
    content = file.read_bytes()
    file.write_bytes(content + b"x")
    assert code_hash(MAKERS[stage], copy) != before
    file.write_bytes(content)


def test_what_changes_no_result_changes_no_key(copy):
    before = {stage: code_hash(maker, copy) for stage, maker in MAKERS.items()}
    for file in copy.rglob("*.py"):
        text = file.read_text()
        if (doc := ast.get_docstring(ast.parse(text), clean=False)) is not None:
            file.write_text("# A comment.\n" + text.replace(doc, doc + " Reworded.", 1))
    for card in (copy / "utils" / "weights").glob("*.md"):
        card.write_text("Another card.")
    assert {stage: code_hash(maker, copy) for stage, maker in MAKERS.items()} == before


def test_weights_are_found_by_their_names_and_cards_are_not():
    names = {file.name for file in data_files(reached_modules(held_out))}
    assert names == {
        "face_model.npz",
        "flow.safetensors",
        "flow.json",
        "classifier-dual.safetensors",
        "classifier-dual.json",
        "classifier-frontal.safetensors",
        "classifier-frontal.json",
        "classifier-single.safetensors",
        "classifier-single.json",
    }


def test_code_of_another_package_is_refused():
    with pytest.raises(ModuleNotFoundError, match="not a module of utils"):
        code_hash("numpy.linalg")
