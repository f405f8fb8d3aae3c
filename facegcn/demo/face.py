"""The procedural demo face: a morphable model made from nothing but this repository.

A template mesh of a human face (``demo.mesh``), several hundred registered faces with random
proportions (``demo.shapes``), expressions (``demo.expressions``) and skins (``demo.skin``), and
principal component analysis of each. ``python -m facegcn.demo --out FILE.npz`` writes it.
"""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from facegcn.demo import expressions, parts
from facegcn.demo import mesh as demo_mesh
from facegcn.demo.shapes import Rig
from facegcn.demo.skin import Painter
from facegcn.morphable import MorphableModel

MM_PER_DM = 100.0
IDENTITY_COMPONENTS, EXPRESSION_COMPONENTS, ALBEDO_COMPONENTS = 50, 24, 48
FACES = 240  # generated for each of the three analyses


def make_demo_face(vertices: int = 8000, seed: int = 0) -> MorphableModel:
    """Makes the demo model; the same arguments give the same model.

    Left in ``symmetry_pairs`` is x < 0 (left in the picture); vertices on the midline are left out.

    Args:
        vertices: wanted number of vertices; the model has as many, or one more.
        seed: of the generated faces; the mesh does not depend on it.

    Raises:
        ValueError: ``vertices`` is below 2000.
    """
    template = demo_mesh.make_template(vertices)
    rig = Rig(template)
    generators = np.random.default_rng(seed).spawn(3)
    fields, male = rig.identity_fields()
    shapes = np.stack([rig.identity(fields, male, generators[0]) for _ in range(FACES)])
    movements = expressions.movement_fields(rig)
    moves = np.stack([expressions.expression(rig, movements, expressions.random_strengths(generators[1]))
                      for _ in range(FACES)])
    painter = Painter(template)
    colors = np.stack([painter.paint(generators[2]) for _ in range(FACES)])
    shape_mean, id_basis = _components(_mirrored(shapes, template, -1), IDENTITY_COMPONENTS)
    # The mean face has no expression: the mean of the moves is left out.
    _, exp_basis = _components(_mirrored(moves, template, -1), EXPRESSION_COMPONENTS)
    color_mean, albedo_basis = _components(_mirrored(colors, template, 1), ALBEDO_COMPONENTS)
    # Rounding leaves the two sides a hair apart; here they become equal to the last bit.
    shape_mean, color_mean = _mirrored(shape_mean[None], template, -1).mean(0), _mirrored(
        color_mean[None], template, 1).mean(0)
    return MorphableModel(
        mean_shape=(template.points + shape_mean) / MM_PER_DM, id_basis=id_basis / MM_PER_DM,
        exp_basis=exp_basis / MM_PER_DM, mean_albedo=color_mean, albedo_basis=albedo_basis,
        triangles=template.triangles, landmarks=template.landmarks,
        skin_index=np.flatnonzero(template.part == parts.SKIN), symmetry_pairs=template.pairs, uv=template.uv)


def _mirrored(samples, template, x_sign):
    """Samples (n, N, 3) and their mirror images, so that mean and components are symmetric.

    ``x_sign`` is -1 for displacements, whose x changes sign, and 1 for colours.
    """
    left, right = template.pairs.T
    partner = np.arange(len(template.points))
    partner[left], partner[right] = right, left
    return np.concatenate([samples, samples[:, partner] * (x_sign, 1, 1)])


def _components(samples, count):
    """Mean (N, 3) and the first principal components (N, 3, count), each one standard deviation long."""
    flat = samples.reshape(len(samples), -1).astype(np.float32)
    pca = PCA(count, svd_solver="randomized", iterated_power=6, random_state=0).fit(flat)
    basis = pca.components_ * np.sqrt(pca.explained_variance_)[:, None]
    return pca.mean_.reshape(-1, 3), basis.T.reshape(-1, 3, count)
