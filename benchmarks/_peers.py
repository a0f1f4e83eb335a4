"""How others fine-tune: PyTorch's transfer-learning tutorial, skorch's, and fastai's learner.

Each function fits MobileNetV2 with ImageNet weights from a file and returns an object with
``classes_`` and ``predict_proba``. All see the same images at the same size.

- tutorial, fixed and full: 25 epochs in batches of 4, SGD with a rate of 0.001, a tenth of it
  after every 7 epochs, momentum 0.9, random crops and flips. Fixed: parameters of the network
  don't require gradients, but it is in training mode as a whole, so its batch-norm statistics
  drift. The tutorial keeps the epoch that is best on ``val``, which is what it reports on;
  here the last epoch counts.
- skorch: the same with skorch's ``Freezer`` on all but the last layer.
- fastai: ``vision_learner(...).fine_tune(epochs)`` with its defaults: batches of 64 (all
  images where there are fewer), its augmentation, its own head, which trains for one epoch
  alone. `epochs` has no default; here it is what makes 400 steps, as sktransfer's default
  does, and 25 at most, as in the tutorials. With fastai installed only.

Each mirrors images at random, digits too, as it does by default. The tutorials run on the CPU,
so that seconds are compared on a machine without a GPU; those of fastai include its import.
"""

import io
import os
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import mobilenet_v2

from sktransfer.backbones._weights import read_tensors

EPOCHS, BATCH_SIZE = 25, 4
FASTAI_STEPS = 400
RESIZE_OF_SIZE = 257 / 225  # as the network's own preprocessing has it


def picture(cell):
    """Return a Pillow image of a path, of bytes of a file, or of an array."""
    if isinstance(cell, np.ndarray):
        return Image.fromarray(cell).convert("RGB")
    with Image.open(io.BytesIO(cell) if isinstance(cell, bytes) else cell) as image:
        return image.convert("RGB")


class Pictures(Dataset):
    """Images and numbers of classes, as the tutorial's ``ImageFolder`` gives them."""

    def __init__(self, X, numbers, transform):
        self.X, self.numbers, self.transform = X, numbers, transform

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.transform(picture(self.X[index])), int(self.numbers[index])


def network(weights, n_classes=None):
    """Return the pretrained network, with a new last layer if `n_classes` is given."""
    model = mobilenet_v2(width_mult=0.35)
    missing, unexpected = model.load_state_dict(read_tensors(weights), strict=False)
    assert not unexpected
    assert all(name.startswith("classifier.") for name in missing), missing
    if n_classes is not None:
        model.classifier[1] = nn.Linear(model.last_channel, n_classes)
    return model


def steps(size, is_training):
    if is_training:
        changed = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    else:
        resize = round(size * RESIZE_OF_SIZE)
        changed = [transforms.Resize(resize), transforms.CenterCrop(size)]
    return transforms.Compose(
        [*changed, transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )


class FittedNetwork:
    """A trained network with the methods of a classifier."""

    def __init__(self, model, classes, size):
        self.model, self.classes_, self.size = model, classes, size

    @torch.inference_mode()
    def predict_proba(self, X):
        self.model.eval()
        pictures = Pictures(X, np.zeros(len(X)), steps(self.size, is_training=False))
        batches = DataLoader(pictures, batch_size=32, num_workers=len(os.sched_getaffinity(0)))
        return torch.cat([self.model(images).softmax(1) for images, _ in batches]).numpy()


def tutorial(data, weights, seed, is_fixed):
    torch.manual_seed(seed)
    classes, numbers = np.unique(data.y, return_inverse=True)
    size = data.reading["image_size"]
    model = network(weights)
    if is_fixed:
        model.requires_grad_(False)
    model.classifier[1] = nn.Linear(model.last_channel, len(classes))
    trained = model.classifier[1].parameters() if is_fixed else model.parameters()
    optimizer = torch.optim.SGD(trained, lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    batches = DataLoader(
        Pictures(data.X, numbers, steps(size, is_training=True)),
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=len(os.sched_getaffinity(0)),
    )
    for _ in range(EPOCHS):
        model.train()
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
    return FittedNetwork(model, classes, size)


def skorch_tutorial(data, weights, seed):
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Freezer, LRScheduler

    torch.manual_seed(seed)
    classes, numbers = np.unique(data.y, return_inverse=True)
    size = data.reading["image_size"]
    net = NeuralNetClassifier(
        network(weights, len(classes)),
        criterion=nn.CrossEntropyLoss,
        lr=0.001,
        batch_size=BATCH_SIZE,
        max_epochs=EPOCHS,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        iterator_train__shuffle=True,
        iterator_train__num_workers=len(os.sched_getaffinity(0)),
        train_split=None,
        callbacks=[
            LRScheduler(policy="StepLR", step_size=7, gamma=0.1),
            Freezer(lambda name: not name.startswith("classifier.1.")),
        ],
        verbose=0,
    )
    net.fit(Pictures(data.X, numbers, steps(size, is_training=True)), None)
    return FittedNetwork(net.module_, classes, size)


def fastai_learner(data, weights, seed):
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        PILImage,
        Resize,
        aug_transforms,
        set_seed,
        vision_learner,
    )

    set_seed(seed)
    size = data.reading["image_size"]

    # fastai takes a tuple apart, so that its items are numbers of images
    cells = list(data.X)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=sorted(set(data.y)))),
        get_x=lambda item: PILImage.create(picture(cells[item])),
        get_y=lambda item: data.y[item],
        splitter=lambda items: (list(range(len(items))), []),
        item_tfms=Resize(round(size * RESIZE_OF_SIZE)),
        batch_tfms=[*aug_transforms(size=size), Normalize.from_stats([0.5] * 3, [0.5] * 3)],
    )
    loaders = block.dataloaders(range(len(cells)), bs=min(64, len(cells)))

    def architecture(pretrained=True):
        model = network(weights)  # in the form in which fastai finds the pooling
        return nn.Sequential(
            model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.classifier
        )

    learner = vision_learner(loaders, architecture, normalize=False, n_out=len(loaders.vocab))
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(min(EPOCHS, max(1, round(FASTAI_STEPS / max(1, len(loaders.train))))))
    return _FittedLearner(learner, cells, np.array(list(loaders.vocab)))


class _FittedLearner:
    def __init__(self, learner, cells, classes):
        self.learner, self.cells, self.classes_ = learner, cells, classes

    def predict_proba(self, X):
        items = range(len(self.cells), len(self.cells) + len(X))
        self.cells += list(X)
        with self.learner.no_bar(), self.learner.no_logging():
            return self.learner.get_preds(dl=self.learner.dls.test_dl(items))[0].numpy()


PEERS = {
    "tutorial, fixed": partial(tutorial, is_fixed=True),
    "tutorial, full": partial(tutorial, is_fixed=False),
    "skorch's tutorial": skorch_tutorial,
    "fastai": fastai_learner,
}
