"""The compiled loops behind the rasterizer and the gathers: Numba on the CPU, TensorFlow elsewhere."""
