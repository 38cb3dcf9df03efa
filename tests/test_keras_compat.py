"""Private names of Keras and TensorFlow are read in one file, and each is needed."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gradaudit"
COMPAT = PACKAGE / "keras_compat.py"
OTHERS = sorted(set(PACKAGE.rglob("*.py")) - {COMPAT})
PRIVATE_MODULES = re.compile(r"(keras\.src|tensorflow\.python|tf\.python)\b")
PRIVATE_NAME = re.compile(r"_[^_]\w*$|__internal__$")
OF_PYTHON = {"_fields"}  # of named tuples


def private_reads(tree):
    """Return the private names that code reads past the SLF001 of ruff."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None) or ""
            names = [module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)]
            found += [name for name in names if PRIVATE_MODULES.match(name)]
        elif isinstance(node, ast.Attribute):
            found += PRIVATE_MODULES.findall(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            *("getattr", "hasattr", "setattr", "delattr"),
            *("operator.attrgetter", "attrgetter", "importlib.import_module"),
        ):
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            texts = [text for text in texts if isinstance(text, str)]
            found += [text for text in texts if _is_private(text) or PRIVATE_MODULES.match(text)]
        elif isinstance(node, ast.Subscript) and _is_attributes(node.value):
            found += _private_constants(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if _is_attributes(node.func.value):
                found += [name for arg in node.args for name in _private_constants(arg)]
        elif isinstance(node, ast.Compare) and any(map(_is_attributes, node.comparators)):
            found += _private_constants(node.left)
    return found


def _is_attributes(node):
    text = ast.unparse(node)
    return text.startswith("vars(") or text.endswith(".__dict__")


def _private_constants(node):
    texts = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return [text for text in texts if isinstance(text, str) and _is_private(text)]


def _is_private(text):
    return bool(PRIVATE_NAME.match(text)) and text not in OF_PYTHON


@pytest.mark.parametrize(
    "code",
    [
        "from keras.src.ops import numpy",
        "from keras.src import ops",
        "from keras import src",
        "import keras.src.ops",
        "from tensorflow.python.framework import ops",
        "keras.src.utils.rng_utils.get_random_seed()",
        "importlib.import_module('keras.src.ops')",
        "getattr(layer, '_losses', [])",
        "hasattr(layer, '_losses')",
        "operator.attrgetter('_losses')(layer)",
        "vars(layer)['_losses']",
        "vars(layer).get('_losses')",
        "layer.__dict__['_losses']",
        "'_losses' in vars(layer)",
    ],
)
def test_a_private_name_is_found(code):
    assert private_reads(ast.parse(code))


def test_no_other_file_reads_private_names():
    reads = {str(path): private_reads(ast.parse(path.read_text())) for path in OTHERS}
    assert {path: found for path, found in reads.items() if found} == {}


def compat_names():
    """Return the public names of keras_compat, with those of optimizers' slots."""
    names = []
    for node in ast.parse(COMPAT.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets]
        if isinstance(node, ast.ClassDef) and node.name == "Slot":
            slots = (each for each in node.body if isinstance(each, ast.Assign))
            names += [f"Slot.{each.targets[0].id}" for each in slots]
    return [name for name in names if not name.startswith("_")]


def used_names():
    """Return what the other files take of keras_compat, and the classes that it uses itself."""
    found = set()
    for path in OTHERS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "gradaudit.keras_compat":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                found.add(ast.unparse(node).removeprefix("keras_compat."))
    own = {
        node.id for node in ast.walk(ast.parse(COMPAT.read_text())) if isinstance(node, ast.Name)
    }
    return found | {name for name in own if re.match("[A-Z][a-z]", name)}


def test_every_name_is_used():
    assert set(compat_names()) - used_names() == set()
