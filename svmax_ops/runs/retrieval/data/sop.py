"""Stanford Online Products (Oh Song et al., 2016): photographs of goods on sale; half of the classes trains."""

from __future__ import annotations

from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.layouts import LAYOUTS, locate
from svmax_ops.runs.retrieval.data.listing import Count, Half, checked, read_columns, require_disjoint
from svmax_ops.runs.retrieval.data.pictures import RetrievalData

PUBLISHED = Count(11318, 59551), Count(11316, 60502)
RECALL_AT = (1, 8, 10, 100, 1000)  # the data set's own 1, 10, 100, 1000, and the 8 of the paper's table 2
_COLUMNS = ("image_id", "class_id", "super_class_id", "path")


def sop(config: RetrievalConfig) -> RetrievalData:
    """``Ebay_train.txt`` and ``Ebay_test.txt``, which name the images and the split."""
    root = locate(config)
    halves = []
    for file in ("Ebay_train.txt", "Ebay_test.txt"):
        _, classes, _, names = read_columns(root / file, _COLUMNS, header=True)
        halves.append(Half(names, classes))
    require_disjoint(root, *halves)
    return checked(LAYOUTS["sop"].title, root, *halves, PUBLISHED if config.check_counts else None, RECALL_AT)
