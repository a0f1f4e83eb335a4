"""
Sounds: a spectrogram is an image
=================================

A network that was trained on photographs learns to tell spoken words apart by their spectrograms.
The folds leave whole speakers out, as an application will meet voices that it has not heard.
Spectrograms are far from photographs: frozen rows are worth no more than pixels, and training the
last stages is worth a lot.
"""

# %%
# Words
# -----
#
# Nothing is recorded here. The vocal cords make pulses, the mouth and the throat are three
# resonances (formants), which move from one sound of a word to the next, and an "s" is noise. Each
# speaker has a pitch and a length of the throat, and speaks each word four times, some time within
# a second.

import numpy as np
from scipy.signal import lfilter

RATE = 8000  # samples a second
FORMANTS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}  # in Hz
WORDS = ("ai", "ia", "au", "ua", "sa", "as")


def word(sounds, pitch, length, rng):
    """Return a third of a second or so of a voice that says two sounds."""
    n = int(RATE * rng.uniform(0.3, 0.45))
    glide = np.clip(np.linspace(-4, 5, n) + rng.uniform(-1.2, 1.2), 0, 1)  # to the second sound
    first, second = (np.array(FORMANTS.get(sound, FORMANTS["a"])) for sound in sounds)
    melody = pitch * (1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, n))
    voice = np.diff(np.floor(np.cumsum(melody) / RATE), prepend=0)  # a pulse for each period
    for hertz in np.outer(1 - glide, first).T + np.outer(glide, second).T:
        voice = resonance(voice, hertz / length * rng.normal(1, 0.03))
    hiss = lfilter([1, -0.95], [1], rng.normal(0, 0.35, n))
    is_hiss = (sounds[0] == "s") * (1 - glide) + (sounds[1] == "s") * glide
    loudness = np.minimum(1, np.linspace(0, 12, n)) * np.minimum(1, np.linspace(12, 0, n))
    return loudness * ((1 - is_hiss) * voice / voice.std() + is_hiss * hiss)


def resonance(sound, hertz, width=90):
    """Filter by a resonance whose frequency moves, in 20 steps."""
    out, state = [], np.zeros(2)
    radius = np.exp(-np.pi * width / RATE)
    for part in np.array_split(np.arange(len(sound)), 20):
        turn = np.cos(2 * np.pi * hertz[part].mean() / RATE)
        poles = [1, -2 * radius * turn, radius**2]
        filtered, state = lfilter([1 - radius], poles, sound[part], zi=state)
        out.append(filtered)
    return np.concatenate(out)


rng = np.random.default_rng(0)
sounds, y, speaker = [], [], []
for number in range(12):
    pitch, length = rng.uniform(90, 240), rng.uniform(0.85, 1.15)
    for name in WORDS:
        for _ in range(4):
            recorded = rng.normal(0, 0.05, RATE)  # a room is never silent
            said = word(name, pitch, length, rng)
            start = rng.integers(0, RATE - len(said))
            recorded[start : start + len(said)] += said
            sounds.append(recorded)
            y.append(name)
            speaker.append(number)

# %%
# Images
# ------
#
# 96 frequencies and 96 moments, in decibels: the loudest is 255, 60 decibels less is 0. Like a
# photograph, the image has 8 bits.

from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann


def spectrogram(sound, side=96):
    """Return an array (side, side) of 8 bits, low frequencies below, time from left to right."""
    transform = ShortTimeFFT(hann(160), hop=len(sound) // side, fs=RATE, mfft=256)
    power = transform.spectrogram(sound)[:side, :side]
    decibels = 10 * np.log10(power / power.max() + 1e-12)
    return (255 * (1 + decibels / 60)).clip(0, 255).astype(np.uint8)[::-1]


X = np.stack([spectrogram(sound) for sound in sounds])
print(X.shape, X.dtype)

# %%
# Which word
# ----------
#
# A linear model on all pixels, the same one on frozen rows, and fine-tuning for a few epochs. Words
# are not mirrored, so neither are these images: ``augment=None``.

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

head = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=1000))
models = {
    "pixels": make_pipeline(FunctionTransformer(lambda X: X.reshape(len(X), -1)), head),
    "frozen rows": make_pipeline(PretrainedFeatureTransformer("mini", depth=-1), head),
    "fine-tuned": FineTunedClassifier(
        "mini", recipe="fast", freeze_depth=-2, augment=None, max_epochs=10, random_state=0
    ),
}
predicted = {
    name: cross_val_predict(model, X, y, cv=GroupKFold(3), groups=speaker)
    for name, model in models.items()
}

# %%
# One speaker's words, and what the models take them for. Each row of a matrix is a word.

import matplotlib.pyplot as plt

figure = plt.figure(figsize=(9, 5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1, 1.7])
extent = (0, 1, 0, 96 * RATE / 256 / 1000)
for i, ax in enumerate(above.subplots(1, 6, sharey=True)):
    ax.imshow(X[4 * i], cmap="magma", extent=extent, aspect="auto")
    ax.set(title=f'"{WORDS[i]}"', xticks=[], xlabel="1 second", ylabel="" if i else "kHz")
panels = below.subplots(1, 3, sharey=True)
for ax, (name, words) in zip(panels, predicted.items(), strict=True):
    ConfusionMatrixDisplay.from_predictions(
        y, words, labels=list(WORDS), colorbar=False, cmap="magma_r", ax=ax
    )
    ax.set(title=f"{name}: {np.mean(words == np.array(y)):.2f} right", xlabel="taken for")
    ax.set_ylabel("spoken" if ax is panels[0] else "")
plt.show()
