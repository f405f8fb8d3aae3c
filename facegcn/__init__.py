"""Single-image 3D face reconstruction with high-fidelity texture: the parts, one concept a file.

The face model, camera, light, renderer, graph networks and training of
J. Lin, Y. Yuan, T. Shao, K. Zhou, "Towards High-Fidelity 3D Face Reconstruction from
In-the-Wild Images Using Graph Convolutional Networks", CVPR 2020.
Modules here never import the scripts at the top level; docs/architecture.md shows the families.
"""
