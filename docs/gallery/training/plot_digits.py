"""
Digits learned with approximate products
========================================

A small network learns scikit-learn's handwritten digits from scratch, and every product of its
three layers, forward and backward, is Mitchell's: too small by 3.85 % on average and by 11.1 % at
worst. The sums are ordinary ones.

What is the gradient of a product that is not quite one? There are three answers, and
`approximate` takes each by name:

- ``"mimic"``: the usual formula, gradient times other operand, with the approximate product in it
  too. This is what a machine does whose only multiplier is the approximate one.
- ``"exact"``: the derivative of what was computed. Mitchell's product is piecewise linear, and
  its slope is a power of two that depends on both operands.
- ``"straight-through"``: the usual formula with exact products, as if the forward pass had been
  exact.

**What you will see.** With Mitchell's products it does not matter for these digits: all three
learn like exact arithmetic, within the spread of the seeds. With a far coarser product it matters
a great deal.

**What this does not show.** The network is small, the task is easy, and nothing here is faster or
cheaper than exact products on an ordinary processor, which *simulates* the others.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from slipstick.mitchell import MitchW, error_report
from slipstick.torch import approximate, restore

# %%
# The data and the network
# ------------------------
# 1797 images of 8 x 8 pixels. Every seed has its own third of them as test images, its own
# initial weights and its own order, and the same three for every way to multiply: so differences
# within a seed are due to the products.

digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
labels = torch.tensor(digits.target)


def network():
    """A convolution and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def split(seed):
    """The numbers of the images to learn from, and of those to test with."""
    numbers = np.arange(len(labels))
    parts = train_test_split(numbers, test_size=1 / 3, stratify=digits.target, random_state=seed)
    return tuple(torch.from_numpy(part) for part in parts)


@torch.no_grad()
def accuracy(model, seed):
    """The share of test images that are recognised, in percent."""
    test = split(seed)[1]
    return 100 * (model(images[test]).argmax(1) == labels[test]).double().mean().item()


# %%
# The products
# ------------
# Beside Mitchell's product, one that cuts both operands to their leading bit: ``MitchW(1)``
# multiplies powers of two, and nothing else is left of the numbers. It has no derivative to speak
# of (its slope is zero almost everywhere), so ``"exact"`` is refused for it.

COARSE = MitchW(width=1)
print(error_report("mitchell"))
print()
print(error_report(COARSE))

# %%
# Training
# --------
# `approximate` swaps the layers in place, without touching their weights, and says what it has
# swapped.

EPOCHS = 12
BATCH = 32


def train(seed, method=None, gradient="mimic", epochs=EPOCHS):
    """A model, its mean loss in every epoch, and its test accuracy after each."""
    torch.manual_seed(seed)
    model = network()
    if method is not None:
        approximate(model, method=method, gradient=gradient)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    learn = split(seed)[0]
    losses, accuracies = [], []
    for _ in range(epochs):
        total = 0.0
        for batch in learn[torch.randperm(len(learn))].split(BATCH):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += len(batch) * loss.item()
        losses.append(total / len(learn))
        accuracies.append(accuracy(model, seed))
    return model, losses, accuracies


print(approximate(network(), method="mitchell", gradient="straight-through"))

# %%
# Six ways, several seeds each.

SEEDS = 5
GRADIENTS = ("mimic", "exact", "straight-through")
WAYS = {
    "exact products": {},
    **{
        f"Mitchell, {gradient}": {"method": "mitchell", "gradient": gradient}
        for gradient in GRADIENTS
    },
    "MitchW(1), mimic": {"method": COARSE, "gradient": "mimic"},
    "MitchW(1), straight-through": {"method": COARSE, "gradient": "straight-through"},
}
runs = {way: [train(seed, **options) for seed in range(SEEDS)] for way, options in WAYS.items()}

# %%
# Curves
# ------
# Lines are means over the seeds, bands reach from the lowest seed to the highest.

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10})
COLOURS = {"exact products": "#6E6E6E", "Mitchell": "#0072B2", "MitchW(1)": "#D55E00"}
MARKS = {"exact products": "s", "Mitchell": "o", "MitchW(1)": "^"}

figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey="row", layout="constrained")
for column, gradient in zip(axes.T, GRADIENTS, strict=True):
    column[0].set_title(f'gradient "{gradient}"')
    for product, colour in COLOURS.items():
        way = product if product in runs else f"{product}, {gradient}"
        if way not in runs:
            continue
        for axis, part in zip(column, (1, 2), strict=True):
            values = np.array([run[part] for run in runs[way]])
            epochs = np.arange(1, values.shape[1] + 1)
            axis.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
            axis.plot(
                epochs, values.mean(0), MARKS[product], ls="-", ms=4, color=colour, label=product
            )
axes[0, 0].set_yscale("log")
axes[0, 0].set_ylabel("training loss (nats)")
axes[1, 0].set_ylabel("test accuracy (%)")
axes[1, 0].set_ylim(0, 101)
axes[1, 1].set_xlabel("epoch")
figure.legend(
    *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
)
plt.show()

# %%
# Test accuracy
# -------------
# Against exact products with the same seed: a dot is a seed, a bar the mean. To the same question
# belongs a network that was trained with exact products and only *tested* with approximate ones.

final = {
    way: np.array([accuracies[-1] for *_, accuracies in results]) for way, results in runs.items()
}
for name, method in {"Mitchell": "mitchell", "MitchW(1)": COARSE}.items():
    tested = []
    for seed, (model, *_) in enumerate(runs["exact products"]):
        approximate(model, method=method)
        tested.append(accuracy(model, seed))
        restore(model)
    final[f"{name}, tested only"] = np.array(tested)

exact = final["exact products"]
print(f"{'':30}{'test accuracy':>16}{'less that of exact products':>32}")
for way, values in final.items():
    apart = values - exact
    print(
        f"{way:30}{values.mean():10.1f} ± {values.std():3.1f}"
        f"{apart.mean():+14.1f}, from {apart.min():+.1f} to {apart.max():+.1f}"
    )

# %%
# The same as a picture:

figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
ways = sorted((way for way in final if way != "exact products"), key=lambda way: way.split(",")[0])
for place, way in enumerate(reversed(ways)):
    colour = COLOURS[way.split(",")[0]]
    apart = final[way] - exact
    axis.plot(apart, np.full(len(apart), place), "o", color=colour, alpha=0.6, mew=0)
    axis.plot(apart.mean(), place, "|", color=colour, ms=22, mew=2.5)
axis.axvline(0, color=COLOURS["exact products"], lw=1, zorder=0)
axis.set_yticks(range(len(ways)), reversed(ways))
axis.set_xscale("symlog", linthresh=2)
axis.set_xlabel("test accuracy less that of exact products (percentage points)")
plt.show()
