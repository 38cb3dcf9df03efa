"""Functions, branches and loops: what runs in the step is interpreted, and taped each time."""

from gradaudit.numerics import SumOfSteps
from gradaudit.tracing.tf_ops.table import op
from gradaudit.tracing.tf_ops.tensor_list import TensorList


@op("PartitionedCall", "StatefulPartitionedCall", always=True)
def call(node, *xs):
    """Compute y = f(x), f a function of the graph; dx = the VJP of f at dy."""
    ys, vjp = node.call(node.op.called, xs, node.wanted)
    return tuple(ys), lambda *dys: tuple(vjp(dys))


@op("If", "StatelessIf", always=True)
def branch(node, predicate, *xs):
    """Compute y = f(x), f the branch that the predicate chooses; dx = the VJP of f at dy."""
    chosen = "then_branch" if node.whole(predicate).item() else "else_branch"
    ys, vjp = node.call(node.attribute(chosen).name, xs, node.wanted[1:])
    return tuple(ys), lambda *dys: (None, *vjp(dys))


@op("Case", "StatelessCase", always=True)
def case(node, index, *xs):
    """Compute y = f(x), f the branch of an index, the last for one beyond; dx = f's VJP at dy."""
    branches = node.attribute("branches")
    chosen = branches[index if 0 <= index < len(branches) else -1]
    ys, vjp = node.call(chosen.name, xs, node.wanted[1:])
    return tuple(ys), lambda *dys: (None, *vjp(dys))


@op("While", "StatelessWhile", always=True)
def loop(node, *xs):
    """Compute xₖ₊₁ = body(xₖ) while the condition holds; dxₖ = the VJP of the body at dxₖ₊₁.

    What the body returns as it is has a part of its cotangent from each iteration: the parts are
    added as those of a recurrence are.
    """
    cond, body = node.attribute("cond").name, node.attribute("body").name
    state, iterations = list(xs), []
    while node.holds(cond, state):
        made, vjp = node.call(body, state)
        iterations.append((vjp, [y is x for y, x in zip(made, state, strict=True)]))
        state = made

    def backward(*dys):
        dxs = list(dys)
        kept = [all(same[i] for _, same in iterations) for i in range(len(xs))]
        sums = [SumOfSteps() for _ in xs]
        for vjp, _ in reversed(iterations):
            parts = vjp([None if k else dx for k, dx in zip(kept, dxs, strict=True)])
            for i, part in enumerate(parts):
                if not kept[i]:
                    dxs[i] = part
                elif isinstance(part, TensorList):
                    dxs[i] = part if dxs[i] is None else dxs[i] + part
                elif part is not None:
                    sums[i].add(part)
        for i, total in enumerate(sums):
            if total.total() is not None:
                dxs[i] = total.total() if dxs[i] is None else dxs[i] + total.total()
        return tuple(dxs)

    return tuple(state), backward
