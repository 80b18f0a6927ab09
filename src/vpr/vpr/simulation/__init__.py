"""A small world with exact pose, depth and semantics to test in."""
