"""Names of categories as a coordinate that answers whole numbers too.

Goal: categories are strings, whatever they look like; `.sel(category=3)` finds "3" nevertheless.
Conventions: xarray aligns indexes of equal types alone, so an xarray index of our own would not fit the arrays of
others. The index is xarray's usual one, and the pandas index inside it is a subclass, which looks a whole number up by
its name where the number itself is absent. pandas offers no public way to subclass `pandas.Index`: this is the one
file that does, tests/analysis/test_categories.py holds what it rests on, and upper bounds in `pyproject.toml` guard it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr


def category_names(names: Sequence[str], dim: str = "category") -> xr.Variable:
    """Names of categories as a coordinate (category): strings that are found by whole numbers too.

    `.sel(category=3)`, `.sel(category=[3, 4])`, `.loc`, `.reindex` and, from `to_pandas`, `frame[3]` find "3" and "4",
    never "03" or "3.0". What is absent raises KeyError, as do floats, bools, and whole numbers in `drop_sel`; slices
    of numbers raise TypeError. In all else the coordinate equals one of plain strings: both align with, and are
    identical to, each other, and `xr.align` to whole numbers finds nothing but by join="left" or "right", which
    reindex. It is kept by selection, arithmetic, sorting, renaming, copying and pickling. Plain strings come back
    from a file and from a multi-index, from `concat` along categories, `groupby`, `roll`, `pad`, `coarsen`, from a
    join of unequal categories, and where the first operand has plain ones: those are found by strings alone.
    pandas' dtype of the names is object, where plain ones have str.
    """
    values = np.asarray(names)
    index = Categories(values, dtype=object, name=dim)
    (variable,) = xr.indexes.PandasIndex(index, dim, coord_dtype=values.dtype).create_variables().values()
    return variable


class Categories(pd.Index):
    """A `pandas.Index` of dtype object in which 3 finds "3"."""

    def __new__(cls, data: Any, dtype: Any = None, copy: bool = False, name: Any = None) -> Any:
        """One of these, where pandas gives an index of objects; else what it gives."""
        index = pd.Index(data, dtype=dtype, copy=copy, name=name)
        if type(index) is pd.Index and index.dtype == object:  # with other dtypes pandas asks for its own classes
            index.__class__ = cls
        return index

    def get_loc(self, key: Any) -> Any:
        """Position of a name, or of a whole number's. Raises KeyError, which says what exists."""
        try:
            return super().get_loc(key)
        except KeyError:
            whole = isinstance(key, int | np.integer) and not isinstance(key, bool)
            if whole and str(key) in self:
                return super().get_loc(str(key))
            known = ", ".join(map(str, self[:20])) + (", ..." if len(self) > 20 else "")
            raise KeyError(f"no {self.name} {key!r}; those that exist: {known}") from None

    def get_indexer(self, target: Any, method: Any = None, limit: Any = None, tolerance: Any = None) -> Any:
        """Positions of names, or of the names of whole numbers, -1 for absent ones."""
        found, wanted = super().get_indexer(target, method, limit, tolerance), pd.Index(target)
        if method is None and isinstance(wanted.dtype, np.dtype) and wanted.dtype.kind in "iu":
            found = np.where(found < 0, super().get_indexer(pd.Index(list(map(str, wanted)), dtype=object)), found)
        return found
