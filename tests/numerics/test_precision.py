import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradaudit.numerics import PRECISIONS

DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}


@pytest.mark.parametrize("name", DTYPES)
@given(
    number=st.floats(min_value=-60000, max_value=60000).filter(lambda x: x == 0 or abs(x) > 1e-30)
)
def test_nearest_is_the_dtype_s_own_rounding(name, number):
    assert PRECISIONS[name].nearest(np.float64(number)) == float(DTYPES[name](number))


@pytest.mark.parametrize("name", DTYPES)
def test_constants_are_those_of_the_dtype(name):
    info = ml_dtypes.finfo(DTYPES[name])
    assert PRECISIONS[name].roundoff == float(info.eps) / 2
    assert PRECISIONS[name].largest <= float(info.max)
    assert PRECISIONS[name].largest >= float(info.max) * (1 - 2.0**-52) / (1 + (name == "float64"))


def test_a_float64_audit_counts_each_rounding_twice():
    assert PRECISIONS["float64"].variance(1.0) == 2.0
    assert PRECISIONS["float32"].variance(1.0) == 1.0
