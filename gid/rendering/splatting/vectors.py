"""Vector instructions for compiled loops. Importing this module imports numba.

Numba leaves short inner loops scalar (it cannot rule out that arrays overlap). These few operations are written in
LLVM's vector types instead, which it splits where a processor's registers are shorter. Arrays are flat, contiguous and
of one floating type; starts are counted in elements and are not checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

logger = logging.getLogger(__name__)

# Channels handled together: one 256-bit register of float32.
LANES = 8

# Fused multiply-add only: the loops rely on NaN comparisons, which the other fast-math flags break.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy", "boundscheck": False}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile lazily, kept on disk where that is possible (a read-only installation may have no place for it)."""
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError) as error:
        logger.debug("no cache folder for compiled kernels (%s); compiling for this process only", error)
        return numba.njit(**_OPTIONS)(function)


class _Memory:
    """Loads, stores and arithmetic on vectors of one width, in LLVM's builder."""

    def __init__(self, context: Any, builder: Any, element: Any, width: int) -> None:
        self.context, self.builder = context, builder
        self.element = context.get_value_type(element)
        self.vector = ir.VectorType(self.element, width)
        self.width, self.align = width, context.get_abi_sizeof(self.element)

    def address(self, array_type: Any, array: Any, index: Any, offset: int = 0) -> Any:
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        if offset:
            index = self.builder.add(index, ir.Constant(index.type, offset))
        return self.builder.bitcast(self.builder.gep(data, [index]), self.vector.as_pointer())

    def load(self, address: Any) -> Any:
        return self.builder.load(address, align=self.align)

    def store(self, value: Any, address: Any) -> None:
        self.builder.store(value, address, align=self.align)

    def spread(self, scalar: Any) -> Any:
        """One scalar in every lane."""
        first = self.builder.insert_element(
            ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
        )
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, ir.Constant(self.vector, ir.Undefined), lanes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c."""
        return self.builder.fadd(self.builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])

    def add_to(self, address: Any, value: Any, scale: Any) -> None:
        self.store(self.multiply_add(value, self.spread(scale), self.load(address)), address)

    def shuffle(self, a: Any, b: Any, lanes: list[int]) -> Any:
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def swapped(self, a: Any, b: Any, step: int) -> tuple[Any, Any]:
        """Every second block of ``step`` lanes of a, and the block before it of b, change places."""
        lanes = range(self.width)
        low = [lane if not lane & step else lane - step + self.width for lane in lanes]
        high = [lane + step if not lane & step else lane + self.width for lane in lanes]
        return self.shuffle(a, b, low), self.shuffle(a, b, high)

    def transpose(self, rows: list[Any]) -> list[Any]:
        """A square of vectors, mirrored at its diagonal: blocks of 1, 2, 4, ... lanes change places."""
        rows, step = list(rows), 1
        while step < self.width:
            for i in range(self.width):
                if not i & step:
                    rows[i], rows[i + step] = self.swapped(rows[i], rows[i + step], step)
            step *= 2
        return rows

    def sums(self, rows: list[Any]) -> Any:
        """The sum of each of as many vectors as there are lanes, in one vector."""
        step = 1
        while len(rows) > 1:
            pairs = zip(rows[::2], rows[1::2], strict=True)
            rows = [self.builder.fadd(*self.swapped(a, b, step)) for a, b in pairs]
            step *= 2
        return rows[0]


@intrinsic
def _spread_to_four(typing_context, total, at, pitch, values, start, shares):  # type: ignore[no-untyped-def]
    """Add LANES values to four corners, each by its share.

    ``total[at + c : at + c + LANES] += share_c * values[start : start + LANES]`` for c = 0, LANES, pitch and
    pitch + LANES, with the four shares as a tuple.
    """
    signature = types.void(total, at, pitch, values, start, shares)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        total_type, _, _, values_type, _, _ = signature.args
        memory = _Memory(context, builder, total_type.dtype, LANES)
        value = memory.load(memory.address(values_type, arguments[3], arguments[4]))
        below = builder.add(arguments[1], arguments[2])
        for number, (corner, offset) in enumerate(
            ((arguments[1], 0), (arguments[1], LANES), (below, 0), (below, LANES))
        ):
            share = builder.extract_value(arguments[5], number)
            memory.add_to(memory.address(total_type, arguments[0], corner, offset), value, share)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _transpose_block(typing_context, source, start, pitch, given, filling, target, at, target_pitch, wanted):  # type: ignore[no-untyped-def]
    """``target[at + x * target_pitch + c] = source[start + c * pitch + x]`` for c below LANES and x below ``wanted``.

    Only the first ``given`` rows c are read; the others count as ``filling``.
    """
    signature = types.void(source, start, pitch, given, filling, target, at, target_pitch, wanted)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source_type, start_type, _, given_type, _, target_type, _, _, wanted_type = signature.args
        memory = _Memory(context, builder, source_type.dtype, LANES)
        _, index, pitch, given, filling, _, place, target_pitch, wanted = arguments
        whole, filled = context.get_value_type(start_type), memory.spread(filling)
        given, wanted = (
            context.cast(builder, given, given_type, start_type),
            context.cast(builder, wanted, wanted_type, start_type),
        )
        rows = []
        for lane in range(LANES):
            inside = builder.icmp_signed("<", ir.Constant(whole, lane), given)
            rows.append(builder.select(inside, memory.load(memory.address(source_type, arguments[0], index)), filled))
            # Rows that are not given must not be read either: the last one is read again.
            more = builder.icmp_signed("<", ir.Constant(whole, lane + 1), given)
            index = builder.select(more, builder.add(index, pitch), index)
        for lane, row in enumerate(memory.transpose(rows)):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(whole, lane), wanted)):
                memory.store(row, memory.address(target_type, arguments[5], place))
            place = builder.add(place, target_pitch)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _sum_lanes(typing_context, source, start, pitch, target, at, more):  # type: ignore[no-untyped-def]
    """``target[at + x]`` = sum of ``source[start + x * pitch :]`` over its first LANES, for x below LANES.

    The sums are added to ``target`` if ``more``, else they replace what it held.
    """
    signature = types.void(source, start, pitch, target, at, more)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source_type, _, _, target_type, _, more_type = signature.args
        memory = _Memory(context, builder, source_type.dtype, LANES)
        index, rows = arguments[1], []
        for _ in range(LANES):
            rows.append(memory.load(memory.address(source_type, arguments[0], index)))
            index = builder.add(index, arguments[2])
        address = memory.address(target_type, arguments[3], arguments[4])
        adding = context.cast(builder, arguments[5], more_type, types.boolean)
        held = builder.select(adding, memory.load(address), ir.Constant(memory.vector, [0.0] * LANES))
        memory.store(builder.fadd(memory.sums(rows), held), address)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _gather_lanes(typing_context, upstream, at, pitch, values, start, sums, place, shares):  # type: ignore[no-untyped-def]
    """The backward pass for LANES channels of one source.

    Reads the four corners of ``upstream`` from ``at`` on; ``shares`` is (right, low, mass). ``values[start :]``, the
    features, are replaced by their gradient ``mass * g``, with g the upstream gradient between the corners.
    ``sums[place :]``, three times LANES wide, becomes ``features * g`` and ``features`` times g's slope in x and y.
    """
    signature = types.void(upstream, at, pitch, values, start, sums, place, shares)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        upstream_type, _, _, values_type, _, sums_type, _, _ = signature.args
        memory = _Memory(context, builder, upstream_type.dtype, LANES)
        right, low, mass = (memory.spread(builder.extract_value(arguments[7], i)) for i in range(3))
        below = builder.add(arguments[1], arguments[2])
        a, b, c, d = (
            memory.load(memory.address(upstream_type, arguments[0], corner, offset))
            for corner, offset in ((arguments[1], 0), (arguments[1], LANES), (below, 0), (below, LANES))
        )
        upper_step, lower_step = builder.fsub(b, a), builder.fsub(d, c)
        upper = memory.multiply_add(right, upper_step, a)
        down = builder.fsub(memory.multiply_add(right, lower_step, c), upper)
        gathered = memory.multiply_add(low, down, upper)
        across = memory.multiply_add(low, builder.fsub(lower_step, upper_step), upper_step)
        address = memory.address(values_type, arguments[3], arguments[4])
        value = memory.load(address)
        memory.store(builder.fmul(mass, gathered), address)
        for number, slope in enumerate((gathered, across, down)):
            total = memory.address(sums_type, arguments[5], arguments[6], number * LANES)
            memory.store(builder.fmul(value, slope), total)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _bicubic_4(typing_context, out, at, image, start, pitch, across, down):  # type: ignore[no-untyped-def]
    """``out[at : at + 4]`` = 4 x 4 pixels of 4 channels from ``image[start]`` on, weighted by two tuples of four."""
    signature = types.void(out, at, image, start, pitch, across, down)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        out_type, _, image_type, _, _, _, _ = signature.args
        memory = _Memory(context, builder, out_type.dtype, 4)
        weights = [memory.spread(builder.extract_value(arguments[5], i)) for i in range(4)]
        index = arguments[3]
        total = ir.Constant(memory.vector, [0.0] * 4)
        for row in range(4):
            line = ir.Constant(memory.vector, [0.0] * 4)
            for column in range(4):
                pixel = memory.load(memory.address(image_type, arguments[2], index, 4 * column))
                line = memory.multiply_add(pixel, weights[column], line)
            total = memory.multiply_add(line, memory.spread(builder.extract_value(arguments[6], row)), total)
            index = builder.add(index, arguments[4])
        memory.store(total, memory.address(out_type, arguments[0], arguments[1]))
        return context.get_dummy_value()

    return signature, generate


# The decorator supplies the typing context, which a type checker cannot see.
spread_to_four: Any = _spread_to_four
transpose_block: Any = _transpose_block
sum_lanes: Any = _sum_lanes
gather_lanes: Any = _gather_lanes
bicubic_4: Any = _bicubic_4
