"""Recall, closure precision, ATE, pictures and the report."""
