"""Commands of the command line, a noun a file."""
