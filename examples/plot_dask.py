"""
A search on a dask cluster
==========================

Inside ``joblib.parallel_config("dask")`` a search of scikit-learn sends its fits to the workers
of a cluster. All workers share one store: an image that one of them has passed through the frozen
stages, or is passing now, the others read.
"""

# %%
# A search as any other
# ---------------------

from sklearn.model_selection import GridSearchCV, StratifiedKFold

from _drawn_images import plates
from sktransfer import FineTunedClassifier

X, y = plates({"good": 20, "scratch": 20, "pits": 20, "crack": 20}, random_state=0)
search = GridSearchCV(
    FineTunedClassifier("mini", recipe="fast", image_size=48, max_epochs=8, random_state=0),
    {"freeze_depth": [None, -1, -2], "lr": [1e-3, 3e-3]},
    scoring="accuracy",
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
)

# %%
# Two workers on this machine
# ---------------------------
#
# Of one thread each, since the fits of one process train one after the other. On a cluster it is
# ``Client("scheduler-address:8786")`` in place of the ``LocalCluster``.

import logging

import joblib
import pandas as pd
from dask.distributed import Client, LocalCluster, get_task_stream


def run_on_dask():
    """Return when each fit began and ended, and on which worker."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,  # of workers that take seconds to end on a busy machine
        ) as cluster,
        Client(cluster) as client,
        get_task_stream(client) as stream,
        joblib.parallel_config("dask"),
    ):
        search.fit(X, y)
    return pd.DataFrame(
        {"worker": task["worker"], "begin": part["start"], "end": part["stop"]}
        for task in stream.data
        for part in task["startstops"]
        if part["action"] == "compute"
    )


# %%
# Left, each bar is a batch of fits on one of the workers. Right, the scores.

import matplotlib.pyplot as plt
import numpy as np


def show(tasks):
    figure, (times, ax) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    begin = tasks["begin"] - tasks["begin"].min()
    workers = pd.factorize(tasks["worker"], sort=True)[0]
    times.barh(workers, tasks["end"] - tasks["begin"], left=begin, height=0.5, edgecolor="white")
    times.set_yticks([0, 1], ["worker 1", "worker 2"])
    times.set(xlabel="Seconds", ylim=(-0.6, 1.6))
    times.spines[["top", "right"]].set_visible(False)

    scores = np.reshape(search.cv_results_["mean_test_score"], (3, 2))
    image = ax.imshow(scores, cmap="viridis", aspect="auto")
    ax.set_xticks(range(2), ["0.001", "0.003"])
    ax.set_yticks(range(3), ["None", "-1", "-2"])
    ax.set(xlabel="lr", ylabel="freeze_depth")
    for (row, column), score in np.ndenumerate(scores):
        colour = "black" if image.norm(score) > 0.6 else "white"
        ax.text(column, row, f"{score:.2f}", ha="center", va="center", color=colour)
    figure.colorbar(image, label="Mean accuracy over 3 folds")
    plt.show()


# %%
# Workers import the script that starts them: what they must not do is behind this line.

if __name__ == "__main__":
    tasks = run_on_dask()
    print(f"best: {search.best_params_}, accuracy {search.best_score_:.3f}")
    show(tasks)
