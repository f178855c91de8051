"""GPU kernels of decoding, in Triton: one launch a level for the model, one for the trie.

What a step of the search does to a user's beams needs nothing of another user's, and beams meet only when the
best are kept. So `decoder_step` carries a tile of beams through all layers with the hidden states in
registers, reading weights and the user's one copy of cross-attention keys and values through the L2 cache; and
`keep_best` does a level of the trie for a user: which edges there are, which of them the request closes, and
the best M of the rest. Nothing here waits for the host.

`fused` calls these and says what goes in. B users, M beams each, R = B * M rows, D width, H heads of d_kv,
inner = H * d_kv, S encoder positions, V tokens. Names in capitals are known when a kernel is compiled; those
ending in P are powers of two that a dimension is filled up to.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

# What differs from batch to batch must not make another kernel; strides in multiples of 16 may.
VARYING = (
    "num_beams", "num_kept", "num_rows", "num_edges", "num_bytes", "num_copied", "tail", "width", "first_token",
    "ancestor_position", "new_ancestor_position", "cross_bias_user", "cross_bias_head",
)  # fmt: skip
part: Any = triton.jit


def kernel(function: Any) -> Any:
    """A function that is launched, unlike a `part` of one."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(do_not_specialize=[name for name in VARYING if name in names])(function)


@part
def _unit(hidden, least):
    """T5's norm without its weights: rows (T, DP) float32 over their length."""
    return hidden / tl.sqrt(tl.sum(hidden * hidden, 1) + least)[:, None]


@part
def _feed_forward(
    hidden, into, out, least, D: tl.constexpr, DP: tl.constexpr, F: tl.constexpr, FP: tl.constexpr,
    STAGES: tl.constexpr, GATED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """hidden (T, DP) float32 plus its feed-forward part, FP columns of `into` (D, F or 2F) at a time."""
    dtype = into.dtype.element_ty
    columns = 2 * F if GATED else F
    d = tl.arange(0, DP)
    values = _unit(hidden, least).to(dtype)
    for start in tl.range(0, F, FP, num_stages=STAGES):
        f = start + tl.arange(0, FP)
        inside = (d[:, None] < D) & (f[None, :] < F)
        place = into + d[:, None] * columns + f[None, :]
        wide = tl.dot(values, tl.load(place, inside, 0.0), input_precision=PRECISION)
        if GATED:
            wide *= tl.sigmoid(1.5957691216057308 * (wide + 0.044715 * wide * wide * wide))
            wide *= tl.dot(values, tl.load(place + F, inside, 0.0), input_precision=PRECISION)
        else:
            wide = tl.maximum(wide, 0.0)
        weight = tl.load(out + f[:, None] * D + d[None, :], (f[:, None] < F) & (d[None, :] < D), 0.0)
        hidden = tl.dot(wide.to(dtype), weight, hidden, input_precision=PRECISION)
    return hidden


@kernel
def decoder_step(
    tokens, embedding, self_into, self_out, ff_into, ff_out, head,
    bias, cross_kv, cross_bias, cross_bias_user, cross_bias_head,
    cache, cache_position, cache_layer, ancestor, ancestor_position,
    scores, normalizer, num_beams, width, first_token, least,
    BEFORE: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr,
    F: tl.constexpr, FP: tl.constexpr, LAYERS: tl.constexpr, SP: tl.constexpr, PP: tl.constexpr,
    T: tl.constexpr, CODES: tl.constexpr, BEGIN: tl.constexpr, END: tl.constexpr, VP: tl.constexpr,
    SELF_STAGES: tl.constexpr, CROSS_STAGES: tl.constexpr, STAGES: tl.constexpr,
    GATED: tl.constexpr, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One decoder position of T beams of a user: program (user, tile).

    Args:
        tokens: (R,) int64 newest tokens.
        embedding, head: (V, D).
        self_into: (LAYERS, D, 3 * inner); self_out: (LAYERS, inner, D).
        ff_into: (LAYERS, D, F or 2F); ff_out: (LAYERS, F, D).
        bias: (BEFORE + 1, H) of self-attention, oldest position first.
        cross_kv: (B * S, LAYERS, 2, H, D), see `fused.FusedDecoder`.
        cross_bias: (B, 1 or H, S) by these two strides.
        cache: keys and values (rows, 2, inner) of each position and layer, by these strides; the newest's are
            written.
        ancestor: int32, for each position before, by this stride, (R,) its row there.
        scores: (R, CODES) float32, written: logits of the tokens from `first_token` on.
        normalizer: (R,) float32, written if NORMALIZE: log of the sum of exp over the tokens BEGIN to END.
    """
    dtype = embedding.dtype.element_ty
    inner: tl.constexpr = H * K
    user = tl.program_id(0)
    beam = tl.program_id(1) * T + tl.arange(0, T)
    there = beam < num_beams
    row = (user * num_beams + beam).to(tl.int64)
    d = tl.arange(0, DP)
    k = tl.arange(0, KP)
    s = tl.arange(0, SP)
    p = tl.arange(0, PP)
    d_in, k_in, s_in, p_in = d < D, k < K, s < width, p < BEFORE
    token = tl.load(tokens + row, there, 0)
    hidden = tl.load(embedding + token[:, None] * D + d[None, :], d_in[None, :], 0.0).to(tl.float32)
    kept = there[:, None] & k_in[None, :]
    if BEFORE > 0:
        known = there[:, None] & p_in[None, :]
        before = tl.load(ancestor + p[None, :] * ancestor_position + row[:, None], known, 0).to(tl.int64)
        before = p[None, :].to(tl.int64) * cache_position + before * 2 * inner  # (T, PP)
        seen = known[:, :, None] & k_in[None, None, :]

    for layer in range(LAYERS):
        # Self-attention over the few positions before and itself.
        values = _unit(hidden, least).to(dtype)
        of_layer = cache + tl.full((), layer, tl.int64) * cache_layer
        own = of_layer + tl.full((), BEFORE, tl.int64) * cache_position + row[:, None] * 2 * inner
        for h in tl.range(0, H, num_stages=SELF_STAGES):
            into = self_into + layer * D * 3 * inner + h * K + d[:, None] * 3 * inner + k[None, :]
            inside = d_in[:, None] & k_in[None, :]
            column = h * K + k[None, :]
            value = tl.dot(values, tl.load(into + 2 * inner, inside, 0.0), input_precision=PRECISION)
            tl.store(own + inner + column, value.to(dtype), kept)
            key = tl.dot(values, tl.load(into + inner, inside, 0.0), input_precision=PRECISION)
            tl.store(own + column, key.to(dtype), kept)
            if BEFORE > 0:
                past = of_layer + before[:, :, None] + h * K + k[None, None, :]
                past_key = tl.load(past, seen, 0.0)  # (T, PP, KP)
                past_value = tl.load(past + inner, seen, 0.0)
                query = tl.dot(values, tl.load(into, inside, 0.0), input_precision=PRECISION)
                score = tl.sum(query * key, 1) + tl.load(bias + BEFORE * H + h).to(tl.float32)
                weight = tl.sum(query[:, None, :] * past_key.to(tl.float32), 2)
                weight += tl.load(bias + p * H + h, p_in, 0.0).to(tl.float32)[None, :]
                weight = tl.where(p_in[None, :], weight, -float("inf"))
                most = tl.maximum(score, tl.max(weight, 1))
                weight, score = tl.exp(weight - most[:, None]), tl.exp(score - most)
                total = score + tl.sum(weight, 1)
                value = value * score[:, None] + tl.sum(weight[:, :, None] * past_value.to(tl.float32), 1)
                value = value / total[:, None]
            out = self_out + (layer * inner + h * K + k[:, None]) * D + d[None, :]
            out = tl.load(out, k_in[:, None] & d_in[None, :], 0.0)
            hidden = tl.dot(value.to(dtype), out, hidden, input_precision=PRECISION)

        # Cross-attention: all beams of the tile look at the user's one copy.
        values = _unit(hidden, least).to(dtype)
        look = cross_kv + (user * width).to(tl.int64) * (LAYERS * 2 * H * D) + layer * 2 * H * D
        for h in tl.range(0, H, num_stages=CROSS_STAGES):
            key = tl.load(
                look + h * D + s[None, :] * (LAYERS * 2 * H * D) + d[:, None],
                s_in[None, :] & d_in[:, None],
                0.0,
            )
            weight = tl.dot(values, key, input_precision=PRECISION)
            added = cross_bias + user * cross_bias_user + h * cross_bias_head + s
            weight += tl.load(added, s_in, -float("inf")).to(tl.float32)[None, :]
            weight = tl.exp(weight - tl.max(weight, 1)[:, None])
            weight = weight / tl.sum(weight, 1)[:, None]
            value = tl.load(
                look + (H + h) * D + s[:, None] * (LAYERS * 2 * H * D) + d[None, :],
                s_in[:, None] & d_in[None, :],
                0.0,
            )
            hidden = tl.dot(weight.to(dtype), value, hidden, input_precision=PRECISION)

        wide = 2 * F if GATED else F
        hidden = _feed_forward(
            hidden,
            ff_into + layer * D * wide,
            ff_out + layer * F * D,
            least,
            D,
            DP,
            F,
            FP,
            STAGES,
            GATED,
            PRECISION,
        )

    values = _unit(hidden, least).to(dtype)
    most = tl.full((T,), -float("inf"), tl.float32)
    total = tl.zeros((T,), tl.float32)
    for start in tl.range(BEGIN, END, VP, num_stages=STAGES):
        v = start + tl.arange(0, VP)
        weight = tl.load(head + v[None, :] * D + d[:, None], (v[None, :] < END) & d_in[:, None], 0.0)
        logit = tl.dot(values, weight, input_precision=PRECISION)
        code = v - first_token
        wanted = (code >= 0) & (code < CODES) & (v < END)
        tl.store(scores + row[:, None] * CODES + code[None, :], logit, there[:, None] & wanted[None, :])
        if NORMALIZE:
            logit = tl.where(v[None, :] < END, logit, -float("inf"))
            top = tl.maximum(most, tl.max(logit, 1))
            total = total * tl.exp(most - top) + tl.sum(tl.exp(logit - top[:, None]), 1)
            most = top
    if NORMALIZE:
        tl.store(normalizer + row, most + tl.log(total), there)


@kernel
def keep_best(
    scores, normalizer, node, score, codes, ancestor, pruned,
    edge_code, first_edge, copied, tail, num_copied, prior, bits, num_bytes, filter_of, dead,
    kept_score, kept_place, new_node, new_score, new_codes, new_tokens, new_ancestor, new_pruned,
    num_beams, num_kept, num_edges, width, first_token, ancestor_position, new_ancestor_position,
    LEVEL: tl.constexpr, LEVELS: tl.constexpr, CODES: tl.constexpr,
    MP: tl.constexpr, WP: tl.constexpr, NP: tl.constexpr,
    TRIE: tl.constexpr, NORMALIZE: tl.constexpr, WITHIN: tl.constexpr, WIDE_CODES: tl.constexpr,
    COPIES: tl.constexpr, PRIOR: tl.constexpr, FILTER: tl.constexpr, DEAD: tl.constexpr,
):  # fmt: skip
    """One level of the trie for one user: program (user).

    Beams offer their edges, in the order of nodes and codes, and the `num_kept` best go on in that order; of
    equals the first. Where fewer are open, closed ones with the score -inf fill up. At the last level they
    stand best first, and nodes of the score -inf are -1. Without TRIE every code may follow every other.

    Args:
        scores: (R, CODES) float32 logits; less `normalizer` (R,) if NORMALIZE, or relative to the node's
            edges, closed ones too, if WITHIN.
        width: the most edges of one node.
        node: (R,) int64; score: (R,) float32; codes: (R, LEVELS) int64; ancestor: int32, see `decoder_step`.
        edge_code, first_edge: of this level; copied: (num_copied,) int32 children of the edges from `tail` on.
        prior: (B, num_edges) float32; bits: (filters, num_bytes) uint8; filter_of: (B,) int64.
        dead: (B, DEAD) int32 edges that are closed for the user; -1 for none.
        new_...: the same for the next level; new_tokens: (B * num_kept,) int64; kept_score
            float32 and kept_place int32, as many: scratch.
        pruned, new_pruned: (B,) float32, see `Beams`.
    """
    lowest = -float("inf")
    user = tl.program_id(0)
    # In one dimension, so that neighbours in memory are neighbours among the threads.
    place = tl.arange(0, MP * WP)
    m, w = place // WP, place % WP
    m_in = m < num_beams
    row = user * num_beams + m
    is_offer = m_in & (w < width)
    if TRIE:
        at = tl.load(node + row, m_in, 0)
        first = tl.load(first_edge + at)
        last = tl.load(first_edge + at + 1) - 1
        edge = tl.maximum(tl.minimum(first + w, last), 0)
        code = tl.load(edge_code + edge, is_offer, 0).to(tl.int32)
        if WIDE_CODES:
            code = code & 0xFFFF
        open = m_in & (first + w <= last)
    else:
        edge, code, open = w, w, is_offer
    offer = tl.load(scores + row.to(tl.int64) * CODES + code, open, lowest)
    if PRIOR:
        offer += tl.load(prior + user.to(tl.int64) * num_edges + edge, open, 0.0)
    if NORMALIZE:
        offer -= tl.load(normalizer + row, m_in, 0.0)
    if WITHIN:
        offer = tl.reshape(offer, (MP, WP))
        most = tl.max(offer, 1)
        most = tl.where(most > lowest, most, 0.0)
        total = tl.sum(tl.exp(offer - most[:, None]), 1)
        offer -= (most + tl.log(tl.where(total > 0, total, 1.0)))[:, None]
        offer = tl.reshape(offer, (MP * WP,))
    if FILTER:
        mine = tl.load(filter_of + user) * num_bytes
        byte = tl.load(bits + mine + (edge >> 3), open, 0).to(tl.int32)
        open = open & (((byte >> (edge & 7)) & 1) == 1)
    if DEAD:
        for number in range(DEAD):
            open = open & (edge != tl.load(dead + user * DEAD + number))
    # Rounding must not lift a log-probability above 0: what is proven rests on that scores only fall.
    offer = tl.minimum(offer, 0.0) + tl.load(score + row, m_in, lowest)
    offer = tl.where(open, offer, lowest)

    # As numbers without a sign whose order is that of the scores; behind them what is no offer at all.
    bit = (offer + 0.0).to(tl.int32, bitcast=True)
    key = (bit ^ ((bit >> 31) & 0x7FFFFFFF)).to(tl.uint32, bitcast=True) ^ 0x80000000
    key = tl.where(is_offer, key, 0)
    least = tl.full((), 0, tl.uint32)
    step = tl.full((), 0x80000000, tl.uint32)
    for _ in range(32):
        least = tl.where(tl.sum((key >= (least | step)).to(tl.int32)) >= num_kept, least | step, least)
        step = step >> 1
    # Counts of better ones and of equals up to each place share a number: neither passes 2^15.
    better, equal = key > least, key == least
    count = tl.reshape(better.to(tl.uint32) + (equal.to(tl.uint32) << 16), (MP, WP))
    of_beam = tl.sum(count, 1)
    count = tl.cumsum(count, 1) + (tl.cumsum(of_beam, 0) - of_beam)[:, None]
    count = tl.reshape(count, (MP * WP,))
    num_better, num_equal = (count & 0xFFFF).to(tl.int32), (count >> 16).to(tl.int32)
    missing = num_kept - tl.sum(better.to(tl.int32))
    keep = better | (equal & (num_equal <= missing))
    left = tl.max(tl.where(keep | (is_offer == 0), lowest, offer))
    tl.store(new_pruned + user, tl.maximum(tl.load(pruned + user), left))
    new = user * num_kept + num_better + tl.minimum(num_equal, missing) - 1
    tl.store(kept_score + new, offer, keep)
    tl.store(kept_place + new, place, keep)
    tl.debug_barrier()

    # Few are left: what stands where they came from is asked once more, and costs next to nothing.
    n = tl.arange(0, NP)
    n_in = n < num_kept
    best = tl.load(kept_score + user * num_kept + n, n_in, lowest)
    place = tl.load(kept_place + user * num_kept + n, n_in, 0)
    new = user * num_kept + n
    if LEVEL == LEVELS - 1:
        ahead = (best[None, :] > best[:, None]) | ((best[None, :] == best[:, None]) & (n[None, :] < n[:, None]))
        new = user * num_kept + tl.sum((ahead & n_in[None, :]).to(tl.int32), 1)
    row = user * num_beams + place // WP
    edge = place % WP
    code = edge
    if TRIE:
        at = tl.load(node + row)
        edge = tl.minimum(tl.load(first_edge + at) + edge, tl.load(first_edge + at + 1) - 1)
        edge = tl.maximum(edge, 0)
        code = tl.load(edge_code + edge).to(tl.int32)
        if WIDE_CODES:
            code = code & 0xFFFF
    child = edge
    if COPIES:
        copy = tl.load(copied + tl.minimum(tl.maximum(edge - tail, 0), num_copied - 1))
        child = tl.where(edge < tail, edge, copy)
    if LEVEL == LEVELS - 1:
        child = tl.where(best > lowest, child, -1)
    tl.store(new_node + new, child.to(tl.int64), n_in)
    tl.store(new_score + new, best, n_in)
    tl.store(new_tokens + new, (code + first_token).to(tl.int64), n_in)
    tl.store(new_codes + new * LEVELS + LEVEL, code.to(tl.int64), n_in)
    tl.store(new_ancestor + LEVEL * new_ancestor_position + new, row, n_in)
    for before in tl.static_range(LEVEL):
        tl.store(new_codes + new * LEVELS + before, tl.load(codes + row * LEVELS + before), n_in)
        ancestor_there = tl.load(ancestor + before * ancestor_position + row)
        tl.store(new_ancestor + before * new_ancestor_position + new, ancestor_there, n_in)


@kernel
def encoder_attention(
    qkv, bias, mask, mixed, width,
    H: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, QP: tl.constexpr, SP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """T5's self-attention, unscaled: program (user, head, tile of QP queries).

    Args:
        qkv: (B * S, 3 * inner).
        bias: (H, SP, SP), finite for the keys that there are and -inf behind them.
        mask: (B, S) added to all scores, finite.
        mixed: (B * S, inner), written.
    """
    dtype = qkv.dtype.element_ty
    inner: tl.constexpr = H * K
    user, h = tl.program_id(0), tl.program_id(1)
    q = tl.program_id(2) * QP + tl.arange(0, QP)
    s, k = tl.arange(0, SP), tl.arange(0, KP)
    q_in, s_in, k_in = q < width, s < width, k < K
    rows = qkv + (user * width).to(tl.int64) * 3 * inner + h * K
    query = tl.load(rows + q[:, None] * 3 * inner + k[None, :], q_in[:, None] & k_in[None, :], 0.0)
    key = tl.load(rows + inner + s[None, :] * 3 * inner + k[:, None], s_in[None, :] & k_in[:, None], 0.0)
    weight = tl.dot(query, key, input_precision=PRECISION)
    weight += tl.load(bias + (h * SP + q[:, None]) * SP + s[None, :]).to(tl.float32)
    weight += tl.load(mask + user * width + s, s_in, 0.0).to(tl.float32)[None, :]
    weight = tl.exp(weight - tl.max(weight, 1)[:, None])
    weight = (weight / tl.sum(weight, 1)[:, None]).to(dtype)
    value = tl.load(rows + 2 * inner + s[:, None] * 3 * inner + k[None, :], s_in[:, None] & k_in[None, :], 0.0)
    found = tl.dot(weight, value, input_precision=PRECISION)
    out = mixed + (user * width + q[:, None]).to(tl.int64) * inner + h * K + k[None, :]
    tl.store(out, found.to(dtype), q_in[:, None] & k_in[None, :])


@kernel
def norm(
    hidden, weight, out, num_rows, least,
    D: tl.constexpr, DP: tl.constexpr, T: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """T5's norm of rows (R, D), T at a time, with its weights (D,) where WEIGHTED."""
    row = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)
    d = tl.arange(0, DP)
    place = row[:, None] * D + d[None, :]
    inside = (row[:, None] < num_rows) & (d[None, :] < D)
    found = _unit(tl.load(hidden + place, inside, 0.0).to(tl.float32), least)
    if WEIGHTED:
        found *= tl.load(weight + d, d < D, 0.0).to(tl.float32)[None, :]
    tl.store(out + place, found.to(out.dtype.element_ty), inside)


@kernel
def feed_forward(
    hidden, into, out, num_rows, least,
    D: tl.constexpr, DP: tl.constexpr, F: tl.constexpr, FP: tl.constexpr, T: tl.constexpr,
    GATED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds the feed-forward part to rows (R, D), T at a time, in place."""
    row = (tl.program_id(0) * T + tl.arange(0, T)).to(tl.int64)
    d = tl.arange(0, DP)
    place = hidden + row[:, None] * D + d[None, :]
    inside = (row[:, None] < num_rows) & (d[None, :] < D)
    found = _feed_forward(
        tl.load(place, inside, 0.0).to(tl.float32), into, out, least, D, DP, F, FP, 3, GATED, PRECISION
    )
    tl.store(place, found.to(hidden.dtype.element_ty), inside)
