"""Price a European call option by simulation, and compare with the exact answer.

    python examples/monte_carlo.py --paths 20000000

Each task draws from its own random stream, spawned from one seed: the result is the
same on one core and on a thousand functions.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

import wren


@dataclass(frozen=True)
class Option:
    """A European call on a share that follows a geometric Brownian motion."""

    spot: float = 100.0
    strike: float = 105.0
    rate: float = 0.03
    volatility: float = 0.2
    years: float = 1.0

    def exact(self) -> float:
        """Return the price by the formula of Black and Scholes."""
        spread = self.volatility * math.sqrt(self.years)
        drift = (self.rate + self.volatility**2 / 2) * self.years
        d1 = (math.log(self.spot / self.strike) + drift) / spread
        phi = NormalDist().cdf
        discount = math.exp(-self.rate * self.years)
        return self.spot * phi(d1) - self.strike * discount * phi(d1 - spread)


def simulate(
    option: Option, paths: int, seed: np.random.SeedSequence
) -> tuple[float, float]:
    """Return the sums of the discounted payoffs and of their squares."""
    draws = np.random.default_rng(seed).standard_normal(paths)
    drift = (option.rate - option.volatility**2 / 2) * option.years
    diffusion = option.volatility * math.sqrt(option.years) * draws
    final = option.spot * np.exp(drift + diffusion)
    discount = math.exp(-option.rate * option.years)
    payoff = discount * np.maximum(final - option.strike, 0.0)
    return float(payoff.sum()), float((payoff**2).sum())


async def main(paths: int, batch: int, seed: int) -> None:
    """Simulate, sum up and print the price with its standard error."""
    option = Option()
    batches = math.ceil(paths / batch)
    seeds = np.random.SeedSequence(seed).spawn(batches)
    async with wren.Executor() as executor:
        sums = await executor.starmap(simulate, [(option, batch, s) for s in seeds])

    drawn = batches * batch
    mean = math.fsum(total for total, _ in sums) / drawn
    variance = math.fsum(squares for _, squares in sums) / drawn - mean**2
    error = math.sqrt(variance / drawn)
    print(f"simulated  {mean:.6f} +- {error:.6f}  ({drawn:,} paths)")
    print(f"exact      {option.exact():.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Price an option by simulation.")
    parser.add_argument("--paths", type=int, default=5_000_000)
    parser.add_argument("--batch", type=int, default=100_000, help="paths of one task")
    parser.add_argument("--seed", type=int, default=2017)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.paths, arguments.batch, arguments.seed))
