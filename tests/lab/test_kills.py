"""Facts about utils.lab.kills: a run that is killed ends with the same files and leaves nothing behind."""

from utils.lab.kills import PARTS, try_kills
from utils.run import STAGES


def test_every_part_of_a_run_is_killed():
    assert PARTS == ("data", *STAGES["submit"])


def test_a_run_survives_three_kills_byte_for_byte(tmp_path):
    kills, faults = try_kills(tmp_path, 3, 0, ["--profile", "smoke", "--set", "epochs=1", "--jobs", "2"])
    assert faults == [] and len(kills) == 3
    assert {kill.what for kill in kills} == {"all processes", "the run alone"}
