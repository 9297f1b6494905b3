"""How much a model server takes: open-loop load at rising rates, on Locust.

    python serving/load_test.py localhost:8500 --histories histories.txt \
        --rates 50 100 200 400 --seconds 20 --output load

Requests arrive at random moments (Poisson) whatever the server does, as those of users
do, and a request's latency counts from the moment it was due: a server that falls
behind cannot slow its own load down. Writes `load.json` and `load.png`. The saturation
point is the highest rate that was answered in full, within the limit of p99 and with
fewer than one error in a hundred.

Needs the extra `serving`. Against servers of your own only.
"""

from __future__ import annotations

import locust  # first: it makes Python's sockets cooperate

import argparse  # isort: skip
import json  # isort: skip
import random  # isort: skip
import sys  # isort: skip
import time  # isort: skip
from dataclasses import asdict, dataclass  # isort: skip

import gevent  # isort: skip
import grpc.experimental.gevent  # isort: skip
from locust.env import Environment  # isort: skip

from tfrs_selfattn.client import Retry, ServerError, connect  # isort: skip

grpc.experimental.gevent.init_gevent()

WARMUP_REQUESTS = 20
ANSWERED = 0.95
ERRORS = 0.01


@dataclass(frozen=True)
class Stage:
    """What one rate gave; times in milliseconds."""

    rate: float
    answered_per_second: float
    requests: int
    errors: int
    p50: float
    p95: float
    p99: float


class Arrivals(locust.User):
    """Not a user but all of them: requests that are due at random moments."""

    abstract = True

    def __init__(
        self, environment: Environment, client: object, histories: list
    ) -> None:
        super().__init__(environment)
        self.client, self.histories = client, histories
        self.latencies: list[float] = []

    def run_stage(self, rate: float, seconds: float, seed: int) -> Stage:
        """Sends `rate` requests a second for so long, and waits for their answers."""
        self.environment.stats.reset_all()
        self.latencies.clear()
        draw = random.Random(seed)
        started, due, sent = time.perf_counter(), 0.0, []
        while (due := due + draw.expovariate(rate)) < seconds:
            gevent.sleep(max(started + due - time.perf_counter(), 0.0))
            history = draw.choice(self.histories)
            sent.append(gevent.spawn(self._ask, history, started + due))
        gevent.joinall(sent)
        took = time.perf_counter() - started
        total = self.environment.stats.total

        def percentile(share: float) -> float:
            # Locust's own are rounded to whole milliseconds.
            times = sorted(self.latencies)
            place = min(int(share * len(times)), len(times) - 1)
            return round(times[place], 2) if times else 0.0

        return Stage(
            rate,
            round((total.num_requests - total.num_failures) / took, 1),
            total.num_requests,
            total.num_failures,
            percentile(0.50),
            percentile(0.95),
            percentile(0.99),
        )

    def _ask(self, history: list[str], due: float) -> None:
        failure = None
        try:
            self.client.recommend([history])
        except ServerError as error:
            failure = error
        took = (time.perf_counter() - due) * 1000
        self.latencies.append(took)
        self.environment.events.request.fire(
            request_type="recommend",
            name="recommend",
            response_time=took,
            response_length=0,
            exception=failure,
            context={},
        )


def saturation(stages: list[Stage], p99_limit: float) -> float | None:
    """The highest rate that was answered in full, before the first that was not."""
    reached = None
    for stage in sorted(stages, key=lambda stage: stage.rate):
        answered = stage.answered_per_second >= ANSWERED * stage.rate
        few_errors = stage.errors <= ERRORS * stage.requests
        if not (answered and few_errors and stage.p99 <= p99_limit):
            break
        reached = stage.rate
    return reached


def draw(stages: list[Stage], path: str) -> None:
    """Latency and throughput over the offered rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = [stage.rate for stage in stages]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in ("p50", "p95", "p99"):
        left.plot(rates, [getattr(s, name) for s in stages], marker="o", label=name)
    left.set(xlabel="requests due a second", ylabel="milliseconds", yscale="log")
    left.legend()
    right.plot(rates, rates, color="0.8", label="due")
    answered = [stage.answered_per_second for stage in stages]
    right.plot(rates, answered, marker="o", label="answered")
    right.set(xlabel="requests due a second", ylabel="requests a second")
    right.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> int:
    """Runs all stages and writes what they gave; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="HOST:PORT for gRPC, http://HOST:PORT for REST")
    parser.add_argument("--model", default="recommender")
    parser.add_argument(
        "--histories", help="file, a history a line, ids between blanks"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--seconds", type=float, default=15.0, help="for each rate")
    parser.add_argument("--p99-limit", type=float, default=250.0, help="milliseconds")
    parser.add_argument("--timeout", type=float, default=5.0, help="of a request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="load", help="of OUTPUT.json, OUTPUT.png")
    options = parser.parse_args()
    histories: list[list[str]] = [[]]
    if options.histories:
        with open(options.histories, encoding="utf-8") as file:
            histories = [line.split() for line in file]
    # No second attempts: every failure is to be seen.
    with connect(
        options.address,
        model=options.model,
        timeout=options.timeout,
        retry=Retry(attempts=1),
    ) as client:
        try:
            for _ in range(WARMUP_REQUESTS):
                client.recommend(histories[:1])
        except ServerError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        environment = Environment(user_classes=[Arrivals])
        environment.create_local_runner()  # it counts requests and failures
        arrivals = Arrivals(environment, client, histories)
        stages = []
        for rate in options.rates:
            stage = arrivals.run_stage(rate, options.seconds, options.seed)
            stages.append(stage)
            print(
                f"{stage.rate:>8g}/s due {stage.answered_per_second:>8g}/s answered"
                f"  p50 {stage.p50:g}  p95 {stage.p95:g}  p99 {stage.p99:g} ms"
                f"  {stage.errors} errors",
                flush=True,
            )
    reached = saturation(stages, options.p99_limit)
    result = {
        "address": options.address,
        "model": options.model,
        "seconds": options.seconds,
        "saturation": reached,
        "stages": [asdict(stage) for stage in stages],
    }
    with open(f"{options.output}.json", "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")
    draw(stages, f"{options.output}.png")
    print(
        "saturated below the lowest rate"
        if reached is None
        else f"saturation: {reached:g} requests a second or more"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
