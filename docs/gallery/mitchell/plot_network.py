"""
A network that multiplies approximately
=======================================

How wrong may a multiplier be before a network notices? This example trains a small classifier of
handwritten digits with exact arithmetic, then runs it with approximate products: the question that
someone asks who wants to put such a multiplier into a chip. (On a CPU it saves nothing: this is a
simulation.)
"""

# %%
# Training is scikit-learn's. The digits are 8 x 8 pixels; 64 inputs, 48 hidden units, 10 outputs.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from slipstick import mitchell

images, labels = load_digits(return_X_y=True)
images = (images / 16).astype(np.float32)
train, test, train_labels, test_labels = train_test_split(
    images, labels, test_size=0.5, random_state=0
)
network = MLPClassifier((48,), solver="lbfgs", random_state=0).fit(train, train_labels)
weights = [layer.astype(np.float32) for layer in network.coefs_]
offsets = [layer.astype(np.float32) for layer in network.intercepts_]
exact = network.score(test, test_labels)
print(f"exact arithmetic: {100 * exact:.2f} % of {len(test)} test images")

# %%
# A forward pass whose products are any method's. Sums stay exact additions, as in a hardware
# accumulator.


def accuracy(method):
    """Return the share of test images that the network with this multiplier gets right."""
    hidden = np.maximum(mitchell.matmul(test, weights[0], method=method) + offsets[0], 0)
    scores = mitchell.matmul(hidden, weights[1], method=method) + offsets[1]
    return float((scores.argmax(axis=1) == test_labels).mean())


named = [name for name in mitchell.methods() if name != "operand-decomposition"]  # integers only
results = {name: accuracy(name) for name in named}
for name, share in sorted(results.items(), key=lambda item: -item[1]):
    print(f"{name:14} {100 * share:.2f} %")

# %%
# Products with errors of 4 % on average leave the decisions nearly as they were: errors of one sign
# scale all scores alike, and the others cancel in the sums. So the question becomes how far one can
# go. Mitch-w and DRUM have a parameter for that, the number of leading bits that are looked at.

widths = range(1, 9)
figure, ax = plt.subplots()
ax.plot(widths, [100 * accuracy(mitchell.MitchW(width)) for width in widths], "o-", label="Mitch-w")
drum = [width for width in widths if width >= 2]
ax.plot(drum, [100 * accuracy(mitchell.DRUM(width)) for width in drum], "s-", label="DRUM")
ax.axhline(100 * exact, color="grey", linestyle="--", label="exact")
ax.set_xlabel("bits of each operand that the multiplier looks at")
ax.set_ylabel("test images right, %")
ax.legend()
plt.show()

# %%
# One network and one split: differences of less than about half a percent (four images) say
# nothing. Networks can also be *trained* with approximate products; see
# :func:`slipstick.mitchell.matmul_backward`.
