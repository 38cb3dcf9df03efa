"""The path of one weight's gradient as text, as Markdown with LaTeX, and as a page."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

from gradaudit.explanation.records import Formula, GradientPath, PathTerms, Symbol
from gradaudit.report.pages import rendered
from gradaudit.report.tables import index_text

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_LATEX = {"∘": r"\circ", "ᵀ": r"^{\top}", "Σₙ": r"\sum_n", "′": "'", "∂": r"\partial "}
_MOST_TERMS = 32


@dataclass(frozen=True, repr=False)
class Explanation:
    """How one weight got its gradient in one step. A notebook shows it as Markdown.

    path: all numbers.
    """

    path: GradientPath

    @property
    def text(self) -> str:
        """Plain text; single factors with all digits."""
        return _rendered("explanation.txt", self.path, _text)

    @property
    def markdown(self) -> str:
        """Markdown with LaTeX."""
        return _rendered("explanation.md", self.path, _latex)

    @property
    def html(self) -> str:
        """An HTML page in one file, which loads nothing."""
        return _rendered("explanation.html", self.path, _html)

    def __repr__(self) -> str:
        path = self.path
        name = f"{path.path}[{index_text(path.index)}]"
        return f"<gradaudit.Explanation: {name}, step {path.step}: {path.verdict}>"

    def _repr_markdown_(self) -> str:
        return self.markdown


@dataclass(frozen=True)
class _Sum:
    """The products of one call of a layer: the largest ones, and the sum of the others."""

    terms: PathTerms
    shown: list[tuple[str, list[float], float]]
    others: int
    rest: float
    total: float

    @classmethod
    def of(cls, terms: PathTerms) -> "_Sum":
        products = terms.factors.prod(axis=-1)
        chosen = np.sort(np.argsort(-np.abs(products), kind="stable")[:_MOST_TERMS])
        shown = [
            (
                index_text(terms.outputs[i].tolist()) if len(products) > 1 else "",
                terms.factors[i].tolist(),
                float(products[i]),
            )
            for i in chosen
        ]
        rest = float(np.delete(products, chosen).sum())
        return cls(terms, shown, len(products) - len(chosen), rest, float(products.sum()))


def _rendered(template: str, path: GradientPath, write: Callable[[Formula], str]) -> str:
    sums = [_Sum.of(terms) for terms in path.terms]
    return rendered(
        "gradaudit.explanation",
        template,
        path=path,
        title=f"{_text((path.symbol,))} of {path.model}, step {path.step}",
        name=f"{path.path}[{index_text(path.index)}]" if path.index else path.path,
        formula=lambda items: write((items,) if isinstance(items, Symbol) else items),
        gradient=Symbol(path.symbol.letter, path.symbol.sub, d=True, at=path.symbol.at),
        sums=sums,
        alone=len(sums) == 1 and not path.penalty,
        whole=sum(each.total for each in sums) + path.penalty,
        skipped=path.loss_scale != 1 and not math.isfinite(path.tape),
        array=_array,
        number=repr,
        factor_number=_factor_number,
        short=lambda value: f"{value:.6g}",
    )


def _factor_number(value: float, first: bool) -> str:
    return f"({value!r})" if value < 0 and not first else repr(value)


def _array(value: np.ndarray) -> str:
    """Return an array as text, its numbers to six digits."""
    if value.ndim == 0:
        return f"{value:.6g}"
    return np.array2string(
        value, precision=6, threshold=64, edgeitems=3, max_line_width=76, separator=" "
    )


def _text(items: Formula) -> str:
    return "".join(item if isinstance(item, str) else _text_symbol(item) for item in items)


def _text_symbol(symbol: Symbol) -> str:
    sub = symbol.sub.rstrip("′")
    primes = symbol.sub[len(sub) :]
    sub = sub.translate(_SUBSCRIPTS) if sub.isdecimal() else f"_{sub}" if sub else ""
    at = f"[{symbol.at}]" if symbol.at else ""
    return f"{'∂L/∂' if symbol.d else ''}{symbol.letter}{sub}{primes}{at}"


def _latex(items: Formula) -> str:
    return "".join(_latex_words(i) if isinstance(i, str) else _latex_symbol(i) for i in items)


def _latex_words(words: str) -> str:
    words = re.sub(
        r"[A-Za-z][\w ]*[A-Za-z]",
        lambda found: rf"\text{{{found[0]}}}".replace("_", r"\_"),
        words,
    )
    for sign, command in _LATEX.items():
        words = words.replace(sign, command)
    return words


def _latex_symbol(symbol: Symbol) -> str:
    sub = symbol.sub.rstrip("′")
    primes = "'" * (len(symbol.sub) - len(sub))
    sub = sub if sub.isdecimal() or not sub else rf"\text{{{sub}}}".replace("_", r"\_")
    letter = symbol.letter if len(symbol.letter) == 1 else rf"\text{{{symbol.letter}}}"
    letter = letter.replace("_", r"\_")
    at = f"[{symbol.at}]" if symbol.at else ""
    name = f"{letter}{primes}_{{{sub}}}{at}" if sub else f"{letter}{primes}{at}"
    return rf"\frac{{\partial L}}{{\partial {name}}}" if symbol.d else name


def _html(items: Formula) -> Markup:
    parts = (escape(i) if isinstance(i, str) else _html_symbol(i) for i in items)
    return Markup("".join(parts))  # each part is escaped


def _html_symbol(symbol: Symbol) -> str:
    sub = symbol.sub.rstrip("′")
    primes = symbol.sub[len(sub) :]
    name = f"<i>{escape(symbol.letter)}</i>" + (f"<sub>{escape(sub)}</sub>" if sub else "")
    at = f"[{escape(symbol.at)}]" if symbol.at else ""
    return f"{'∂<i>L</i>/∂' if symbol.d else ''}{name}{primes}{at}"
