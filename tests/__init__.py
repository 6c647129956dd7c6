"""Tests of the package; the modules here and below are imported by their whole names, from the root of the project."""
