"""Files that other programs open: binary glTF, Wavefront OBJ, PLY, and the camera that took a photo."""
