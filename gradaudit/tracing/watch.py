"""What sees each op of a run of the interpreter, and may choose its subgradient."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from gradaudit.numerics.ties import Convention
from gradaudit.rules.tape import Primal
from gradaudit.tracing.graph import Op
from gradaudit.tracing.values import Value


class OpWatch:
    """Is shown each op of a run that is not constant, in the order of the run; does nothing."""

    def function(self) -> AbstractContextManager[None]:
        """Enter a function, a branch or a round of a loop; leave it at the end of the context."""
        return nullcontext()

    def choice(self, op: Op) -> Convention | None:
        """Return which subgradient an op takes at exact ties; None for that of the run."""
        return None

    def made(
        self, op: Op, inputs: Sequence[Primal], outputs: Sequence[Primal], wanted: bool
    ) -> None:
        """See what an op made; wanted: whether a gradient may go to an input."""

    def carried(
        self,
        op: Op,
        inputs: Sequence[Primal],
        dys: Sequence[Value],
        dxs: Sequence[Value],
        vjp: Callable,
    ) -> None:
        """See what an op's VJP made of the cotangents of its outputs."""
