"""Facts about the figure of lessons beside photographs: what its curves measure."""

import numpy as np
import pytest

from utils.flow.faceflow_net import SIZE
from utils.lab.teachers.lesson_figure import LAGS, correlation, draw, spectrum


def test_the_spectrum_of_waves_peaks_at_their_frequency():
    waves = 20 * np.sin(2 * np.pi * 0.125 * np.arange(SIZE))[None, None] * np.ones((2, SIZE, 1))
    frequency, amplitude = spectrum(waves.astype(np.float32))
    assert frequency[amplitude.argmax()] == pytest.approx(0.125, abs=0.01)


def test_white_noise_hangs_together_with_itself_alone_and_blurred_noise_beyond():
    white = np.random.default_rng(0).standard_normal((4, SIZE, SIZE))
    found, blurred = correlation(white), correlation((white + np.roll(white, 1, -1)) / 2)
    assert found[0] == pytest.approx(1) and np.abs(found[1:]).max() < 0.1 and len(found) == LAGS
    assert blurred[1] > 0.3


def test_the_figure_can_do_without_real_clips():
    frames = np.random.default_rng(0).uniform(0, 255, (8, SIZE, SIZE)).astype(np.float32)
    figure = draw({"rendered": frames, "taught": frames, "noise": frames - 127}, frames[:1], np.zeros((0, SIZE, SIZE)))
    assert len(figure.axes) > 4
