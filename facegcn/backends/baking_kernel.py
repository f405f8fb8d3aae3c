"""The inner loops of baking textures and of filling their gaps, compiled by Numba; they release Python's lock.

``facegcn.texture.baking`` has the public functions and the formulas. Texels are baked a block at a time, small enough
to stay in the processor's nearest memory: first where each lies in the photo and what that shows there, then the
colours of all those that it shows, in loops without branches, which LLVM turns into vector instructions. Coordinates
count from the picture's top left corner: pixel i covers [i, i + 1). Letters: N vertices, F triangles, K covered texels,
T texels a side, L levels of the photo's pyramid.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

#: Columns of ``surface``: world position, the normal's z, albedo, the level of the photo's pyramid, shading, nothing.
COLUMNS = 12
_ALBEDO_AT, _LEVEL_AT, _SHADING_AT = 4, 7, 8
_BLOCK = 512  # texels
_compiled = njit(nogil=True, cache=True, error_model="numpy")
_inlined = njit(nogil=True, cache=True, error_model="numpy", inline="always")
_ZERO, _HALF, _ONE, _TOP = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(255.0)
_TWO, _THREE, _FOUR, _FIVE = np.float32(2.0), np.float32(3.0), np.float32(4.0), np.float32(5.0)
_NOUGHT, _SINGLE, _PAIR = np.int32(0), np.int32(1), np.int32(2)
_BYTE, _EIGHT, _SIXTEEN = np.uint32(255), np.uint32(8), np.uint32(16)
_DARKEST, _LEVEL = np.float32(2.0), np.float32(1.0 / 255.0)  # levels of a photo; one of them
_NO_LIGHT, _DIM, _TINY = np.float32(1e-3), np.float32(0.02), np.float32(1e-12)
# Of a float32: the bits of the square root of 1/2, places of the mantissa, what is added to the exponent
_BITS_OF_ROOT, _PLACES, _BIAS = np.int32(0x3F3504F3), np.int32(23), np.int32(127)
_LN2_HIGH, _LN2_LOW, _LOG2_E = np.float32(0.693359375), np.float32(-2.12194440e-4), np.float32(1.44269504)
_BIAS_AND_HALF = np.float32(127.5)
# Polynomials of the Cephes library (S. Moshier): exact to about two units of a float32's last place
_LOG = tuple(np.float32(c) for c in (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
                                     1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
                                     3.3333331174e-1))
_EXP = tuple(np.float32(c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                                     1.6666665459e-1, 5.0000001201e-1))


@_compiled
def logarithms(values, scratch, result):
    """Natural logarithms (n,) of positive normal float32 numbers; ``scratch`` (n,) float32 is overwritten."""
    bits, mantissas = values.view(np.int32), result.view(np.int32)
    for i in range(len(values)):
        power = np.int32(np.int32(bits[i] - _BITS_OF_ROOT) >> _PLACES)
        mantissas[i] = np.int32(bits[i] - np.int32(power << _PLACES))  # between the roots of 1/2 and of 2
        scratch[i] = np.float32(power)
    for i in range(len(values)):
        x, power = result[i] - _ONE, scratch[i]
        square = x * x
        y = ((((((((_LOG[0] * x + _LOG[1]) * x + _LOG[2]) * x + _LOG[3]) * x + _LOG[4]) * x + _LOG[5]) * x + _LOG[6])
              * x + _LOG[7]) * x + _LOG[8]) * x * square
        result[i] = x + (y + power * _LN2_LOW - _HALF * square) + power * _LN2_HIGH


@_compiled
def exponentials(values, scratch, result):
    """Exponentials (n,) of float32 numbers from -80 to 80; ``scratch`` (n,) float32 is overwritten."""
    bits = scratch.view(np.int32)
    for i in range(len(values)):
        biased = np.int32(values[i] * _LOG2_E + _BIAS_AND_HALF)
        power = np.float32(np.int32(biased - _BIAS))
        x = values[i] - power * _LN2_HIGH - power * _LN2_LOW
        y = (((((_EXP[0] * x + _EXP[1]) * x + _EXP[2]) * x + _EXP[3]) * x + _EXP[4]) * x + _EXP[5]) * x * x + x + _ONE
        result[i] = y
        bits[i] = np.int32(biased << _PLACES)
    for i in range(len(values)):
        result[i] *= scratch[i]


@_inlined
def _between(x, low, high):
    """A number within bounds; ``low`` for NaN, of which an index would be made that lies in no array."""
    return min(max(low, x), high)


@_inlined
def _byte(x):
    """A value in [0, 1] as a byte."""
    return np.uint8(min(max(_ZERO, x), _ONE) * _TOP + _HALF)


@_inlined
def _cubic(f):
    """Catmull-Rom weights of four neighbours, the place lying f behind the second."""
    return (((_TWO - f) * f - _ONE) * f * _HALF, ((_THREE * f - _FIVE) * f * f + _TWO) * _HALF,
            ((_FOUR - _THREE * f) * f + _ONE) * f * _HALF, (f - _ONE) * f * f * _HALF)


@_inlined
def _bounded(i, last):
    """An index from 0 to ``last``, unsigned: Numba need not think of negative ones."""
    return np.uintp(min(max(i, _NOUGHT), last))


@intrinsic
def _weighed(typing, colors, rows, columns, down, across):
    """Red, green and blue of 4 x 4 pixels by weight: the four bytes of a pixel as the lanes of one vector, for which
    Numba has no type. Arguments: uint32 pixels (any,), offsets of four rows and columns, their weights."""
    def build(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        rows, columns, down, across = (cgutils.unpack_tuple(builder, argument) for argument in arguments[1:])
        number, lanes = ir.IntType(32), ir.VectorType(ir.FloatType(), 4)

        def spread(weight):
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), weight, ir.Constant(number, 0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(number, 4), [0] * 4))

        def pixel(place):
            data = builder.load(builder.gep(array.data, [place]))
            data = builder.bitcast(data, ir.VectorType(ir.IntType(8), 4))
            return builder.uitofp(data, lanes)

        across, total = [spread(weight) for weight in across], None
        for row, share in zip(rows, down):
            line = None
            for column, weight in zip(columns, across):
                part = builder.fmul(pixel(builder.add(row, column)), weight)
                line = part if line is None else builder.fadd(line, part)
            line = builder.fmul(line, spread(share))
            total = line if total is None else builder.fadd(total, line)
        found = [builder.extract_element(total, ir.Constant(number, lane)) for lane in range(3)]
        return context.make_tuple(builder, signature.return_type, found)
    return types.UniTuple(types.float32, 3)(colors, rows, columns, down, across), build


@_compiled
def _sharp(colors, rows, columns, x, y, red, green, blue):
    """Colours of a picture (rows, columns) at places (n,), by cubic interpolation, within a byte's range."""
    last_row, last_column, width = np.int32(rows - 1), np.int32(columns - 1), np.uintp(columns)
    end_row, end_column = rows - 1.0, columns - 1.0
    for k in range(len(x)):
        px, py = _between(x[k] - 0.5, 0.0, end_column), _between(y[k] - 0.5, 0.0, end_row)
        left, top = np.int32(px), np.int32(py)
        beside = (_bounded(np.int32(left - _SINGLE), last_column), np.uintp(left),
                  _bounded(np.int32(left + _SINGLE), last_column), _bounded(np.int32(left + _PAIR), last_column))
        below = (_bounded(np.int32(top - _SINGLE), last_row) * width, np.uintp(top) * width,
                 _bounded(np.int32(top + _SINGLE), last_row) * width, _bounded(np.int32(top + _PAIR), last_row) * width)
        r, g, b = _weighed(colors, below, beside, _cubic(np.float32(py - top)), _cubic(np.float32(px - left)))
        red[k], green[k], blue[k] = _between(r, _ZERO, _TOP), _between(g, _ZERO, _TOP), _between(b, _ZERO, _TOP)


@_compiled
def _add_level(colors, first, rows, columns, x, y, share, result):
    """Adds a share of a level's colour at a place of that level, between its four pixel centres."""
    x, y = _between(x - 0.5, 0.0, columns - 1.0), _between(y - 0.5, 0.0, rows - 1.0)
    left, top = int(x), int(y)
    across, down = np.float32(x - left), np.float32(y - top)
    right, bottom = min(left + 1, columns - 1), min(top + 1, rows - 1)
    for row, part in ((top, _ONE - down), (bottom, down)):
        for column, weight in ((left, _ONE - across), (right, across)):
            color, whole = colors[np.uintp(first + row * columns + column)], share * part * weight
            result[0] += whole * np.float32(np.int32(color & _BYTE))
            result[1] += whole * np.float32(np.int32((color >> _EIGHT) & _BYTE))
            result[2] += whole * np.float32(np.int32((color >> _SIXTEEN) & _BYTE))


@_compiled
def _averaged(colors, places, level, x, y, result):
    """Colour of a picture's pyramid at a place of its finest level, between the two levels around ``level``."""
    last = len(places) - 1
    finer = int(min(level, last))
    share = np.float32(level - finer) if finer < last else _ZERO
    result[:] = _ZERO
    for number, part in ((finer, _ONE - share), (min(finer + 1, last), share)):
        if part > _ZERO:
            first, rows, columns = places[number, 0], places[number, 1], places[number, 2]
            _add_level(colors, first, rows, columns, x * columns / places[0, 2], y * rows / places[0, 1], part, result)


@_compiled
def _mix(owners, shares, corners, surface, mixed):
    """Surface values (``COLUMNS``, n) between the corners of the triangles of some texels."""
    for k in range(len(owners)):
        t = owners[k]
        i, j, n = np.uintp(corners[t, 0]), np.uintp(corners[t, 1]), np.uintp(corners[t, 2])
        a, b = shares[k, 0], shares[k, 1]
        c = _ONE - a - b
        for q in range(COLUMNS):
            mixed[q, k] = a * surface[i, q] + b * surface[j, q] + c * surface[n, q]


@_compiled
def _placed(mixed, view, px, py, x, y):
    """Where texels (n,) lie in the photo and in the crop's fine view."""
    half, distance, tangent, fine = view[2] / 2.0, view[0], view[1], view[3]
    across, down, depth = mixed[0], mixed[1], mixed[2]
    for k in range(len(px)):
        scale = half / ((distance - depth[k]) * tangent)
        column, row = half + across[k] * scale, half - down[k] * scale
        px[k], py[k] = view[4] * column + view[5] * row + view[6], view[7] * column + view[8] * row + view[9]
        x[k], y[k] = column * fine, row * fine


@_compiled
def _looked_up(x, y, front, weight, nearest, trust):
    """At places (n,) of the crop's fine view: z of the nearest surface, and trust by place, between pixel centres."""
    last, end, side = np.int32(len(front) - 1), len(front) - 1.0, np.uintp(len(front))
    front, weight = front.reshape(-1), weight.reshape(-1)
    for k in range(len(x)):
        column, row = _between(x[k], 0.0, end), _between(y[k], 0.0, end)
        nearest[k] = front[np.uintp(np.int32(row)) * side + np.uintp(np.int32(column))]
        column, row = _between(x[k] - 0.5, 0.0, end), _between(y[k] - 0.5, 0.0, end)
        left, top = np.int32(column), np.int32(row)
        dx, dy = np.float32(column - left), np.float32(row - top)
        first, second = np.uintp(top) * side, _bounded(np.int32(top + _SINGLE), last) * side
        here, beside = np.uintp(left), _bounded(np.int32(left + _SINGLE), last)
        upper = weight[first + here] + (weight[first + beside] - weight[first + here]) * dx
        lower = weight[second + here] + (weight[second + beside] - weight[second + here]) * dx
        trust[k] = upper + (lower - upper) * dy


@_compiled
def _trusted(depth, facing, nearest, view, px, py, x, y, limits, seen, trust):
    """How far the photo shows texels (n,); their trust by place becomes that in their colour."""
    certain, sloping, most, grazing, rise = limits[0], limits[1], limits[2], limits[3], limits[4] - limits[3]
    width, height, end = view[10], view[11], view[12]
    for k in range(len(px)):
        f = facing[k]
        inside = min(min(min(x[k], end - x[k]), min(y[k], end - y[k])),
                     min(min(px[k], width - px[k]), min(py[k], height - py[k])))
        slope = math.sqrt(max(1.0 - f * f, 0.0)) / max(f, 0.05)
        visible = _between(2.0 - (nearest[k] - depth[k]) / min(certain + sloping * slope, most), 0.0, 1.0)
        visible = visible if f > 0.0 and inside >= 0.0 else 0.0
        turned = _between((f - grazing) / rise, 0.0, 1.0)
        seen[k] = visible
        trust[k] = trust[k] * visible * (turned * turned * (3.0 - 2.0 * turned))


@_compiled
def _colored(shown, lighted, plain, trust, limits, change, scratch, power, lit, albedo):
    """Lit colours and albedo (n,) of what the photo shows; all in [0, 1].

    Args:
        shown, lighted, plain: (n,) the photo's colour, the vertices' in its light, and without.
        trust: (n,) in (0, 1].
        limits: of ``bake``.
        change, scratch, power: (n,) overwritten.
        lit, albedo: (n,) results.
    """
    greatest, share, noise_level = np.float32(limits[5]), np.float32(limits[6]), np.float32(limits[7])
    for i in range(len(shown)):
        power[i] = shown[i] / max(lighted[i], _NO_LIGHT)
    logarithms(power, scratch, change)
    for i in range(len(shown)):
        change[i] = trust[i] * change[i]
    exponentials(change, scratch, power)
    for i in range(len(shown)):
        lit[i] = shown[i] if trust[i] == _ONE else lighted[i] * power[i]
    for i in range(len(shown)):
        noise = trust[i] * noise_level / max(lighted[i], _DIM)
        square = change[i] * change[i]
        kept = share * square / (square + noise * noise + _TINY)
        change[i] = kept * _between(change[i], -greatest, greatest)
    exponentials(change, scratch, power)
    for i in range(len(shown)):
        albedo[i] = plain[i] * power[i]


@_compiled
def _plain(index, mixed, seen, trust, px, py, chosen, where, albedo, lit, visibility, confidence):
    """Writes texels whose colour is the vertices'; returns how many are left, and gathers these and their places."""
    n = 0
    for k in range(len(index)):
        place = np.uintp(index[k])
        visibility[place], confidence[place] = _byte(seen[k]), _byte(trust[k])
        if trust[k] > _ZERO:
            chosen[n], where[0, n], where[1, n] = k, px[k], py[k]
            n += 1
        else:
            for q in range(3):
                plain = mixed[_ALBEDO_AT + q, k]
                albedo[place, q], lit[place, q] = _byte(plain), _byte(plain * mixed[_SHADING_AT + q, k])
    return n


@_compiled
def _photographed(index, mixed, trust, n, work, colors, places, limits, albedo, lit):
    """Writes the texels whose colour the photo shows."""
    flat, chosen, where = work
    x, y = where[0, :n], where[1, :n]
    _sharp(colors, places[0, 1], places[0, 2], x, y, flat[0, :n], flat[0, n:2 * n], flat[0, 2 * n:3 * n])
    color = np.empty(3, np.float32)
    for m in range(n if len(places) > 1 else 0):
        level = mixed[_LEVEL_AT, chosen[m]]
        if level > _ZERO:
            _averaged(colors, places, level, x[m], y[m], color)
            flat[0, m], flat[0, n + m], flat[0, 2 * n + m] = color
    for q in range(3):
        for m in range(n):
            k, i = chosen[m], q * n + m
            plain = mixed[_ALBEDO_AT + q, k]
            flat[0, i] = max(flat[0, i], _DARKEST) * _LEVEL
            flat[1, i], flat[2, i], flat[3, i] = plain * mixed[_SHADING_AT + q, k], plain, trust[k]
    end = 3 * n
    _colored(flat[0, :end], flat[1, :end], flat[2, :end], flat[3, :end], limits, flat[4, :end], flat[5, :end],
             flat[6, :end], flat[7, :end], flat[8, :end])
    for q in range(3):
        for m in range(n):
            place = np.uintp(index[chosen[m]])
            lit[place, q], albedo[place, q] = _byte(flat[7, q * n + m]), _byte(flat[8, q * n + m])


@_compiled
def bake(index, owners, shares, corners, surface, view, front, weight, colors, places, limits,
         albedo, lit, visibility, confidence):
    """Writes the covered texels of one face's textures.

    Args:
        index, owners: (K,) place in the flat images, and triangle.
        shares: (K, 2) weights of the triangle's first two corners.
        corners: (F, 3) vertices.
        surface: (N, ``COLUMNS``) float32.
        view: (13,) camera distance; tangent of half the field of view; width of the crop; pixels of ``front`` for one
            of the crop; crop to photo (2, 3) of its finest level; its width and height; V.
        front: (V, V) float32 z of the nearest surface.
        weight: (V, V) float32 trust in the photo's colour by where it lies.
        colors: uint32, the pixels of all levels of the photo's pyramid; from the lowest byte on red, green and blue.
        places: (L, 3) of each level its first pixel, rows and columns.
        limits: (8,) depth that is seen for certain; more for each unit of slope; the most; the normal's z below which
            no colour is trusted, from which on all is; the most that the logarithm of an albedo may change; the share
            of the change that is the albedo's; the photo's noise, in [0, 1]: a change below it counts for less.
        albedo, lit: (T T, 3) uint8 results.
        visibility, confidence: (T T,) uint8 results.
    """
    mixed, where = np.empty((COLUMNS, _BLOCK), np.float32), np.empty((4, _BLOCK))
    known = np.empty((3, _BLOCK), np.float32)
    work = np.empty((9, 3 * _BLOCK), np.float32), np.empty(_BLOCK, np.intp), np.empty((2, _BLOCK))
    for first in range(0, len(index), _BLOCK):
        last = min(first + _BLOCK, len(index))
        count, block = last - first, index[first:last]
        px, py, x, y = where[0, :count], where[1, :count], where[2, :count], where[3, :count]
        seen, trust, nearest = known[0, :count], known[1, :count], known[2, :count]
        _mix(owners[first:last], shares[first:last], corners, surface, mixed)
        _placed(mixed, view, px, py, x, y)
        _looked_up(x, y, front, weight, nearest, trust)
        _trusted(mixed[2], mixed[3], nearest, view, px, py, x, y, limits, seen, trust)
        n = _plain(block, mixed, seen, trust, px, py, work[1], work[2], albedo, lit, visibility, confidence)
        _photographed(block, mixed, trust, n, work, colors, places, limits, albedo, lit)


@_compiled
def fill(gaps, nearest, image):
    """Gives each texel of ``gaps`` (G,) the values of the covered one that is nearest to it (G,); image (T T, C)."""
    for k in range(len(gaps)):
        here, there = np.uintp(gaps[k]), np.uintp(nearest[k])
        for channel in range(image.shape[1]):
            image[here, channel] = image[there, channel]
