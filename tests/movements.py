"""What every ARKit blendshape must do to a face: measures of each, for any model that has named expressions."""

import numpy as np
import scipy.sparse

#: (inner, outer) halves of a brow, lids (upper, lower), corner of the mouth, wing of the nose; by the PERSON's side.
SIDES = {
    "Right": {"sign": -1, "inner_brow": [20, 21], "outer_brow": [17, 18, 19], "upper_lid": [37, 38],
              "lower_lid": [40, 41], "corner": [48], "wing": [31, 32], "upper_lip": [49, 50, 61],
              "lower_lip": [58, 59, 67]},
    "Left": {"sign": 1, "inner_brow": [22, 23], "outer_brow": [24, 25, 26], "upper_lid": [43, 44],
             "lower_lid": [46, 47], "corner": [54], "wing": [34, 35], "upper_lip": [52, 53, 63],
             "lower_lip": [55, 56, 65]}}
UPPER_LIP, LOWER_LIP, CHIN = [50, 51, 52, 61, 62, 63], [56, 57, 58, 65, 66, 67], [7, 8, 9]
X, Y, Z = range(3)


class Measured:
    """Displacements by named shapes at places of a face, millimetres."""

    def __init__(self, model):
        self.model = model
        self.points = 100 * model.mean_shape[model.landmarks]
        self.shapes = {name: 100 * model.blendshapes[:, :, k] for k, name in enumerate(model.blendshape_names)}
        self.pupils = self._pupils()

    def _pupils(self):
        """The foremost vertex of each eyeball: pieces of the mesh without landmarks, by the person's side."""
        count, triangles = self.model.vertex_count, self.model.triangles
        edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
        graph = scipy.sparse.coo_matrix((np.ones(len(edges)), edges.T), (count, count))
        piece = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
        balls = np.flatnonzero(~np.isin(piece, piece[self.model.landmarks]))
        places = self.model.mean_shape[balls]
        return {side: balls[np.where(facts["sign"] * places[:, 0] > 0, places[:, 2], -9).argmax()]
                for side, facts in SIDES.items()}

    def moved(self, name, landmarks):
        """Mean displacement (3,) of landmarks."""
        return self.shapes[name][self.model.landmarks[landmarks]].mean(axis=0)

    def gap(self, names, upper, lower):
        """Height between two groups of landmarks with shapes fully active, over that of the neutral face."""
        points = self.points + sum(self.shapes[name][self.model.landmarks] for name in names)
        height = points[upper, Y].mean() - points[lower, Y].mean()
        return height / (self.points[upper, Y].mean() - self.points[lower, Y].mean())

    def nearest(self, point):
        """The skin's vertex nearest to a place (x, y) in millimetres."""
        skin = self.model.skin_index
        return skin[np.linalg.norm(100 * self.model.mean_shape[skin, :2] - point, axis=1).argmin()]

    def own_share(self, name, sign):
        """Share of a shape's energy on one side of the face."""
        energy = (self.shapes[name] ** 2).sum(axis=1)
        return energy[sign * self.model.mean_shape[:, 0] > 0].sum() / energy.sum()


def movement(face: Measured, name: str) -> dict[str, float]:
    """Measures that must all be above zero, for one of ARKit's names."""
    for side, facts in SIDES.items():
        if name.endswith(side) and name not in (f"jaw{side}", f"mouth{side}"):
            found = one_side(face, name, name.removesuffix(side), side, facts)
            return {**found, "on the person's own side": face.own_share(name, facts["sign"]) - 0.8}
    return both_sides(face, name)


def one_side(face, name, stem, side, facts):
    """Measures of a shape of one side."""
    sign = facts["sign"]
    if stem.startswith("eyeLook"):
        step = face.shapes[name][face.pupils[side]]
        return {"pupil": {"In": -sign * step[X], "Out": sign * step[X], "Up": step[Y], "Down": -step[Y]}[stem[7:]] - 2}
    lids = face.gap([name], facts["upper_lid"], facts["lower_lid"])
    corner, cheek = face.moved(name, facts["corner"]), face.points[facts["lower_lid"]].mean(axis=0)[:2] - (0, 14)
    return {
        "eyeBlink": lambda: {"lids close": 0.3 - lids, "not far beyond": lids + 0.3},
        "eyeSquint": lambda: {"lids come nearer": 0.95 - lids},
        "eyeWide": lambda: {"lids part": lids - 1.1},
        "browDown": lambda: {"inner brow sinks": -1 - face.moved(name, facts["inner_brow"])[Y]},
        "browOuterUp": lambda: {"outer brow rises": face.moved(name, facts["outer_brow"])[Y] - 2},
        "cheekSquint": lambda: {"cheek rises": face.shapes[name][face.nearest(cheek)][Y] - 1},
        "noseSneer": lambda: {"wing of the nose rises": face.moved(name, facts["wing"])[Y] - 1},
        "mouthSmile": lambda: {"corner out": sign * corner[X] - 2, "corner up": corner[Y] - 2},
        "mouthFrown": lambda: {"corner down": -corner[Y] - 2},
        "mouthDimple": lambda: {"corner back": -corner[Z] - 1},
        "mouthStretch": lambda: {"corner out": sign * corner[X] - 2},
        "mouthPress": lambda: {"lower lip up": face.moved(name, facts["lower_lip"])[Y] - 0.3},
        "mouthLowerDown": lambda: {"lower lip down": -face.moved(name, facts["lower_lip"])[Y] - 1},
        "mouthUpperUp": lambda: {"upper lip up": face.moved(name, facts["upper_lip"])[Y] - 1},
    }[stem]()


def both_sides(face, name):
    """Measures of a shape of the whole face."""
    chin, upper, lower = (face.moved(name, marks) for marks in (CHIN, UPPER_LIP, LOWER_LIP))
    corners = face.moved(name, [54])[X] - face.moved(name, [48])[X]
    if name == "mouthClose":  # by itself it is no face: it undoes what jawOpen does to the lips
        open_, closed = (face.gap(names, [61, 62, 63], [65, 66, 67]) for names in (["jawOpen"], ["jawOpen", name]))
        return {"lips meet though the jaw is open": 0.3 * (open_ - 1) - abs(closed - 1)}
    if name == "cheekPuff":
        cheeks = [face.nearest(face.points[marks, :2].mean(axis=0)) for marks in ([48, 4], [54, 12])]
        return {"cheeks forward": min(face.shapes[name][cheek][Z] for cheek in cheeks) - 2}
    inner = [face.moved(name, SIDES[side]["inner_brow"])[Y] for side in SIDES]
    return {
        "jawOpen": {"chin down": -chin[Y] - 10,
                    "lips part": face.moved(name, [62])[Y] - face.moved(name, [66])[Y] - 10},
        "jawForward": {"chin forward": chin[Z] - 3}, "jawLeft": {"chin to +x": chin[X] - 3},
        "jawRight": {"chin to -x": -chin[X] - 3}, "mouthLeft": {"lips to +x": (upper + lower)[X] / 2 - 3},
        "mouthRight": {"lips to -x": -(upper + lower)[X] / 2 - 3},
        "mouthFunnel": {"lips forward": (upper + lower)[Z] / 2 - 1, "narrower": -corners - 1},
        "mouthPucker": {"lips forward": (upper + lower)[Z] / 2 - 1, "narrower": -corners - 3},
        "mouthRollLower": {"lower lip back": -lower[Z] - 1}, "mouthRollUpper": {"upper lip back": -upper[Z] - 1},
        "mouthShrugLower": {"lower lip up": lower[Y] - 1, "chin up": face.shapes[name][face.nearest(
            face.points[8][:2] + (0, 10))][Y] - 1},
        "mouthShrugUpper": {"upper lip up": upper[Y] - 1}, "browInnerUp": {"inner brows rise": min(inner) - 2},
    }[name]
