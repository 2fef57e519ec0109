"""The endless stream of batches: a pure function of (seed, position), read ahead by threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from sd_train.orders import GroupedOrder, Order, ShuffledOrder
from sd_train.seeds import generator_for
from sd_train.task import Batch, BatchSource, groups_of


class BatchStream:
    """Draw batches of `batch_size` from `source`, shuffled anew each epoch, from `position` on.

    `position` counts the examples handed out since the beginning of the run; a batch may reach
    over the end of an epoch. Every example is seen once an epoch. Where the source has groups, a
    batch is of one of them (see `GroupedOrder`). Of `num_parts` streams each hands out every so
    many-th batch, the first from its `position` on.
    """

    def __init__(
        self,
        source: BatchSource,
        *,
        batch_size: int,
        seed: int,
        position: int,
        num_workers: int,
        num_parts: int = 1,
    ) -> None:
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.position = position
        self._stride = batch_size * num_parts
        groups = groups_of(source)
        self._order: Order = (
            ShuffledOrder(len(source), seed) if groups is None else GroupedOrder(groups, seed)
        )
        self._ahead: deque[Future[Batch]] = deque()
        self._submitted = position
        self._pool = ThreadPoolExecutor(num_workers) if num_workers else None
        self._depth = 2 * num_workers

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches for ever, moving `position`."""
        while True:
            yield self.take()

    def take(self) -> Batch:
        """Return the batch at `position` and move on."""
        if self._pool is None:
            indices = self._order.batch(self.position, self.batch_size)
            batch = self._gather(indices, self.position)
        else:
            while len(self._ahead) < self._depth:
                indices = self._order.batch(self._submitted, self.batch_size)
                self._ahead.append(self._pool.submit(self._gather, indices, self._submitted))
                self._submitted += self._stride
            batch = self._ahead.popleft().result()
        self.position += self._stride
        return batch

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _gather(self, indices: list[int], position: int) -> Batch:
        return self.source.batch(indices, generator_for(self.seed, "data", position))
