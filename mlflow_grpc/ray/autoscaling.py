"""The autoscaling policy: as many replicas as keep their utilization near a target.

Rule of this module: arithmetic on what replicas report. Delays, factors and limits are those of Ray Serve's
`autoscaling_config`.
"""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

UTILIZATION = "utilization"
"""Key under which replicas report their utilization, between 0 and 1."""

TOLERANCE = 0.1
"""Relative distance from the target within which nothing changes; Kubernetes' HorizontalPodAutoscaler has the same."""


class ByUtilization:
    """Policy for `autoscaling_config`. Ray Serve does not see the calls, so that its own policy would see no load."""

    def __init__(self, target: float = 0.6) -> None:
        """Takes the utilization of a replica to aim at.

        Args:
            target: Between 0 and 1.

        Raises:
            ValueError: The target is not in this range.

        """
        if not 0 < target < 1:
            raise ValueError(f"policy_kwargs: target {target} has to be between 0 and 1")
        self._target = target

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Returns the number of replicas, and no state.

        Args:
            ctx: What Ray Serve knows of the deployment. Replicas that are starting have reported nothing yet.

        """
        reported = list(((ctx.aggregated_metrics or {}).get(UTILIZATION) or {}).values())
        count = ctx.target_num_replicas
        if reported:
            load = sum(reported) / self._target
            if abs(load / len(reported) - 1) > TOLERANCE:
                count = math.ceil(load)
        return max(ctx.capacity_adjusted_min_replicas, min(count, ctx.capacity_adjusted_max_replicas)), {}
