"""Decoding, calibration and attention maps."""
