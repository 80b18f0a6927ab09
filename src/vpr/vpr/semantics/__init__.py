"""Semantic classes, segmenters behind one interface, and what is made of their activations."""
