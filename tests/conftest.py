"""One thread a test process: the suite shares two cores, and small networks gain nothing from more."""

import torch

torch.set_num_threads(1)
