"""
Trained at length 128, read at length 1024
==========================================

Attention averages values with weights that add up to one. The longer a text, the more keys share
them, and keys that have nothing to say take weight from those that have: attention blurs. A scale
that grows with ln n, where n is the number of keys that a query sees, counters it. Here a tiny
language model of characters learns on texts of 128 characters with the ordinary fixed scale, with
`LogN` and with a learned `SSMax`, and then reads longer ones.

**What you will see.** At the length of training the scales are about equally good. Beyond it all
profit from more context, since names come back in source code; with the fixed scale the gain ends
and turns into a loss, with a scale that grows it goes on.

**What this does not show.** The model is tiny, trained for seconds, and made for the question: it
copies from its context, which rewards attention that stays sharp, and it has no positional
encoding that could fail at lengths that it has not seen. Models with rotary encodings have both
problems at a time; how much of the second one a scale can mend cannot be read off here.
"""

# %%
# Text
# ----
# The source of modules of Python's standard library, as it is installed here: some to learn from,
# others to read. Figures differ a little from one version of Python to the next, as its modules
# do. A token is a character; those beyond ASCII share one.

import math
import sysconfig
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slipstick.scales import ClippedLogN, LogN
from slipstick.torch import SSMaxScale, attention

LEARNED = """
    _pydecimal _pyio argparse ast configparser dataclasses difflib doctest enum functools imaplib
    inspect ipaddress mailbox optparse pickle platform pydoc smtplib socket ssl statistics
    subprocess tarfile threading traceback typing
"""
READ = """
    _strptime bdb calendar codecs contextlib ftplib os pdb random shutil socketserver tempfile
    trace uuid
"""
CHARACTERS = 128


def characters(module):
    """The source of a module as integers below 128."""
    source = (Path(sysconfig.get_path("stdlib")) / f"{module}.py").read_bytes()
    codes = np.minimum(np.frombuffer(source, np.uint8), CHARACTERS - 1)
    return torch.from_numpy(codes.astype(np.int64))


text = torch.cat([characters(module) for module in LEARNED.split()])
print(f"{len(text):,} characters to learn from")

# %%
# A model that may read on
# ------------------------
# Two layers, and no positional encoding: rotary angles and position tables meet values beyond the
# length of training that they have never seen, and fail by themselves, whatever the scale. Order
# enters in two ways that do not depend on the length. Each character comes with the three before
# it (a sum of four embeddings). And key j is made of what came *before* character j, by the
# weights that make the queries: a query looks for places where the text before was like the text
# before it, and finds there, as the value, how it went on.
#
# The only thing that changes with the length is then the number of keys, n.

NEARBY = 4


class Block(nn.Module):
    """Attention and a layer of hidden units, each added to what comes in."""

    def __init__(self, width, heads, scale):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.match = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.hidden = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        normed = self.norms[0](x)
        query, value = (
            layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.match, self.value)
        )
        key = functional.pad(query[:, :, :-1], (0, 0, 1, 0))
        out, stats = attention(query, key, value, causal=True, scale=self.scale, return_stats=True)
        x = x + self.merge(out.transpose(1, 2).flatten(2))
        return x + self.hidden(self.norms[1](x)), stats.entropy


class Model(nn.Module):
    """Characters to the scores of the next one, and the entropies of attention."""

    def __init__(self, make_scale, width=64, heads=2, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(NEARBY * CHARACTERS, width)
        nn.init.normal_(self.embedding.weight, std=0.25)
        self.blocks = nn.ModuleList(
            Block(width, heads, make_scale(heads, width // heads)) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, CHARACTERS)

    def forward(self, tokens):
        nearby = functional.pad(tokens, (NEARBY - 1, 0)).unfold(1, NEARBY, 1)
        x = self.embedding(nearby + CHARACTERS * torch.arange(NEARBY)).sum(2)
        entropies = []
        for block in self.blocks:
            x, entropy = block(x)
            entropies.append(entropy)
        return self.scores(self.norm(x)), torch.stack(entropies, 1)


# %%
# Training
# --------
# All three scales agree where 128 keys are visible, and a seed gives all three the same initial
# weights and the same texts. What SSMax learns is one number a head, s in ``lambda = s ln n /
# sqrt(d)``.

TRAINED = 128
STEPS = 200
SCALES = {
    "fixed": lambda heads, dim: dim**-0.5,
    "LogN": lambda heads, dim: LogN(TRAINED),
    "SSMax": lambda heads, dim: SSMaxScale(1 / math.log(TRAINED), heads=heads),
}


def train(make_scale, seed, steps=STEPS, batch=16):
    """A model that has learned from some texts of the training length."""
    torch.manual_seed(seed)
    model = Model(make_scale)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps, pct_start=0.1)
    for _ in range(steps):
        starts = torch.randint(len(text) - TRAINED, (batch, 1))
        window = text[starts + torch.arange(TRAINED + 1)]
        scores, _ = model(window[:, :-1])
        loss = functional.cross_entropy(scores.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    return model


SEEDS = 3
models = {
    name: [train(make_scale, seed) for seed in range(SEEDS)] for name, make_scale in SCALES.items()
}

# %%
# Reading
# -------
# Every model predicts the same characters, the last 64 of texts of 1024 that it has never seen,
# from the last 128, 256, 512 or all 1024 characters. What changes is only how much it has read
# before. A fourth reader is the model that was trained with the fixed scale and is read with
# ``ClippedLogN(128)``, which is the fixed scale up to 128 keys and grows from there: nothing is
# trained for it.

LENGTHS = (128, 256, 512, 1024)
LAST = 64
SPACING = 8192
texts = torch.cat(
    [characters(module).unfold(0, max(LENGTHS) + 1, SPACING) for module in READ.split()]
)
print(f"{len(texts)} texts to read")


@torch.no_grad()
def read(model, length):
    """The mean loss of each text, and the entropy of each layer, at the last characters."""
    losses, entropies = [], []
    for window in texts[:, -length - 1 :].split(max(1, 8192 // length)):
        scores, entropy = model(window[:, :-1])
        each = functional.cross_entropy(
            scores[:, -LAST:].transpose(1, 2), window[:, -LAST:], reduction="none"
        )
        losses.append(each.mean(1))
        entropies.append(entropy[..., -LAST:].mean((2, 3)))
    return torch.cat(losses).numpy(), torch.cat(entropies).mean(0).numpy()


def curves(models):
    """Losses of shape (seeds, lengths, texts) and entropies of shape (seeds, lengths, layers)."""
    results = [[read(model, length) for length in LENGTHS] for model in models]
    return tuple(np.array([[pair[part] for pair in row] for row in results]) for part in (0, 1))


readers = {name: curves(models[name]) for name in SCALES}
for model in models["fixed"]:
    for block in model.blocks:
        block.scale = ClippedLogN(TRAINED)
readers["fixed, read with ClippedLogN"] = curves(models["fixed"])

# %%
# Loss and entropy against length
# -------------------------------
# A thin line is a seed, a thick one the mean. ln n is the largest entropy that n keys allow: that
# of plain averaging.

plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10})
STYLES = {
    "fixed": ("#6E6E6E", "s-"),
    "fixed, read with ClippedLogN": ("#D55E00", "^-"),
    "LogN": ("#0072B2", "o-"),
    "SSMax": ("#009E73", "D--"),
}

layers = readers["fixed"][1].shape[2]
figure, axes = plt.subplots(1, 1 + layers, figsize=(11, 4), layout="constrained")
for name, (colour, mark) in STYLES.items():
    losses, entropies = readers[name]
    for axis, values in zip(axes, (losses.mean(2), *np.moveaxis(entropies, 2, 0)), strict=True):
        axis.plot(LENGTHS, values.T, color=colour, lw=0.8, alpha=0.5)
        axis.plot(LENGTHS, values.mean(0), mark, lw=2, ms=5, color=colour, label=name)
axes[0].set_title("loss")
axes[0].set_ylabel("loss (nats per character)")
for layer, axis in enumerate(axes[1:], 1):
    axis.plot(LENGTHS, np.log(LENGTHS), ":", color="black", label="ln n")
    axis.set_title(f"entropy, layer {layer}")
    axis.set_ylabel("entropy of attention (nats)")
    axis.sharey(axes[1])
for axis in axes:
    axis.set_xscale("log", base=2)
    axis.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    axis.set_xlabel("length of the text (characters)")
handles, names = axes[1].get_legend_handles_labels()
figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
plt.show()

# %%
# In numbers
# ----------
# The loss, mean and standard deviation over the seeds:


def table(rows):
    """Print means and spreads at every length."""
    print(f"{'':28}" + "".join(f"{length:>16}" for length in LENGTHS))
    for name, (means, spreads) in rows.items():
        cells = (f"{mean:8.3f} ± {spread:.3f}" for mean, spread in zip(means, spreads, strict=True))
        print(f"{name:28}" + "".join(cells))


table({name: (readers[name][0].mean((0, 2)), readers[name][0].mean(2).std(0)) for name in STYLES})

# %%
# The same less the loss of the fixed scale, text by text: mean and standard error over the texts.

apart = {name: (readers[name][0] - readers["fixed"][0]).mean(0) for name in STYLES}
table(
    {
        name: (values.mean(1), values.std(1) / math.sqrt(len(texts)))
        for name, values in apart.items()
        if name != "fixed"
    }
)

# %%
# What SSMax has learned, as s ln 128: the factor, relative to the fixed scale's, where 128 keys
# are visible. It began with 1.

for seed, model in enumerate(models["SSMax"]):
    learned = torch.stack([block.scale.s.detach() for block in model.blocks]) * math.log(TRAINED)
    rows = "; ".join(" ".join(f"{factor:.2f}" for factor in row) for row in learned.tolist())
    print(f"seed {seed}, heads of each layer: {rows}")

# %%
# With the fixed scale the first layer's entropy H grows as fast as ln n itself: at 1024 characters
# a query spreads over eight times as many keys (exp H) as at 128, and from 512 on that costs more
# than the new context gives. With ln n in the scale that entropy grows at little more than a third
# of the pace, and the loss falls with every doubling. Four things are worth a second look:
#
# - Most of the difference needs no training. The model that learned with the fixed scale and is
#   only read with ``ClippedLogN`` gets two thirds of the way.
# - Learning s brings nothing here beyond ``LogN``. Most heads of the first layer become sharper
#   than the fixed scale, most of the second blunter, and the loss is the same.
# - At 128 characters already the growing scales are ahead by a hair: within a text the first query
#   sees one key and the last 128, so that n varies in training too.
# - It is not for want of training. With ``STEPS = 800`` (tried with one seed) all losses are lower
#   by about 0.2, and the curves have the same shape: the fixed scale turns at 512 again.
