"""Projections of queries, keys and values to heads, attention between them, and the way back."""

from collections.abc import Callable
from typing import Any

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall, summed


def attend_by_heads(
    call: LayerCall, x: tuple[Array, ...], attention: Callable, gated: bool
) -> tuple[Any, Callable]:
    """Return y = output(gate · attention(query, key, value)), with the weights if any, and the VJP.

    x: query, value and, unless value serves, key. attention: (query, key, value) with heads to
    (y, weights or None, vjp(dy, dweights)).
    """
    layer = call.layer
    query, query_vjp = call.within(layer._query_dense, x[0])
    key, key_vjp = call.within(layer._key_dense, x[-1])
    value, value_vjp = call.within(layer._value_dense, x[1])
    mixed, weights, attention_vjp = attention(query, key, value)
    if gated:
        gate, gate_vjp = call.within(layer._gate_dense, x[0])
    y, output_vjp = call.within(layer._output_dense, mixed * gate if gated else mixed)

    def vjp(dy: Any) -> tuple[tuple[Array, ...], dict[str, Array]]:
        dy, dweights = (dy, None) if weights is None else dy
        dmixed, of_output = output_vjp(dy)
        dquery, dkey, dvalue = attention_vjp(dmixed * gate if gated else dmixed, dweights)
        (dq, of_query), (dk, of_key) = query_vjp(dquery), key_vjp(dkey)
        dv, of_value = value_vjp(dvalue)
        cotangents = summed(of_output, of_query, of_key, of_value)
        if gated:
            dgated, of_gate = gate_vjp(dmixed * mixed)
            dq, cotangents = dq + dgated, summed(cotangents, of_gate)
        return (dq, dv + dk) if len(x) == 2 else (dq, dv, dk), cotangents

    return y if weights is None else (y, weights), vjp
