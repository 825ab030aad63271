"""Facts about `Samples`: files, subsets, and refusals."""

import numpy as np
import pytest

from utils.train.samples import Samples


def make(n: int = 6, **changes) -> Samples:
    rng = np.random.default_rng(0)
    parts = {
        "x": rng.normal(size=(n, 2, 2, 3, 8, 8)),
        "y": rng.integers(0, 2, (n, 3)),
        "ids": [f"c{i}" for i in range(n)],
        "subjects": [f"s{i % 3}" for i in range(n)],
        "classes": ("a", "b", "c"),
        "units": rng.random((n, 4)),
    }
    return Samples(**(parts | changes))


@pytest.mark.parametrize("changes", [{}, {"units": None}], ids=["units", "no units"])
def test_saved_samples_are_loaded(tmp_path, changes):
    samples = make(**changes)
    samples.save(tmp_path / "samples.npz")
    loaded = Samples.load(tmp_path / "samples.npz")
    for name in ("x", "y", "ids", "subjects", "units"):
        np.testing.assert_array_equal(getattr(samples, name), getattr(loaded, name))
    assert loaded.classes == samples.classes
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


def test_subsets_of_clips_views_and_phases_keep_their_parts_together():
    samples = make()
    subset = samples.subset(np.array([4, 1]))
    assert subset.ids.tolist() == ["c4", "c1"] and subset.subjects.tolist() == ["s1", "s1"]
    np.testing.assert_array_equal(subset.x[1], samples.x[1])
    np.testing.assert_array_equal(subset.units[0], samples.units[4])
    np.testing.assert_array_equal(samples.take_views([1]).x[:, 0], samples.x[:, 1])
    np.testing.assert_array_equal(samples.take_phases([0]).x[:, :, 0], samples.x[:, :, 0])


NOT_FINITE, NOT_BINARY = np.zeros((6, 1, 1, 3, 4, 4)), np.zeros((6, 3))
NOT_FINITE[3, 0, 0, 1, 2, 2], NOT_BINARY[2, 1] = np.nan, 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["c0", "c0", "c1", "c2", "c3", "c4"]}, "c0 appears more than once"),
        ({"x": NOT_FINITE}, "c3: x holds NaN"),
        ({"y": NOT_BINARY}, "c2: a label is not 0 or 1"),
        ({"x": np.zeros((6, 3, 4, 4))}, "views, phases, 3 channels"),
        ({"subjects": ["s0"]}, r"subjects has shape \(1,\). Remedy: give \(6,\)"),
        ({"units": np.zeros(6)}, "units has shape"),
    ],
)
def test_wrong_parts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "samples.npz").write_bytes(b"not a zip")
    with pytest.raises(ValueError, match="samples.npz: not a whole artefact.*Remedy"):
        Samples.load(tmp_path / "samples.npz")
