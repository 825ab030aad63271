"""A run that is killed three times, in its data and in two stages, ends in the same files and leaves nothing behind."""

from utils.lab.kills import PARTS, try_kills
from utils.run import STAGES


def test_every_part_of_a_run_has_its_turn():
    assert PARTS == ("data", *STAGES["submit"])


def test_a_run_survives_three_kills_to_the_byte(tmp_path):
    found, faults = try_kills(tmp_path, 3, 0, ["--profile", "smoke", "--set", "epochs=1", "--jobs", "2"])
    assert faults == [] and len(found) == 3
    assert {kill.what for kill in found} == {"all processes", "the run alone"}
