"""Options of W&B; importing them imports neither wandb nor Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sizewise.tracking.summary import RunContext

if TYPE_CHECKING:
    from sizewise.tracking.wandb_logger import SizewiseWandbLogger


@dataclass(frozen=True)
class WandbBackend:
    """Options of W&B (``logger=wandb``).

    ``mode``: ``auto`` (online where somebody is logged in), ``online``, ``offline`` or
    ``disabled``. ``system_metrics`` records the use of processors and memory, and what machine it
    is; null records the use on GPU jobs only, and not what machine it is. ``examples`` is how many
    texts are shown where ``logger.log_examples`` allows it. ``upload_adapters`` sends the adapters'
    files and not their hashes alone; ``registry`` links the winner of a sweep to that collection
    (``wandb-registry-model/NAME``) when online.
    """

    project: str = "sizewise"
    entity: str | None = None
    mode: str = "auto"
    system_metrics: bool | None = None
    examples: int = 100
    upload_adapters: bool = False
    registry: str | None = None

    def start(self, context: RunContext) -> SizewiseWandbLogger:
        """Return the logger; the run is opened when Lightning first asks for it."""
        from sizewise.tracking.wandb_logger import SizewiseWandbLogger

        return SizewiseWandbLogger(
            context,
            self.project,
            self.entity,
            self.mode,
            self.system_metrics,
            self.examples,
            self.upload_adapters,
        )
