"""Textures: where a face lies in one, baked from its photo at the photo's sharpness, and drawn."""
