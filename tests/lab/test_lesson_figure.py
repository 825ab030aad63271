"""Facts about utils.lab.teachers.lesson_figure."""

import numpy as np
import pytest

from utils.flow.faceflow_net import SIZE
from utils.lab.teachers.lesson_figure import LAGS, correlation, draw, spectrum


def test_the_spectrum_of_waves_peaks_at_their_frequency():
    waves = 20 * np.sin(2 * np.pi * 0.125 * np.arange(SIZE))[None, None] * np.ones((2, SIZE, 1))
    frequency, amplitude = spectrum(waves.astype(np.float32))
    assert frequency[amplitude.argmax()] == pytest.approx(0.125, abs=0.01)


def test_white_noise_is_uncorrelated_between_pixels_and_blurred_noise_is_correlated():
    white = np.random.default_rng(0).standard_normal((4, SIZE, SIZE))
    uncorrelated, correlated = correlation(white), correlation((white + np.roll(white, 1, -1)) / 2)
    assert uncorrelated[0] == pytest.approx(1) and np.abs(uncorrelated[1:]).max() < 0.1 and len(uncorrelated) == LAGS
    assert correlated[1] > 0.3


def test_the_figure_is_drawn_without_real_clips():
    frames = np.random.default_rng(0).uniform(0, 255, (8, SIZE, SIZE)).astype(np.float32)
    lessons = {"rendered": frames, "degraded": frames, "noise": frames - 127}
    assert len(draw(lessons, frames[:1], np.zeros((0, SIZE, SIZE))).axes) > 4
