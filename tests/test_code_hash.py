"""Facts about the code part of a key: it follows imports and data files, and ignores what changes no result."""

import ast
import shutil
from pathlib import Path

import pytest

from utils import pipeline
from utils.code_hash import code_hash, data_files, reached_modules
from utils.evaluate.held_out import held_out_rows
from utils.flow.features import features_of
from utils.lab.teachers.flow_lessons import pairs_of_person
from utils.paths import ROOT
from utils.render.views import make_views, views_of
from utils.synthetic import data_root as synthetic

MAKERS = {
    "data": synthetic.make_subject,
    "views": make_views,
    "features": pipeline._extract,
    "held out": held_out_rows,
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
    assert {"utils.train.samples", "utils.train.fit", "utils.train.shipped"} <= reached["held out"]


# An edit that changes no view and no held-out prediction: file, text, new text.
HARMLESS = {
    "a word of a database's preset": ("dataset/presets.py", '"contempt"', '"scorn"'),
    "a parameter that nothing reads": ("config.py", "    seed: int = 0", '    note: str = ""\n    seed: int = 0'),
    "a figure": ("report/figures/train.py", "figsize=(", "figsize=(1 * "),
    "a laboratory script": ("lab/audit.py", "epochs=", "epochs=1 * "),
    "the table of expressions": ("synthetic/expressions.py", "(4, (", "(5, ("),
}


@pytest.mark.parametrize("edit", HARMLESS)
def test_an_edit_elsewhere_redoes_no_view_and_no_training(copy, edit):
    makers = {"views": views_of, "features": features_of, "held out": held_out_rows}
    before = {stage: code_hash(maker, copy) for stage, maker in makers.items()}
    place, old, new = HARMLESS[edit]
    file = copy / "utils" / place
    original = file.read_text()
    assert old in original
    file.write_text(original.replace(old, new, 1))
    assert {stage: code_hash(maker, copy) for stage, maker in makers.items()} == before
    file.write_text(original)


def test_a_data_file_is_named_by_a_literal(copy):
    file = copy / "utils" / "flow" / "strain.py"
    original = file.read_text()
    file.write_text(original + "\nfrom utils.paths import data_file\n\nTABLE = data_file(f'{1}.npz')\n")
    with pytest.raises(ValueError, match="not a literal.*Remedy"):
        reached_modules("utils.flow.strain", copy)
    file.write_text(original)


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


def test_a_stage_depends_on_the_data_files_that_its_modules_read_and_on_no_card():
    files = {stage: {file.name for file in data_files(reached_modules(maker))} for stage, maker in MAKERS.items()}
    kinds = [f"classifier-{kind}" for kind in ("dual", "frontal", "single")]
    assert files["held out"] == {f"{kind}.{suffix}" for kind in kinds for suffix in ("json", "safetensors")}
    assert files["features"] == {"flow.safetensors", "flow.json"} and files["views"] == set()
    assert files["data"] == {"face_model.npz"}


def test_code_of_another_package_is_refused():
    with pytest.raises(ModuleNotFoundError, match="not a module of utils"):
        code_hash("numpy.linalg")
