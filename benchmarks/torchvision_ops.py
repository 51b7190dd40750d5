"""Lets PyPI's torchvision, built for CUDA, be imported beside a CPU torch: import this before any peer that wants it.

Its compiled part needs CUDA's libraries. Without them its import fails only because it describes two operators of
detection networks (`nms`, `qnms`) that nobody declared. They are declared here and not implemented: a call would
raise. What the peers use of torchvision (resize, crop, to tensor, save a grid) is Python and runs as it is.
"""

import torch

if torch.version.cuda is None:
    DECLARED = torch.library.Library("torchvision", "DEF")  # declarations live as long as this object
    for name in ("nms", "qnms"):
        DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
