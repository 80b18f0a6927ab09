"""Bags: reading, writing, and making them from image folders."""
