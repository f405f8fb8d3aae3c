"""Mesh algorithms: decimation, closest points, subdivision, mirror pairs, spectral functions."""
