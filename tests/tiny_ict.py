"""A tiny face in ICT-FaceKit's layout, written as a checkout is: for tests of all that reads one."""

import json

import numpy as np

from facegcn.assets.ict_source import Layout

EXPRESSIONS = ["jawOpen", "mouthSmile_L", "mouthSmile_R", "browDown_L", "browDown_R"]
COLUMNS, ROWS = 29, 35  # of the tiny face: x in [-9, 9], y in [-11, 11]; the narrow face is |x| <= 7.8


class TinyFace:
    """A bent grid with eye and mouth holes, eyeballs and stray vertices, in ICT-FaceKit's layout.

    Args:
        named: displacements of the skin (narrow and wide, by the function that makes them of its places (n, 2)) by
            ICT-FaceKit's names; None: random ones, of five names.
    """

    def __init__(self, named=None):
        x, y = np.meshgrid(np.linspace(-9, 9, COLUMNS), np.linspace(-11, 11, ROWS))
        flat = np.stack([x.ravel(), y.ravel()], axis=1)
        corner = (np.arange(ROWS - 1)[:, None] * COLUMNS + np.arange(COLUMNS - 1)).ravel()
        quads = np.stack([corner, corner + 1, corner + COLUMNS + 1, corner + COLUMNS], axis=1)
        middle = flat[quads].mean(axis=1)
        hole = np.any([(((middle - c) / r) ** 2).sum(axis=1) < 1 for c, r in
                       (((-3, 3.5), (1.5, 1)), ((3, 3.5), (1.5, 1)), ((0, -4), (2.6, 0.9)))], axis=0)
        quads = quads[~hole]
        used = np.unique(quads)
        order = used[np.argsort(np.abs(flat[used, 0]) > 7.8, kind="stable")]
        place = np.full(len(flat), -1)
        place[order] = np.arange(len(order))
        self.flat, quads = flat[order], place[quads]
        rng = np.random.default_rng(1)
        skin = np.column_stack([self.flat, 10 - 0.06 * self.flat[:, 0] ** 2 - 0.02 * self.flat[:, 1] ** 2])
        balls = [_eyeball(np.array([side * 3, 3.5, 8.2]), 2.0) for side in (-1, 1)]
        first = len(skin)
        second = first + len(balls[0][0])
        upper = second + len(balls[1][0])
        teeth = [_teeth(height) for height in (-3.4, -4.6)]
        lower, end = upper + len(teeth[0][0]), upper + 2 * len(teeth[0][0])
        self.vertices = np.vstack([skin, balls[0][0], balls[1][0], teeth[0][0], teeth[1][0], rng.normal(size=(5, 3))])
        self.faces = [*quads, *(balls[0][1] + first), *(balls[1][1] + second), *(teeth[0][1] + upper),
                      *(teeth[1][1] + lower)]
        self.layout = Layout(
            total=len(self.vertices), narrow=int((np.abs(self.flat[:, 0]) <= 7.8).sum()), face=first,
            skin_faces=len(quads), eyeballs=((first, second), (second, upper)),
            parts=(("eyeballLeft", second, upper), ("eyeballRight", first, second), ("upperTeeth", upper, lower),
                   ("lowerTeeth", lower, end)))
        self.landmarks = _landmarks(self.flat)
        self.modes = {f"identity{k:03d}": rng.normal(0, 0.2, self.vertices.shape) for k in range(3)}
        for mode in self.modes.values():  # parts keep their form
            mode[first:] = self.vertices[first:] @ rng.normal(0, 0.02, (3, 3)) + rng.normal(0, 0.1, 3)
        self.expressions = EXPRESSIONS if named is None else list(named)
        if named is None:
            self.modes |= {name: rng.normal(0, 0.3, self.vertices.shape) for name in EXPRESSIONS}
        for name, field in (named or {}).items():
            self.modes[name] = np.zeros(self.vertices.shape)
            self.modes[name][:first] = field(self.flat)
            if name == "jawOpen":
                self.modes[name][lower:end] = field(np.array([[0.0, -8.0]]))

    def write(self, folder):
        """Writes the OBJ files and the index file as a checkout has them."""
        folder = folder / "FaceXModel"
        folder.mkdir()
        corners = "\n".join("f " + " ".join(f"{v + 1}/{v + 1}" for v in face) for face in self.faces)
        uv = "\n".join(f"vt {u:.6f} {v:.6f}" for u, v in self.vertices[:, :2] / 40 + 0.5)
        for name, mode in {"generic_neutral_mesh": 0, **self.modes}.items():
            rows = "\n".join("v {:.6f} {:.6f} {:.6f}".format(*p) for p in self.vertices + mode)
            (folder / f"{name}.obj").write_text(f"# comment\nmtllib x.mtl\n{rows}\n{uv}\nusemtl M_Face\n{corners}\n")
        facts = {"expressions": self.expressions, "idx_to_landmark_verts": self.landmarks.tolist()}
        (folder / "vertex_indices.json").write_text(json.dumps(facts))
        return folder


def _eyeball(center, radius):
    """A sphere of quads around the z axis with a small opening at either pole."""
    turn, tilt = np.meshgrid(np.arange(16) * np.pi / 8, np.linspace(0.02, np.pi - 0.02, 13))
    points = np.stack([np.cos(turn) * np.sin(tilt), np.sin(turn) * np.sin(tilt), np.cos(tilt)], axis=2)
    here = (np.arange(12)[:, None] * 16 + np.arange(16)).ravel()
    right = (np.arange(12)[:, None] * 16 + (np.arange(16) + 1) % 16).ravel()
    return center + radius * points.reshape(-1, 3), np.stack([here, here + 16, right + 16, right], axis=1)


def _teeth(height):
    """A curved strip of quads behind the lips."""
    across, up = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-0.5, 0.5, 4))
    points = np.stack([2 * np.sin(across), up + height, 6.5 + 2 * np.cos(across)], axis=2)
    corner = (np.arange(3)[:, None] * 9 + np.arange(8)).ravel()
    return points.reshape(-1, 3), np.stack([corner, corner + 1, corner + 10, corner + 9], axis=1)


def _landmarks(flat):
    """68 vertices near the places of a face."""
    jaw = [(8 * np.sin(a) * 0.95, 1 - 9 * np.cos(a)) for a in np.linspace(-1.5, 1.5, 17)]
    brows = [(x, 6) for x in (-5, -4.3, -3.6, -2.6, -1.6, 1.6, 2.6, 3.6, 4.3, 5)]
    nose = [(0, y) for y in (3.5, 2.2, 1, 0)] + [(x, -1) for x in (-1.2, -0.6, 0, 0.6, 1.2)]
    eyes = [(s * 3 + x, 3.5 + y) for s in (-1, 1) for x, y in
            ((-1.6, 0), (-0.6, 0.9), (0.6, 0.9), (1.6, 0), (0.6, -0.9), (-0.6, -0.9))]
    lips = [(3 * np.cos(a), -4 + 1.6 * np.sin(a)) for a in np.pi - np.arange(12) * np.pi / 6]
    lips += [(2.6 * np.cos(a), -4 + np.sin(a)) for a in np.pi - np.arange(8) * np.pi / 4]
    wanted = np.array(jaw + brows + nose + eyes + lips)
    inner = np.abs(flat[:, 0]) <= 7.8
    distance = np.linalg.norm(wanted[:, None] - flat[None], axis=2) + 99 * ~inner
    return distance.argmin(axis=1)


def _bumps(*bumps):
    """A displacement field (n, 2) -> (n, 3): Gaussian bumps as (x, y, radius, (dx, dy, dz)), in the face's unit."""
    def field(places):
        return sum(np.exp(-((places - (x, y)) ** 2).sum(axis=1) / (2 * radius ** 2))[:, None] * step
                   for x, y, radius, step in bumps)

    return field


def acting_expressions():
    """A field for each of ICT-FaceKit's 53 expressions that does what the name says, roughly."""
    left = {  # of the person: at +x
        "browDown": [(2, 6, 1.2, (-0.3, -0.5, 0))], "browInnerUp": [(2, 6, 1.0, (0, 0.7, 0))],
        "browOuterUp": [(4.3, 6, 1.0, (0, 0.8, 0))], "cheekPuff": [(4, -3.5, 2.0, (0, 0, 1.2))],
        "cheekSquint": [(3, 1.2, 1.0, (0, 0.6, 0.1))], "eyeBlink": [(3, 4.6, 0.9, (0, -2.1, 0))],
        "eyeLookDown": [(3, 4.6, 0.9, (0, -0.5, 0))], "eyeLookIn": [(3, 4.6, 0.9, (-0.1, 0, 0))],
        "eyeLookOut": [(3, 4.6, 0.9, (0.1, 0, 0))], "eyeLookUp": [(3, 4.6, 0.9, (0, 0.3, 0))],
        "eyeSquint": [(3, 2.4, 0.9, (0, 0.4, 0))], "eyeWide": [(3, 4.6, 0.9, (0, 0.5, 0))],
        "mouthDimple": [(3, -4, 1.0, (0, 0, -0.5))], "mouthFrown": [(3, -4, 1.0, (0, -0.6, 0))],
        "mouthLowerDown": [(1.5, -5.2, 1.0, (0, -0.6, 0))], "mouthPress": [(1.5, -5.2, 1.0, (0, 0.4, 0))],
        "mouthSmile": [(3, -4, 1.2, (0.7, 0.9, -0.5))], "mouthStretch": [(3, -4, 1.0, (0.8, 0, 0))],
        "mouthUpperUp": [(1.5, -2.8, 1.0, (0, 0.6, 0))], "noseSneer": [(1.2, -1, 0.8, (0, 0.6, 0))]}
    fields = {}
    for stem, bumps in left.items():
        fields[f"{stem}_L"] = _bumps(*bumps)
        fields[f"{stem}_R"] = _bumps(*((-x, y, radius, (-dx, dy, dz)) for x, y, radius, (dx, dy, dz) in bumps))
    narrower = [(3, -4, 1.0, (-0.7, 0, 0.4)), (-3, -4, 1.0, (0.7, 0, 0.4)), (0, -4, 2.0, (0, 0, 0.6))]
    lower = [(x, -5.0, 1.0, (0, 1, 0)) for x in (-1.5, 0, 1.5)]
    fields |= {name: _bumps(*bumps) for name, bumps in {
        "jawForward": [(0, -8, 2.5, (0, 0, 1.0))], "jawLeft": [(0, -8, 2.5, (1.0, 0, 0))],
        "jawRight": [(0, -8, 2.5, (-1.0, 0, 0))], "mouthFunnel": narrower, "mouthPucker": narrower,
        "mouthLeft": [(0, -4, 2.5, (1.2, 0, 0))], "mouthRight": [(0, -4, 2.5, (-1.2, 0, 0))],
        "mouthRollLower": [(x, y, r, (0, 0, -0.6)) for x, y, r, _ in lower],
        "mouthRollUpper": [(x, -2.9, 1.0, (0, 0, -0.6)) for x in (-1.5, 0, 1.5)],
        "mouthShrugLower": [(0, -6.5, 2.0, (0, 0.9, 0.1))],
        "mouthShrugUpper": [(0, -2.6, 1.2, (0, 0.6, 0))]}.items()}
    fields["jawOpen"] = lambda places: np.where(places[:, 1:] < -4, (0, -2.5, -0.5), 0.0)
    fields["mouthClose"] = lambda places: -0.95 * fields["jawOpen"](places) * (places[:, 1:] > -6.5)
    return fields
