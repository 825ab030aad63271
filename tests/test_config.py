"""Facts about profiles and parameters."""

import pytest

from utils.config import CHOICES, PROFILES, load_config
from utils.flow.methods import FLOW_METHODS
from utils.paths import ROOT
from utils.render.renderer import BACKENDS
from utils.synthetic.expressions import REPERTOIRES
from utils.train.samples import CLASSES


def test_classes_stand_in_the_order_of_the_challenge():
    assert CLASSES == ("Negative", "Positive", "Repression", "Surprise", "Others")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_carries_its_own_name(name):
    assert load_config(name).profile == name


def test_demo_is_the_default_profile():
    assert load_config() == load_config("demo")


def test_a_change_overrides_one_value_and_leaves_the_profile_alone():
    changed = load_config("smoke", epochs=2)
    assert changed.epochs == 2
    assert changed.n_subjects == PROFILES["smoke"].n_subjects
    assert PROFILES["smoke"].epochs != 2


def test_a_config_cannot_be_altered():
    with pytest.raises(AttributeError):
        load_config().epochs = 3


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'tiny'.*smoke, demo, full"):
        load_config("tiny")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'epoch'.*epochs"):
        load_config(epoch=3)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": "4"},
        {"epochs": 4.0},
        {"epochs": True},
        {"yaw_deg": "25"},
        {"yaw_deg": True},
        {"stabilise": 1},
        {"folds": 5},
        {"data": None},
    ],
)
def test_a_value_of_another_type_is_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        load_config(**change)


def test_a_whole_number_will_do_for_a_float():
    assert load_config(yaw_deg=20).yaw_deg == 20


def test_roots_lie_in_the_repository_unless_given():
    assert load_config("smoke").data_root == ROOT / "data" / "smoke"
    assert load_config("smoke").work_root == ROOT / "artefacts" / "smoke"
    assert str(load_config(data="/somewhere").data_root) == "/somewhere"
    assert str(load_config(work="/elsewhere").work_root) == "/elsewhere"


def test_the_record_leaves_the_machine_out():
    record = load_config("smoke", data="/somewhere", work="/elsewhere").record
    assert record["seed"] == 0 and record["profile"] == "smoke"
    assert "/somewhere" not in record.values() and "/elsewhere" not in record.values()


def test_settings_become_values_of_their_type():
    config = load_config("demo", "views=split seed=3 stabilise=False yaw_deg=30")
    assert (config.views, config.seed, config.stabilise, config.yaw_deg) == ("split", 3, False, 30.0)


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
def test_a_value_that_is_not_possible_is_refused_with_the_choices(setting, remedy):
    with pytest.raises(ValueError, match=f"{setting.partition('=')[0]}.*Remedy.*{remedy}"):
        load_config("demo", setting)


@pytest.mark.parametrize("setting", ["jobs=4", "data=/somewhere", "profile=full"])
def test_a_setting_with_an_option_of_its_own_is_refused_rather_than_ignored(setting):
    with pytest.raises(ValueError, match="option of its own.*Remedy"):
        load_config("demo", setting, data="", jobs=2)


def test_the_choices_are_what_the_code_offers():
    assert set(CHOICES["flow_method"]) == set(CHOICES["apex_method"]) == set(FLOW_METHODS)
    assert set(CHOICES["renderer"]) == {"auto", *BACKENDS} and set(CHOICES["expressions"]) == set(REPERTOIRES)


def test_workers_and_places_are_no_parameters_of_a_result():
    config = load_config("smoke", data="/somewhere", jobs=7)
    assert config.result_parameters == load_config("smoke").result_parameters
    assert config.result_parameters != load_config("smoke", seed=1).result_parameters
