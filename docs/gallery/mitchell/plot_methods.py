"""
Thirteen multipliers in one picture
===================================

Engineers have improved Mitchell's product for sixty years. What should one compare? The *mean
magnitude* of the relative error says how wrong a single product is; the *bias*, its signed mean,
says what a long sum will keep. :func:`slipstick.mitchell.error_report` measures both over all pairs
of operands.
"""

# %%
# One report, as text: Mitchell's own product of 8-bit operands, over all 65,536 pairs.

import matplotlib.pyplot as plt
import numpy as np

from slipstick import mitchell

print(mitchell.error_report("mitchell"))

# %%
# All methods beside each other. Wide circles have a wide range of errors, from the lowest to the
# highest.

names = mitchell.methods()
reports = {name: mitchell.error_report(name) for name in names}

figure, ax = plt.subplots(figsize=(7.6, 5.4))
for report in reports.values():
    bias, magnitude = 100 * report.bias, 100 * report.mred
    width = 100 * (report.peak_high - report.peak_low)
    ax.scatter(bias, magnitude, s=20 * width, alpha=0.35)
# Names that would lie on each other move apart.
shifts = {"zero-bias": (-62, -14), "min-rms": (-52, 5), "mbm": (-4, -19), "minimax": (10, 6)}
shifts |= {"lmul": (9, -8), "operand-decomposition": (-75, -17)}
for name, report in reports.items():
    ax.annotate(
        name,
        (100 * report.bias, 100 * report.mred),
        shifts.get(name, (9, 3)),
        textcoords="offset points",
        fontsize=9,
    )
limit = 8
ax.plot([-limit, 0, 2], [limit, 0, 2], color="grey", linewidth=0.8)
ax.set_xlabel("bias: mean relative error, %")
ax.set_ylabel("mean magnitude of the relative error, %")
ax.set_title("8-bit operands; on the grey lines all errors have one sign")

# %%
# Parameters trade hardware for accuracy. DRUM keeps `width` leading bits of each operand, and each
# further bit halves the error; of Babic's iterative multiplier each iteration takes most of what is
# left.

widths = range(3, 8)
drum = [mitchell.error_report(mitchell.DRUM(width), "bfloat16").mred for width in widths]
rounds = range(4)
ilm = [mitchell.error_report(mitchell.ILM(number), 8).mred for number in rounds]

figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
left.semilogy(widths, 100 * np.array(drum), "o-")
left.set_xlabel("bits kept by DRUM")
left.set_ylabel("mean magnitude, %")
right.semilogy(rounds, 100 * np.array(ilm), "o-", color="C1")
right.set_xlabel("iterations of ILM")
right.set_xticks(list(rounds))
plt.show()
