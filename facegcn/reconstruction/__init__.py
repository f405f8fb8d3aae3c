"""Test mode: photos to meshes, pictures and metrics."""
