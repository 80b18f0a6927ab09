"""Local features, two-view geometry and the relative pose of a closure."""
