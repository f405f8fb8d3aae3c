"""How made people and their surroundings differ: the chances, ranges and colours that are drawn at random.

Most of these numbers were chosen by eye on contact sheets of 64 portraits (``python -m facegcn.portraits --sheet``): as
wide as the pictures still look like photos, so that no network can lean on one of them. The skin's mottling and the
camera's blur, noise and compression were set so that the contrast between neighbouring vertices, in rings of 1, 4, 16
and 64, is that of the skin in 16 photographs within a sixth (5.7, 5.5, 7.9, 8.7 percent against 6.8, 6.1, 8.6, 10.0
before the mottling was raised by a fifth to a third). A pair is the least and the greatest value, drawn uniformly,
unless it says mean and deviation; a chance is a share of the portraits, or of those that the comment names.

Units: lengths in decimetre of a face whose outer eye corners are 0.9 dm apart; heights of a head as shares of the
height from eyes to chin; levels are RGB in [0, 255]; tints are factors of the albedo's red, green and blue; covers
are shares in [0, 1] by which a colour takes the place of the albedo.
"""

from __future__ import annotations

from types import SimpleNamespace as Looks


def choice(chances, rng):
    """One of the keys of a table of chances."""
    return list(chances)[rng.choice(len(chances), p=list(chances.values()))]


def between(value, rng):
    """A number as it is; of a pair, a random number between."""
    return rng.uniform(*value) if isinstance(value, tuple) else value


FEMININE_CHANCE = 0.5  # lipstick and eyeliner, no beard

# ---------------------------------------------------------------- painted on the face
SKIN = Looks(
    strength=(0.4, 1.6),  # factor of all mottling
    mottling=(0.026, 0.024, 0.018, 0.016),  # lightness per deviation of the noise, coarse to fine
    redness=((1, 0.02), (2, 0.015)),  # level of the noise, and redness per deviation
    flush=(0, 0.1),  # redness of cheeks and nose
    tint=(0.4, -0.9, -0.7))  # what redness adds to each channel's factor
#: Patches where the skin has more pigment, or less: where a noise of deviation 1 is above ``least``.
PATCHES = Looks(chance=0.15, least=(0.7, 1.8), edge=(0.1, 0.8), cover=(0.3, 1.0), pale_chance=0.35,
                pale=(1.2, 1.22, 1.24), dark=(0.78, 0.7, 0.68))
BLUSH = Looks(chance=0.25, color=(214, 96, 104), brightness=(0.6, 1.0), cover=(0.1, 0.4))
LINES = Looks(
    age=(1.2, 2.0),  # beta distribution: many are young
    chance=0.25,  # of each line, plus age
    depth=(0.02, 0.1),  # share of the albedo
    aged=0.22,  # greatest depth that age adds
    width=(0.012, 0.035))
#: Freckles, moles and blemishes: how many (up to, not with, the greatest), radius, cover, tint.
SPOTS = (Looks(chance=0.2, count=(40, 260), radius=(0.006, 0.02), cover=(0.2, 0.6), tint=(0.62, 0.45, 0.36)),
         Looks(chance=0.4, count=(1, 6), radius=(0.012, 0.035), cover=0.8, tint=(0.4, 0.3, 0.26)),
         Looks(chance=0.25, count=(2, 14), radius=(0.02, 0.05), cover=0.35, tint=(1.0, 0.68, 0.64)))
SPOT_EDGE = (0.012, -0.006)  # distance from a spot's rim where its cover begins, and where it is whole
SCAR = Looks(chance=0.12, step=0.12, width=0.018, cover=0.8, pale_chance=0.6, pale=(1.12, 1.0, 0.98),
             dark=(0.8, 0.6, 0.58))  # a step of its path, the deviation of three
NOSTRILS = (0.45, 0.95)  # darkness
LIPS = Looks(tint=((0.7, 0.55, 0.55), (1.05, 0.95, 0.98)))
#: Of the feminine ones; ``spread`` is the deviation from the list's colours, levels.
LIPSTICK = Looks(chance=0.5, cover=(0.25, 0.85), spread=12, colors=(
    (150, 32, 44), (190, 40, 60), (120, 24, 50), (196, 92, 96), (170, 80, 84), (214, 110, 120), (110, 48, 44),
    (226, 70, 96)))
LASHES = Looks(cover=(0.15, 0.6), width=0.025, color=(28, 20, 18))
EYELINER = Looks(chance=0.5, cover=(0.4, 0.9), lower=0.6)  # of the feminine ones; share on the lower lid
EYE_SHADOW = Looks(chance=0.4, cover=(0.15, 0.6), reach=(0.06, 0.18), colors=(
    (90, 60, 50), (60, 50, 60), (120, 80, 110), (70, 90, 130), (150, 110, 80), (50, 40, 40)))
EYE_RINGS = Looks(depth=(0, 0.22), distance=0.04, width=0.09)  # dark rings under the eyes
#: Of the masculine ones. Stubble below the fullness of a beard.
BEARD = Looks(
    none=0.35, stubble_chance=0.3, stubble=(0.08, 0.35), beard=(0.35, 1.0),
    moustache_chance=0.15, goatee_chance=0.2,
    grain=(0.75, 0.35, 0.15), grain_limits=(0.1, 1.3),  # mean, deviation of each vertex, of the noise
    stubble_color=(70, 70, 76), stubble_hair=0.75,  # levels, and the share of the hair's colour
    darkness=0.9, cover=(0.12, 0.85), greatest_cover=0.95)  # cover = first + second * fullness
BROWS = Looks(
    thickness=(0.03, 0.085), density=(0.35, 1.0), brightness=(0.55, 1.0),
    lift=(-0.015, 0.022), arch=(0.0, 0.025), uneven=0.006,  # mean and deviation; deviation of each brow
    gap=(-0.03, 0.04), tail=(-0.04, 0.03),  # how much shorter at the nose, and at the temple
    taper=(1.15, 0.75), least_width=0.2,  # width = first - second * place along it
    strokes=64, along=26, across=60,  # random hairs, and how many of them pass per brow and per decimetre
    stroke_cover=(0.55, 0.9), greatest_cover=0.97)  # cover = first + second * random hair
EYES = Looks(
    kept_chance=0.1,  # the basis' own eyes
    gaze=(0.025, 0.01), iris=(0.062, 0.078), pupil=(0.02, 0.036),  # deviation across and up; radii
    white=(226, 216, 210), white_brightness=(0.5, 0.95), white_spread=5,
    iris_brightness=(0.55, 1.05), limbus=0.4,  # darkness of the iris' rim
    lid_shadow=0.5, lid_shadow_reach=0.08, pupil_level=12.0, edge=0.008,
    colors=((58, 36, 24), (82, 54, 32), (44, 30, 24), (64, 42, 28), (50, 34, 26), (96, 82, 48), (84, 104, 118),
            (104, 128, 146), (88, 110, 84), (70, 62, 54)))

# ---------------------------------------------------------------- around the face
#: Hair colours in levels with their weights: mostly dark, some fair, red, grey and white.
HAIR = Looks(
    colors=((22, 17, 15), (34, 25, 20), (58, 38, 26), (84, 56, 36), (120, 84, 52), (164, 128, 84), (206, 176, 126),
            (120, 56, 30), (150, 146, 142), (212, 208, 202), (96, 92, 90)),
    weights=(5, 5, 5, 4, 3, 2.5, 2, 1, 2, 1.5, 1.5),
    brightness=(0.75, 1.25), spread=4, limits=(6, 235))
#: What is on the head, and the chance of each.
STYLES = {"short": 0.46, "long": 0.29, "none": 0.1, "veil": 0.06, "cap": 0.09}
HEAD = Looks(
    tone=0.06, tint=0.015,  # deviations of the skin beside the face
    scalp_chance=0.5,  # of short hair: the skull has its colour
    ears_chance=0.4,  # of long hair and veils; the others show ears
    brim_chance=0.6, brim=(0.3, 0.8), brim_drop=(-0.05, 0.35),  # of caps; dm forwards, share of it downwards
    brim_width=(0.9, 1.5))  # radian to each side
EARS = Looks(size=(0.75, 1.15), radii=(0.1, 0.3, 0.16), usual_height=1.1, lean=0.5, tint=(1.05, 0.93, 0.9))
#: The inside of an open mouth. Colours lie on the line between two; lengths in dm.
MOUTH = Looks(
    drawn_chance=0.8,  # the others show the head's plain surface behind the lips, and what the model has itself
    least_opening=0.012, light=(0.55, 1.0),  # share of the picture; the lips shade it
    upper_teeth=(-0.02, 0.1), lower_teeth=(-0.07, 0.05),  # edge below the upper, above the lower lip
    behind=0.04, tongue_opening=0.12, tongue_height=(-0.06, 0.04), tongue_thickness=(0.06, 0.11),
    tooth=((0.72, 0.66, 0.53), (0.97, 0.95, 0.9)), dark=((0.05, 0.015, 0.015), (0.22, 0.08, 0.07)),
    gum=((0.5, 0.22, 0.22), (0.8, 0.45, 0.44)), tongue=((0.45, 0.17, 0.17), (0.8, 0.4, 0.4)))
BODY = Looks(
    neck_length=(0.25, 0.55), neck=(0.62, 0.86),  # dm below the chin; share of the face's half width
    shoulders=(1.5, 2.1), follows=(0.1, 0.7),  # half width, dm; share of the head's rotation
    neckline=(0.05, 0.6), depth=(0, 0.9), v_width=0.45,  # dm below the chin, of the V below it; radian around
    cloth=(0.02, 0.95), grey_cloth=(0.02, 0.9), colored_chance=0.4,
    lining_chance=0.5, lining=(0.08, 0.25), white_lining=(0.6, 0.98), white_chance=0.6,
    tie_chance=0.25, tie=(0, 0.8), tie_width=0.12, chin_shadow=(0.1, 0.6))
SHELL = Looks(
    covering=(0.08, 0.2), covering_rough=0.015, short=(0.02, 0.3), long=(0.08, 0.38), rough=(0.005, 0.05),
    flare=(-0.12, 0.25), rows=(3, 9), columns=(5, 20),  # knots of its waves
    cloth=(0.02, 0.95), colored_chance=0.6, folds=0.12,
    streaks=(0.05, 0.3), streak_limits=(0.4, 1.6), roots=(0, 0.35))  # darker at the roots
#: Lower edge of the hair; heights as shares of the height from eyes to chin, above the eyes unless said.
HAIRLINE = Looks(
    fringe=(0.2, 0.5), usual=(0.45, 0.72), receding=(0.72, 0.95), fringe_chance=0.28, receding_chance=0.1,
    covering=(0.35, 0.75), tilt=0.1, peak=(-0.08, 0.14), uneven=0.1, droop=(0, 0.25),
    opening=(0.75, 1.3), veil_opening=(0.95, 1.25),  # radian to each side
    long=(-0.5, 1.2), long_uneven=0.15,  # dm below the chin
    sideburns=(-0.25, 0.12), nape=(0.0, 0.5),  # below the eyes, above the chin
    ear_angle=1.55, nape_angle=2.0, over_ear=0.25, tufts=(10, 40), rough=(0, 0.06), covering_rough=0.01)
#: Kinds of background, and blurs in pixels of a picture of 224, with their chances.
BACKGROUNDS = {"plain": 0.14, "gradient": 0.16, "noise": 0.18, "blobs": 0.16, "stripes": 0.1, "scene": 0.26}
BACKGROUND_BLURS = {0.0: 0.3, 1.5: 0.25, 4.0: 0.25, 9.0: 0.2}

# ---------------------------------------------------------------- drawn over the face, and the camera
#: Lengths as shares of the distance of the outer eye corners, unless said.
GLASSES = Looks(
    half_width=(0.26, 0.36), half_height=(0.17, 0.31), drop=(-0.02, 0.08),
    roundness=(2.0, 5.0),  # exponent of the superellipse: an ellipse to nearly a rectangle
    ahead=(0.02, 0.12), frame=(0.01, 0.055), opacity=(0.75, 1.0),  # dm before the eyes; width of the frame
    grey_chance=0.6, grey=(0.02, 0.2), color=(0, 0.9),
    dark_chance=0.3, dark_cover=(0.8, 1.0), glare_chance=0.18, glare_cover=(0.15, 0.6),
    glare_width=(0.2, 0.8), glare_height=(0.2, 0.6),
    tints=((0.05, 0.05, 0.06), (0.12, 0.08, 0.05), (0.05, 0.1, 0.16), (0.2, 0.3, 0.26), (0.3, 0.2, 0.1)))
#: Loose hair: where it starts, how many at most, length of a sixth of it as a share of the picture, opacity.
STRANDS = (Looks(at_edge=True, most=240, longest=0.012, opacity=0.6),
           Looks(at_edge=False, most=60, longest=0.035, opacity=0.25),
           Looks(at_edge=True, most=50, longest=0.03, opacity=0.5))
STRAND = Looks(fewest=5, sweep=0.5, spread=0.25, bend=0.6, length=(0.25, 1.0), brightness=(0.7, 1.3))  # radian
BEARD_HAIR = Looks(out=0.7, down=0.8, spread=0.25, bend=0.2, brightness=(0.6, 0.85, 1.05, 1.35), opacity=0.8)
#: Things before the face, with their chances; glasses, hair, veils, caps and beards come on top.
OCCLUDERS = {"none": 0.76, "thing": 0.06, "hand": 0.08, "microphone": 0.03, "mask": 0.035, "scarf": 0.035}
OCCLUDER = Looks(blur=(0.003, 0.02), grain=(0.0, 0.08), shadow_shift=0.04, shadow_blur=(0.02, 0.09), shadow=(0, 0.6))
#: A phone, a leaf: distance from the centre and size as shares of the picture.
THING = Looks(distance=(0.28, 0.5), size=(0.05, 0.2), waves=(1, 5), wave=0.3, aspect=(0.4, 1.6), soft=(0.3, 2.0),
              skin_chance=0.2, skin=(0.75, 0.55, 0.45), brightness=(0.4, 1.2))
#: Landmarks that the fingers' tips lie at; lengths in dm; fingers up to, not with, the greatest.
HAND = Looks(
    places=((8,), (5, 6), (10, 11), (3, 48), (13, 54), (2, 41), (14, 46), (57, 8), (19, 37), (24, 44), (51, 57)),
    turn=0.5, reach=0.15, tone=(0.8, 1.15), fingers=(2, 6), width=(0.15, 0.2), length=(0.6, 0.85),
    nails_chance=0.6, varnish_chance=0.25, nail=(0.1, 0.9))
MICROPHONE = Looks(below=(0.12, 0.5), grey=(0.04, 0.5), radius=(0.17, 0.27))
MASK = Looks(below_chin=(0.02, 0.15), colors=((0.95, 0.95, 0.95), (0.62, 0.76, 0.86), (0.08, 0.08, 0.09)))
SCARF = Looks(high=(0.05, 0.95))  # place of its edge between the chin and the nose
#: Highlights on the skin: Blinn's exponent, strength, and the light that is usual.
GLOSS = Looks(chance=0.4, power=(6, 60), strength=(0.03, 0.28), usual=0.5)
#: Shadows that something casts on the face; lengths as shares of the picture, softness in pixels of 224.
SHADOW = Looks(
    chance=0.1, kinds={"border": 0.55, "bars": 0.15, "blots": 0.3}, wave=0.05, bar=(0.02, 0.1), period=(0.02, 0.15),
    places=((27,), (30,), (19,), (24,), (2, 31), (14, 35), (48,), (54,), (8, 57)),
    soft=(0.4, 8.0), depth=(0.25, 0.75), blue=0.04)
#: Deviations, chances and ranges of what a camera does.
CAMERA = Looks(
    balance_chance=0.5, balance=0.02, gamma_chance=0.3, gamma=0.08,  # of each channel; of the logarithm
    saturation_chance=0.15, grey_chance=0.08, saturation=(0.6, 1.3),
    noise=(1.2, 0.0035),  # gamma distribution of its deviation: shape and scale
    jpeg_chance=0.3, jpeg=(55, 96),  # quality
    soft_chance=0.15, soft=(0.3, 0.9),  # blur, pixels of a picture of 224
    small_chance=0.06, small=(0.4, 0.8),  # share of the resolution
    sharp_chance=0.15, sharp=(0.2, 0.9), sharp_radius=1.2)

# ---------------------------------------------------------------- coefficients
EXPRESSION = Looks(
    strengths={0.0: 0.12, 0.45: 0.4, 1.0: 0.36, 1.5: 0.12},  # deviations, with their chances
    active=(0.3, 1.0),  # share of the components that take part
    kinds={"plain": 0.37, "smile": 0.29, "speech": 0.12, "laughter": 0.14, "surprise": 0.08},
    smile=(0.2, 1.3), beside=0.6,  # of the smile that ``expressions`` solves for; the rest of the expression beside it
    speech=(2, 12), laughter=(4, 20), surprise=(8, 32))  # gap between the lips, mm, as far as the model goes
#: Degrees about x, y, z: the usual deviation, and the chance of any angle up to the limit. Further pictures of a
#: person: greatest yaw, and its least distance to that of the first.
POSE = Looks(usual=(7, 12, 5), wide_chance=(0.25, 0.35, 0.25), limits=(20.0, 40.0, 20.0),
            turned=60.0, apart=20.0)
#: Deviation and limits of the alignment's scale, and of its centre in pixels of a crop of 224.
ALIGNMENT = Looks(scale=0.03, scale_limits=(0.92, 1.08), center=2.0, center_limit=6)
LIGHT = Looks(
    ambient=(0.15, 0.8), from_above=(0, 0.35),  # the rest comes from lamps; how much brighter the sky is
    azimuth=(0, 40), elevation=(28, 20),  # of the key light, degrees: mean and deviation
    side_chance=0.25, side_azimuth=(55, 110), side_elevation=(-10, 45), side_power=1.6,
    fills={0: 0.5, 1: 0.35, 2: 0.15},  # further lamps, with their chances
    fill_azimuth=(-150, 150), fill_elevation=(-40, 60), fill_power=(0.1, 0.7),
    elevation_limits=(-50, 85), wrap=(0.0, 0.5),  # how far a large lamp reaches round the edge
    exposure=0.03, exposure_limits=(0.6, 1.4), harmonics=0.012,  # deviation of the logarithm; of each coefficient
    warmth=0.04, green=0.015, colored_chance=0.03, colored=(0.7, 1.2))
