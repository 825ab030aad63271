import numpy as np
import pytest

from utils.train.samples import Samples


def make(n: int = 6, units: bool = False, **changes) -> Samples:
    rng = np.random.default_rng(0)
    parts = dict(
        x=rng.normal(size=(n, 2, 2, 3, 8, 8)),
        y=rng.integers(0, 2, (n, 3)),
        ids=[f"c{i}" for i in range(n)],
        subjects=[f"s{i % 3}" for i in range(n)],
        classes=("a", "b", "c"),
        units=rng.random((n, 4)) if units else None,
    )
    return Samples(**{**parts, **changes})


@pytest.mark.parametrize("units", [False, True])
def test_what_is_saved_is_loaded(tmp_path, units):
    before = make(units=units)
    before.save(tmp_path / "samples.npz")
    after = Samples.load(tmp_path / "samples.npz")
    for name in ("x", "y", "ids", "subjects"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert after.classes == before.classes
    assert (after.units is None) == (not units)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.npz"]


def test_a_subset_keeps_rows_together():
    samples = make(units=True)
    part = samples.subset(np.array([4, 1]))
    assert part.ids.tolist() == ["c4", "c1"] and part.subjects.tolist() == ["s1", "s1"]
    np.testing.assert_array_equal(part.x[1], samples.x[1])
    np.testing.assert_array_equal(part.units[0], samples.units[4])


def test_views_and_phases_can_be_left_out():
    samples = make()
    np.testing.assert_array_equal(samples.take_views([1]).x[:, 0], samples.x[:, 1])
    np.testing.assert_array_equal(samples.take_phases([0]).x[:, :, 0], samples.x[:, :, 0])


def test_faults_are_named():
    with pytest.raises(ValueError, match="c0 appears more than once"):
        make(ids=["c0", "c0", "c1", "c2", "c3", "c4"])
    with pytest.raises(ValueError, match="c3: x holds NaN"):
        x = np.zeros((6, 1, 1, 3, 4, 4))
        x[3, 0, 0, 1, 2, 2] = np.nan
        make(x=x)
    with pytest.raises(ValueError, match="c2: a label is not 0 or 1"):
        y = np.zeros((6, 3))
        y[2, 1] = 2
        make(y=y)
    with pytest.raises(ValueError, match="views, phases, 3 channels"):
        make(x=np.zeros((6, 3, 4, 4)))


def test_a_damaged_file_says_so(tmp_path):
    (tmp_path / "samples.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="samples.npz: not a whole artefact.*Remedy"):
        Samples.load(tmp_path / "samples.npz")
