"""The place database: descriptors, search and sequence matching."""
