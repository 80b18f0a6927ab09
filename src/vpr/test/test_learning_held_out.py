"""Sequences looked up and models calibrated on drives that they have not seen."""

from pathlib import Path

import numpy as np
import pytest
from made_up_drives import small_training

from vpr.config import SequenceMatchingConfig
from vpr.learning.calibrating import reliability
from vpr.learning.drives import Drives
from vpr.learning.held_out import HeldOutDrives, calibrated
from vpr.learning.sequence_look_up import keyframe_spacing, look_up_sequences
from vpr.models.descriptor_model import DescriptorModel
from vpr.models.head import DescriptorHead
from vpr.models.impostors import Impostors
from vpr.supervision.kernel import Viewpoints

DIMENSION, PLACES, SPACING = 24, 40, 5.0
CONFIG = small_training(exclude_recent_keyframes=5, same_place_distance=2.0)
SEQUENCES = SequenceMatchingConfig.from_file(sequence_length=3)


def streets(seed, drives=6, noise=0.8):
    """Drives, each twice along a street of its own, and descriptors of it in changing light."""
    rng = np.random.default_rng(seed)
    views, positions = [], []
    for drive in range(drives):
        places = rng.normal(size=(PLACES, DIMENSION))
        for _ in range(2):
            views.append(places + noise * rng.normal(size=places.shape))
            east = SPACING * np.arange(PLACES)
            positions.append(np.stack([east, np.full(PLACES, 1e4 * drive)], axis=1))
    rows = np.concatenate(views).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    count = len(rows)
    return Drives(
        images=tuple(Path(f"{row}.png") for row in range(count)),
        viewpoints=Viewpoints(np.concatenate(positions), np.zeros(count)),
        stamps_ns=(1 + np.arange(count)) * 10**9,
        drive=np.repeat(np.arange(drives), 2 * PLACES),
        names=tuple(f"street {drive}" for drive in range(drives)),
    ), rows


def model():
    head = DescriptorHead("linear", DIMENSION, DIMENSION, normalised=True).eval()
    others = np.random.default_rng(99).normal(size=(50, DIMENSION)).astype(np.float32)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    return DescriptorModel("net@base", (head,), impostors=Impostors(others))


def test_sequences_find_more_than_single_images_and_never_what_was_just_seen():
    drives, rows = streets(0)
    held_out = HeldOutDrives(drives, rows, model(), CONFIG, SEQUENCES)
    everything = np.arange(len(rows))
    single, several = (
        matching(everything) for matching in (held_out.image_matches, held_out.sequence_matches)
    )
    assert several.correct[:, 0].sum() > single.correct[:, 0].sum()
    assert several.revisits.sum() == single.revisits.sum() == 6 * PLACES
    own = drives.drive[several.queries] == drives.drive[several.references[:, 0]]
    assert (several.queries - several.references[:, 0])[own].min() > 5
    np.testing.assert_array_equal(several.places, single.places)
    assert (several.distances[:, :-1] <= several.distances[:, 1:]).all()


def test_the_spacing_is_that_of_the_keyframes_or_of_the_alignment():
    drives, _ = streets(0)
    assert keyframe_spacing(drives, SEQUENCES) == pytest.approx(SPACING)
    aligned = SEQUENCES.model_copy(update={"alignment_step": 2.5})
    assert keyframe_spacing(drives, aligned) == 2.5


def test_a_calibrated_model_says_what_is_observed_on_other_drives_in_both_memories():
    drives, rows = streets(0, drives=20)
    ready, notes = calibrated(model(), drives, rows, CONFIG, SEQUENCES)
    assert any("20 calibration drives" in note for note in notes)
    fresh = HeldOutDrives(*streets(1, drives=12), ready, CONFIG, SEQUENCES)
    for calibration, matching in (
        (ready.calibration, fresh.image_matches),
        (ready.sequence_calibration, fresh.sequence_matches),
    ):
        for verdicts in (fresh.together(matching), fresh.apart(matching)):
            nearest = verdicts.best.reduced_by(calibration.best)
            diagram = reliability(calibration.best(nearest.distances), nearest.correct)
            assert diagram.expected_error < 0.06
    assert ready.sequence_calibration.spacing == pytest.approx(SPACING)
    assert ready.sequence_calibration.sequence_length == 3


def test_too_little_to_calibrate_on_is_said():
    drives, rows = streets(0, drives=1)
    few = np.arange(PLACES)
    ready, notes = calibrated(model(), drives.subset(few), rows[few], CONFIG, SEQUENCES)
    assert ready.calibration is None
    assert "not calibrated" in notes[0]


def test_a_method_without_its_transform_is_said_and_single_images_are_calibrated_still():
    drives, rows = streets(0)
    learned = SequenceMatchingConfig.from_file(method="seqmatchnet", sequence_length=3)
    ready, notes = calibrated(model(), drives, rows, CONFIG, learned)
    assert ready.calibration is not None
    assert ready.sequence_calibration is None
    assert any("needs the file of a transform" in note for note in notes)


def test_sequences_of_drives_without_a_revisit_find_nothing_right():
    drives, rows = streets(0)
    first_pass = np.flatnonzero(np.arange(len(rows)) % (2 * PLACES) < PLACES)
    matches = look_up_sequences(rows[first_pass], drives.subset(first_pass), CONFIG, SEQUENCES)
    assert len(matches.queries) > 0
    assert not matches.correct.any()
    assert not matches.revisits.any()
