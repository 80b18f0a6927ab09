"""Starting the suite where ``launch`` is not installed, and the demo and benchmark on top of it."""
