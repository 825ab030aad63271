"""Facts about profiles and parameters."""

import pytest

from utils.config import CHOICES, PROFILES, load_config
from utils.flow.methods import FLOW_METHODS
from utils.paths import ROOT
from utils.render.renderer import BACKENDS
from utils.synthetic.expressions import REPERTOIRES
from utils.train.samples import CLASSES


def test_classes_have_the_order_of_the_challenge():
    assert CLASSES == ("Negative", "Positive", "Repression", "Surprise", "Others")


def test_profiles_carry_their_names_and_demo_is_the_default():
    assert all(load_config(name).profile == name for name in PROFILES)
    assert load_config() == load_config("demo")


def test_a_change_overrides_one_value_and_leaves_the_profile_alone():
    changed = load_config("smoke", epochs=2)
    assert changed.epochs == 2 and changed.n_subjects == PROFILES["smoke"].n_subjects
    assert PROFILES["smoke"].epochs != 2
    with pytest.raises(AttributeError):
        changed.epochs = 3


def test_an_unknown_profile_or_parameter_is_refused_with_the_possible_names():
    with pytest.raises(ValueError, match="'tiny'.*smoke, demo, full"):
        load_config("tiny")
    with pytest.raises(ValueError, match="'epoch'.*epochs"):
        load_config(epoch=3)


WRONG_TYPES = {"epochs": ["4", 4.0, True], "yaw_deg": ["25", True], "stabilise": [1], "folds": [5], "data": [None]}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_value_of_the_wrong_type_is_refused(name):
    for value in WRONG_TYPES[name]:
        with pytest.raises(ValueError, match=name):
            load_config(**{name: value})


def test_roots_lie_in_the_repository_by_default():
    assert load_config("smoke").data_root == ROOT / "data" / "smoke"
    assert load_config("smoke").work_root == ROOT / "artefacts" / "smoke"
    assert str(load_config(data="/somewhere").data_root) == "/somewhere"
    assert str(load_config(work="/elsewhere").work_root) == "/elsewhere"


def test_paths_are_left_out_of_the_record_and_also_workers_out_of_the_result_parameters():
    config = load_config("smoke", data="/somewhere", work="/elsewhere", jobs=7)
    assert config.record["seed"] == 0 and config.record["profile"] == "smoke"
    assert not {"/somewhere", "/elsewhere"} & {str(value) for value in config.record.values()}
    assert config.result_parameters == load_config("smoke").result_parameters
    assert config.result_parameters != load_config("smoke", seed=1).result_parameters


def test_settings_become_values_of_the_right_type():
    config = load_config("demo", "views=split seed=3 stabilise=False yaw_deg=30")
    assert (config.views, config.seed, config.stabilise, config.yaw_deg) == ("split", 3, False, 30.0)
    assert load_config(yaw_deg=20).yaw_deg == 20  # a float may be given as a whole number


@pytest.mark.parametrize("text", ["sead=3", "seed", "seed=three", "stabilise=maybe"])
def test_a_wrong_setting_is_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match="Remedy"):
        load_config("demo", text)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("flow_method=diss", "faceflow, farneback, dis"),
        ("apex_method=diss", "faceflow, farneback, dis"),
        ("views=splitt", "render, split"),
        ("clip_table=4DME", "4dme, smoke"),
        ("renderer=opengl", "auto, egl, osmesa, embree"),
        ("moments=true", "spotted, found, given"),
        ("folds=LOSO", "loso.*number of at least 2"),
        ("folds=1", "loso.*number of at least 2"),
        ("seed=-1", "from 0"),
        ("size=0", "from 32"),
        ("yaw_deg=nan", "from 0 to 80"),
        ("yaw_deg=inf", "from 0 to 80"),
        ("n_test_subjects=24", "fewer than n_subjects=24"),
        ("inner_folds=1", "at least 2"),
        ("epochs=-1", "at least 0"),
    ],
)
def test_an_impossible_value_is_refused_with_the_possible_values(setting, remedy):
    with pytest.raises(ValueError, match=f"{setting.partition('=')[0]}.*Remedy.*{remedy}"):
        load_config("demo", setting)


@pytest.mark.parametrize("setting", ["jobs=4", "data=/somewhere", "profile=full"])
def test_a_setting_that_has_its_own_option_is_refused(setting):
    with pytest.raises(ValueError, match="option of its own.*Remedy"):
        load_config("demo", setting, data="", jobs=2)


def test_the_choices_are_those_that_the_code_offers():
    assert set(CHOICES["flow_method"]) == set(CHOICES["apex_method"]) == set(FLOW_METHODS)
    assert set(CHOICES["renderer"]) == {"auto", *BACKENDS} and set(CHOICES["expressions"]) == set(REPERTOIRES)
