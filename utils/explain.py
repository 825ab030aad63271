"""Why a network decided: saliency of the input maps per class."""

import numpy as np
import torch

from utils.samples import Samples
from utils.train import Fitted, load_network


def saliency(fitted: Fitted, samples: Samples) -> np.ndarray:
    """Mean |gradient x input| of each class's logit over that class's clips, (K, V, S, S) float32, per map summed to 1.

    Summed over phases and channels, averaged over clips and member networks (Simonyan et al. 2014, "Deep inside
    convolutional networks", with the input as a factor). A class without clips gets zeros.
    """
    n_classes, n_views, size = len(samples.classes), samples.x.shape[1], samples.x.shape[-1]
    maps = np.zeros((n_classes, n_views, size, size), np.float32)
    for k in range(n_classes):
        chosen = torch.from_numpy(samples.x[samples.y[:, k] > 0])
        if not len(chosen):
            continue
        for member in fitted.members:
            u_scale, m_scale = member.scale
            x = (chosen / torch.tensor([u_scale, u_scale, m_scale])[:, None, None]).requires_grad_()
            logits, _ = load_network(fitted, member)(x)
            logits[:, k].sum().backward()
            maps[k] += (x.grad * x).detach().abs().sum(dim=(2, 3)).mean(0).numpy()
        maps[k] /= maps[k].sum()
    return maps
