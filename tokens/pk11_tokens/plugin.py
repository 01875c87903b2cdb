"""Pytest fixtures; to come."""
