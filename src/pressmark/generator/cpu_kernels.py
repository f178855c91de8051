"""What decoding computes between matrix products on a CPU, one pass over memory each, compiled by numba.

A step of one user is hundreds of small sums, and as torch's operations most of their time is in being called.
Tensors travel as addresses, which is the cheapest way to call. float32 and bfloat16, the latter's numbers as
uint16; sums are in float32 always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import carray, njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)
"""What the kernels of a decoder compute in."""


def _compiled(function: Any) -> Any:
    # Sums in any order, so that they are vectorised; infinities and NaN keep their meaning.
    options: Any = {
        "error_model": "numpy",
        "nogil": True,
        "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    }
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # Nowhere to keep machine code: it is made anew in every process.
        return njit(**options)(function)


def normed(hidden: Tensor, least_square: float, out: Tensor) -> Tensor:
    """(R, D) rows over the root of their squares' sum plus `least_square`: T5's norm, without the root of D."""
    num_rows, width = hidden.shape
    _normed(hidden.data_ptr(), out.data_ptr(), num_rows, width, least_square, _is_bf16(hidden, out))
    return out


def softmax_(scores: Tensor, bias: Tensor) -> Tensor:
    """Softmax along S of bfloat16 scores (B, H, M, S) plus a bias (B or 1, H or 1, M or 1, S), in place."""
    assert scores.dtype is bias.dtype is torch.bfloat16
    bias = bias.expand(*bias.shape[:-1], scores.shape[-1]).contiguous()
    *strides, _ = bias.expand(scores.shape).stride()
    _softmax(_address(scores), bias.data_ptr(), *strides, *scores.shape)
    return scores


def ancestors(rows: Tensor, parent: Tensor, num_before: int) -> Tensor:
    """See `t5_decoder.Past.of`: (P, B * num_before) rows and parents (B, M) -> (P + 1, B * M) int64."""
    parent = parent.contiguous()
    found = rows.new_empty((len(rows) + 1, parent.numel()))
    _ancestors(_address(rows), _address(parent), _address(found), len(rows), *parent.shape, num_before)
    return found


def attend_past(own: Tensor, before: Sequence[Tensor], rows: Tensor, bias: Tensor) -> Tensor:
    """Self-attention of one position over its past and itself, straight from where the past was computed.

    Args:
        own: (R, 3 * H * d_kv) this position's queries, keys and values.
        before: For each of P positions before the same, (its rows, 3 * H * d_kv).
        rows: (P, R) int64 the row there of each beam's ancestor.
        bias: (P + 1, H), added to scores.

    Returns:
        (R, H * d_kv).
    """
    num_rows, inner = own.shape[0], own.shape[1] // 3
    num_heads = bias.shape[1]
    out = own.new_empty((num_rows, inner))
    _attend_past(
        np.array([one.data_ptr() for one in (*before, own)]),
        rows.data_ptr(),
        bias.data_ptr(),
        out.data_ptr(),
        num_rows,
        num_heads,
        inner // num_heads,
        _is_bf16(own, bias),
    )
    return out


def offers(
    node: Tensor,
    score: Tensor,
    first_edge: Tensor,
    codes: Tensor,
    num_codes: int,
    width: int,
    scores: Tensor,
    masks: tuple[Tensor, Tensor] | None,
    normalize: bool,
    prior: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See `SearchTrie.offers`; its arrays of one level. Masks are a level's bits and each user's filter."""
    num_users, num_beams = node.shape
    if scores.shape[:2] != node.shape or scores.shape[2] < num_codes or scores.dtype is not torch.float32:
        raise ValueError(
            f"a decoder gave scores {tuple(scores.shape)} of {scores.dtype} for {num_users} users, {num_beams} "
            f"beams and {num_codes} codes; they must be (B, M, codes) float32."
        )
    if prior is not None and (prior.shape != (num_users, len(codes)) or prior.dtype is not torch.float32):
        raise ValueError(
            f"a prior is {tuple(prior.shape)} of {prior.dtype} for {num_users} users and {len(codes)} edges; "
            "it must be (B, E) float32, of the trie as it stands."
        )
    scores = scores if scores.stride(2) == 1 else scores.contiguous()
    offer = score.new_empty((num_users, num_beams, width))
    edge = torch.empty((num_users, num_beams, width), dtype=torch.int32)
    bits, of_user = masks or (None, None)
    if of_user is not None and len(of_user) != num_users:
        raise ValueError(f"filters are of {len(of_user)} users, and {num_users} ask.")
    _offers(
        _address(node, torch.int64),
        _address(score, torch.float32),
        _address(first_edge, torch.int32),
        _address(codes),
        codes.element_size(),
        scores.data_ptr(),
        *scores.stride()[:2],
        0 if bits is None else _address(bits, torch.uint8),
        0 if bits is None else bits.shape[1],
        0 if of_user is None else _address(of_user, torch.int64),
        0 if prior is None else prior.data_ptr(),
        *((0, 0) if prior is None else prior.stride()),
        normalize,
        _address(offer),
        _address(edge),
        num_users,
        num_beams,
        width,
    )
    return offer, edge


def keep_best(
    offer: Tensor, edge: Tensor, codes: Tensor, edge_code: Tensor, copies: tuple[int, Tensor] | None, num: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See `beam_search._keep_best`; `num` beams of each user remain. A NaN counts as best of all."""
    num_users, num_beams, width = offer.shape
    level = codes.shape[2]
    node, parent = codes.new_empty((num_users, num)), codes.new_empty((num_users, num))
    now = codes.new_empty((num_users, num, level + 1))
    score, left = offer.new_empty((num_users, num)), offer.new_empty(num_users)
    tail, child = copies if copies is not None and len(copies[1]) else (0, None)
    _keep_best(
        _address(offer),
        _address(edge),
        _address(codes),
        _address(edge_code),
        edge_code.element_size(),
        tail,
        0 if child is None else _address(child),
        0 if child is None else len(child),
        *map(_address, (node, now, score, parent, left)),
        num_users,
        num_beams,
        width,
        level,
        num,
    )
    return node, now, score, parent, left


def ranked(leaf: Tensor, codes: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `beam_search._ranked`: leaf, codes and score best first, and how many of a user's are valid."""
    num_users, num_beams, num_levels = codes.shape
    ordered = torch.empty_like(leaf), torch.empty_like(codes), torch.empty_like(score)
    num_valid = leaf.new_empty(num_users)
    _ranked(*map(_address, (leaf, codes, score, *ordered, num_valid)), num_users, num_beams, num_levels)
    return *ordered, num_valid


def undecided(
    node: Tensor, score: Tensor, first_edge: Sequence[Tensor], copies: Sequence[tuple[int, Tensor]]
) -> Tensor:
    """(B, M) bool: beams that go somewhere and have several SIDs below. Arrays from their level on."""
    found = torch.empty_like(node, dtype=torch.bool)
    _undecided(
        _address(node),
        _address(score),
        np.array([_address(one) for one in first_edge]),
        np.array([(tail, child.data_ptr(), len(child)) for tail, child in copies], np.int64).reshape(-1, 3),
        _address(found),
        node.numel(),
    )
    return found


def _is_bf16(one: Tensor, other: Tensor) -> bool:
    """Which of the kernels' two dtypes both have; anything else would be read beyond its end."""
    dtype = one.dtype
    if dtype is not other.dtype or dtype not in DTYPES:
        raise TypeError(f"the kernels compute in one of {DTYPES}, got {dtype} and {other.dtype}.")
    return dtype is torch.bfloat16


def _address(tensor: Tensor, dtype: torch.dtype | None = None) -> int:
    assert tensor.is_contiguous()
    assert dtype is None or tensor.dtype is dtype, tensor.dtype
    return tensor.data_ptr()


@intrinsic
def _pointer(context, address):
    def code(context, builder, signature, values):
        return builder.inttoptr(values[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), code


@intrinsic
def _float_of(context, bits):
    def code(context, builder, signature, values):
        return builder.bitcast(values[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), code


@intrinsic
def _bits_of(context, value):
    def code(context, builder, signature, values):
        return builder.bitcast(values[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), code


def _wide(number):
    """A stored number as float32."""
    raise NotImplementedError


@overload(_wide)
def _wide_of(number):
    if number == types.uint16:
        return lambda number: _float_of(np.uint32(number) << np.uint32(16))
    return lambda number: number


def _narrow(number, like):
    """A float32 as `like` is stored: the nearest, of two as near the even one."""
    raise NotImplementedError


@overload(_narrow)
def _narrow_to(number, like):
    if like != types.uint16:
        return lambda number, like: number

    def rounded(number, like):
        bits = _bits_of(number)
        return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

    return rounded


@_compiled
def _normed(hidden, out, num_rows, width, least_square, is_bf16):
    shape = (num_rows, width)
    if is_bf16:
        hidden16, out16 = carray(_pointer(hidden), shape, np.uint16), carray(_pointer(out), shape, np.uint16)
        _normed_rows(hidden16, np.float32(least_square), out16)
    else:
        hidden32, out32 = carray(_pointer(hidden), shape, np.float32), carray(_pointer(out), shape, np.float32)
        _normed_rows(hidden32, np.float32(least_square), out32)


@_compiled
def _normed_rows(hidden, least_square, out):
    for row in range(len(hidden)):
        square = least_square
        for column in range(hidden.shape[1]):
            square += _wide(hidden[row, column]) ** 2
        inverse = np.float32(1) / np.sqrt(square)
        for column in range(hidden.shape[1]):
            out[row, column] = _narrow(_wide(hidden[row, column]) * inverse, out[row, column])


@_compiled
def _exp(number):
    """e to the power of a float32 up to 0, to a few units in the last place: in a loop it is vectorised."""
    power = np.floor(max(number, np.float32(-87)) * np.float32(1.44269504) + np.float32(0.5))
    rest = number - power * np.float32(0.69314718)
    # Taylor's series to the sixth power; the rest is at most half of ln 2.
    series = rest * np.float32(1 / 720) + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = (series * rest + np.float32(1 / 2)) * rest * rest + rest + np.float32(1)
    found = series * _float_of(np.uint32(np.int32(power) + np.int32(127)) << np.uint32(23))
    return np.float32(0) if number < -87 else found


@_compiled
def _softmax(scores, bias, bias_user, bias_head, bias_row, num_users, num_heads, num_rows, width):
    score_of = carray(_pointer(scores), (num_users, num_heads, num_rows, width), np.uint16)
    weight = np.empty(width, np.float32)
    for user in range(num_users):
        for head in range(num_heads):
            for row in range(num_rows):
                stored = score_of[user, head, row]
                first = bias + 2 * (user * bias_user + head * bias_head + row * bias_row)
                added = carray(_pointer(first), (width,), np.uint16)
                for column in range(width):
                    weight[column] = _wide(stored[column]) + _wide(added[column])
                best, total = weight.max(), np.float32(0)
                for column in range(width):
                    weight[column] = _exp(weight[column] - best)
                    total += weight[column]
                for column in range(width):
                    stored[column] = _narrow(weight[column] / total, stored[column])


@_compiled
def _ancestors(rows, parent, found, num_positions, num_users, num_beams, num_before):
    rows_of = carray(_pointer(rows), (num_positions, num_users * num_before), np.int64)
    parent_of = carray(_pointer(parent), (num_users, num_beams), np.int64)
    found_of = carray(_pointer(found), (num_positions + 1, num_users, num_beams), np.int64)
    for user in range(num_users):
        for beam in range(num_beams):
            row = user * num_before + parent_of[user, beam]
            for position in range(num_positions):
                found_of[position, user, beam] = rows_of[position, row]
            found_of[num_positions, user, beam] = row


@_compiled
def _attend_past(addresses, rows, bias, out, num_rows, num_heads, width, is_bf16):
    ancestors = carray(_pointer(rows), (len(addresses) - 1, num_rows), np.int64)
    if is_bf16:
        _attend_rows(addresses, ancestors, bias, out, num_heads, width, np.uint16(0))
    else:
        _attend_rows(addresses, ancestors, bias, out, num_heads, width, np.float32(0))


@_compiled
def _attend_rows(addresses, ancestors, bias_address, out_address, num_heads, width, like):
    num_positions, num_rows = len(addresses), ancestors.shape[1]
    shape = (num_rows, 3, num_heads, width)  # for positions before, the outermost length is another, unread
    own = _array(addresses[num_positions - 1], shape, like)
    bias = _array(bias_address, (num_positions, num_heads), like)
    out = _array(out_address, (num_rows, num_heads, width), like)
    weight = np.empty(num_positions, np.float32)
    mixed = np.empty(width, np.float32)
    for row in range(num_rows):
        for head in range(num_heads):
            for position in range(num_positions):
                there = _array(addresses[position], shape, like)
                ancestor = ancestors[position, row] if position < num_positions - 1 else row
                score = np.float32(0)
                for column in range(width):
                    score += _wide(own[row, 0, head, column]) * _wide(there[ancestor, 1, head, column])
                weight[position] = score + _wide(bias[position, head])
            best, total = weight.max(), np.float32(0)
            for position in range(num_positions):
                weight[position] = np.exp(weight[position] - best)
                total += weight[position]
            mixed[:] = 0
            for position in range(num_positions):
                there = _array(addresses[position], shape, like)
                ancestor = ancestors[position, row] if position < num_positions - 1 else row
                share = weight[position] / total
                for column in range(width):
                    mixed[column] += share * _wide(there[ancestor, 2, head, column])
            for column in range(width):
                out[row, head, column] = _narrow(mixed[column], out[row, head, column])


def _array(address, shape, like):
    """The array at an address, of numbers such as `like`."""
    raise NotImplementedError


@overload(_array)
def _array_at(address, shape, like):
    dtype = np.uint16 if like == types.uint16 else np.float32
    return lambda address, shape, like: carray(_pointer(address), shape, dtype)


@_compiled
def _code(codes, size, edge):
    """The code of an edge, of codes of one, two or four bytes each at an address."""
    if size == 1:
        return np.int64(carray(_pointer(codes), (1,), np.uint8)[edge])
    if size == 2:
        return np.int64(carray(_pointer(codes), (1,), np.uint16)[edge])
    return np.int64(carray(_pointer(codes), (1,), np.int32)[edge])


@_compiled
def _offers(
    node,
    score,
    first_edge,
    codes,
    code_size,
    scores,
    scores_user,
    scores_beam,
    bits,
    num_bytes,
    of_user,
    prior,
    prior_user,
    prior_edge,
    normalize,
    offer,
    edge,
    num_users,
    num_beams,
    width,
):
    beams, places = (num_users, num_beams), (num_users, num_beams, width)
    node_of = carray(_pointer(node), beams, np.int64)
    sum_of = carray(_pointer(score), beams, np.float32)
    first_of = carray(_pointer(first_edge), (1,), np.int32)
    score_of = carray(_pointer(scores), (1,), np.float32)
    bits_of = carray(_pointer(bits), (1, num_bytes), np.uint8)
    filter_of = carray(_pointer(of_user), (num_users,), np.int64)
    prior_of = carray(_pointer(prior), (1,), np.float32)
    offer_of = carray(_pointer(offer), places, np.float32)
    edge_of = carray(_pointer(edge), places, np.int32)
    for user in range(num_users):
        for beam in range(num_beams):
            # A trie that grew since it was shown may have more edges here than fit the answer.
            first = first_of[node_of[user, beam]]
            end = min(first_of[node_of[user, beam] + 1], first + width)
            offered, edges = offer_of[user, beam], edge_of[user, beam]
            scores_of_beam = user * scores_user + beam * scores_beam
            best, total = np.float32(-np.inf), np.float32(0)
            for slot in range(end - first):
                number = first + slot
                edges[slot] = number
                offered[slot] = score_of[scores_of_beam + _code(codes, code_size, number)]
                if prior:
                    offered[slot] += prior_of[user * prior_user + number * prior_edge]
                best = max(best, offered[slot])
            if normalize:
                for slot in range(end - first):
                    total += _exp(offered[slot] - best)
                total = best + np.log(total)
            for slot in range(end - first):
                share = offered[slot] - total
                if share > 0:  # By rounding; a NaN stays one.
                    share = np.float32(0)
                offered[slot] = share + sum_of[user, beam]
            if num_bytes:
                for slot in range(end - first):
                    number = first + slot
                    if not (bits_of[filter_of[user], number >> 3] >> (number & 7)) & 1:
                        offered[slot] = -np.inf
            for slot in range(end - first, width):
                # The last edge again: whoever follows it stands on a node that is there.
                edges[slot] = end - 1
                offered[slot] = -np.inf


@_compiled
def _keep_best(
    offer,
    edge,
    codes,
    edge_code,
    code_size,
    tail,
    child,
    num_copies,
    node,
    now,
    score,
    parent,
    left,
    num_users,
    num_beams,
    width,
    level,
    num,
):
    num_offers = num_beams * width
    offer_of = carray(_pointer(offer), (num_users, num_offers), np.float32)
    edge_of = carray(_pointer(edge), (num_users, num_offers), np.int32)
    codes_of = carray(_pointer(codes), (num_users, num_beams, level), np.int64)
    child_of = carray(_pointer(child), (num_copies,), np.int32)
    node_of = carray(_pointer(node), (num_users, num), np.int64)
    now_of = carray(_pointer(now), (num_users, num, level + 1), np.int64)
    score_of = carray(_pointer(score), (num_users, num), np.float32)
    parent_of = carray(_pointer(parent), (num_users, num), np.int64)
    left_of = carray(_pointer(left), (num_users,), np.float32)
    # A heap of one more, the worst on top: the lowest, of equal ones the last. At first nothing is worse.
    keys, places = np.empty(num + 1, np.float32), np.empty(num + 1, np.int64)
    for user in range(num_users):
        keys[:], places[:] = -np.inf, num_offers
        for candidate in range(num_offers):
            key = _key(offer_of[user, candidate])
            if key > keys[0] or candidate <= num:
                _replace_worst(keys, places, key, candidate)
        worst, behind = keys[0], places[0]
        left_of[user] = offer_of[user, behind] if behind < num_offers else -np.inf
        number = 0
        for place in range(num_offers):
            if _worse(_key(offer_of[user, place]), place, worst, behind) or place == behind:
                continue
            beam = place // width
            edge_there = np.int64(edge_of[user, place])
            if num_copies and edge_there >= tail:
                node_of[user, number] = child_of[min(edge_there - tail, num_copies - 1)]
            else:
                node_of[user, number] = edge_there
            for before in range(level):
                now_of[user, number, before] = codes_of[user, beam, before]
            now_of[user, number, level] = _code(edge_code, code_size, edge_there)
            score_of[user, number] = offer_of[user, place]
            parent_of[user, number] = beam
            number += 1


@_compiled
def _ranked(leaf, codes, score, leaf_out, codes_out, score_out, num_valid, num_users, num_beams, num_levels):
    beams, codes_shape = (num_users, num_beams), (num_users, num_beams, num_levels)
    leaf_of, ranked_leaf = carray(_pointer(leaf), beams, np.int64), carray(_pointer(leaf_out), beams, np.int64)
    code_of = carray(_pointer(codes), codes_shape, np.int64)
    ranked_code = carray(_pointer(codes_out), codes_shape, np.int64)
    score_of = carray(_pointer(score), beams, np.float32)
    ranked_score = carray(_pointer(score_out), beams, np.float32)
    valid_of = carray(_pointer(num_valid), (num_users,), np.int64)
    keys, places = np.empty(num_beams, np.float32), np.empty(num_beams, np.int64)
    for user in range(num_users):
        for beam in range(num_beams):
            keys[beam], places[beam] = -np.inf, num_beams
        for beam in range(num_beams):
            _replace_worst(keys, places, _key(score_of[user, beam]), beam)
        valid_of[user] = 0
        for number in range(num_beams - 1, -1, -1):
            beam = places[0]
            _replace_worst(keys, places, np.float32(np.inf), -1)
            is_valid = score_of[user, beam] > -np.inf
            valid_of[user] += is_valid
            ranked_leaf[user, number] = leaf_of[user, beam] if is_valid else -1
            ranked_score[user, number] = score_of[user, beam]
            for level in range(num_levels):
                ranked_code[user, number, level] = code_of[user, beam, level]


@_compiled
def _replace_worst(keys, places, key, place):
    """Puts a key in the place of the heap's top and the heap in order."""
    here, below = 0, 1
    while below < len(keys):
        if below + 1 < len(keys) and _worse(keys[below + 1], places[below + 1], keys[below], places[below]):
            below += 1
        if not _worse(keys[below], places[below], key, place):
            break
        keys[here], places[here] = keys[below], places[below]
        here, below = below, 2 * below + 1
    keys[here], places[here] = key, place


@_compiled
def _key(score):
    """What a score is ordered by: a NaN before all."""
    return np.float32(np.inf) if np.isnan(score) else score


@_compiled
def _worse(key, place, other_key, other_place):
    return key < other_key or (key == other_key and place > other_place)


@_compiled
def _undecided(node, score, first_edge, copies, found, num):
    node_of, score_of = carray(_pointer(node), (num,), np.int64), carray(_pointer(score), (num,), np.float32)
    found_of = carray(_pointer(found), (num,), np.bool_)
    for beam in range(num):
        below, several = node_of[beam], False
        for depth in range(len(first_edge)):
            first_of = carray(_pointer(first_edge[depth]), (1,), np.int32)
            first = np.int64(first_of[below])
            if first_of[below + 1] - first != 1:
                several = first_of[below + 1] - first > 1
                break
            below = first
            if len(copies):
                tail, child, num_copies = copies[depth]
                if num_copies and first >= tail:
                    child_of = carray(_pointer(child), (num_copies,), np.int32)
                    below = np.int64(child_of[min(first - tail, num_copies - 1)])
        found_of[beam] = several and score_of[beam] > -np.inf
