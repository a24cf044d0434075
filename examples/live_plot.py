"""A plot that grows while a Bluesky scan runs: ``python examples/live_plot.py http://HOST:8000?api_key=KEY runs motor det``.

It waits for the next run below the container `runs`, draws its points as they are measured, and ends with the scan. Without
arguments it takes a simulated scan of its own. Without a screen: ``MPLBACKEND=agg``; ``--save plot.png`` keeps the picture.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt

from tiled_stream.client import Columns, subscribe_sync


def live_plot(uri: str, path: str, x: str, y: str, *, start: int | None = None) -> Columns | None:
    """The five lines. Returns the columns when the scan has ended; None if it had no such points."""
    columns = None
    (line,) = plt.gca().plot([], [], "o-")
    with subscribe_sync(uri, path, subtree=True, start=start) as events:
        for columns in events.table(x, y):
            line.set_data(columns[x], columns[y])
            plt.gca().relim()
            plt.gca().autoscale_view()
            plt.pause(0.01)
    return columns


def scan(uri: str) -> None:
    """A simulated scan into `runs`, a moment from now: there has to be somebody who watches."""
    import threading

    import bluesky.plan_stubs as bps
    import bluesky.plans as bp
    from bluesky import RunEngine
    from bluesky_tiled_plugins import TiledWriter
    from ophyd.sim import SynAxis, SynGauss
    from tiled.client import from_uri

    motor = SynAxis(name="motor", labels={"motors"})
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1, labels={"detectors"})
    engine = RunEngine({}, context_managers=[])
    engine.subscribe(TiledWriter(from_uri(uri).create_container("runs"), batch_size=1))

    def per_step(detectors, step, pos_cache):  # type: ignore[no-untyped-def]
        yield from bps.one_nd_step(detectors, step, pos_cache)
        yield from bps.sleep(0.05)

    threading.Timer(0.5, lambda: engine(bp.scan([det], motor, -5, 5, 60, per_step=per_step))).start()


def main() -> None:
    parser = argparse.ArgumentParser(description="A plot that grows while a Bluesky scan runs.")
    parser.add_argument("uri", nargs="?", help="the server; without it, one of its own and a simulated scan")
    parser.add_argument("path", nargs="?", default="runs", help="a container of runs, or one run")
    parser.add_argument("x", nargs="?", default="motor")
    parser.add_argument("y", nargs="?", default="det")
    parser.add_argument("--start", type=int, help="0: the points that are there already, too")
    parser.add_argument("--save", help="where to keep the picture")
    given = parser.parse_args()
    if given.uri is None:
        from tiled_stream import SimpleTiledServer

        with SimpleTiledServer() as server:
            scan(server.uri)
            columns = live_plot(server.uri, given.path, given.x, given.y, start=given.start)
    else:
        columns = live_plot(given.uri, given.path, given.x, given.y, start=given.start)
    print(f"{0 if columns is None else len(columns)} points")
    if given.save:
        plt.savefig(given.save)
    elif plt.get_backend().lower() != "agg":
        plt.show()


if __name__ == "__main__":
    main()
