"""What the node serves, as its inference server says: the endpoints that the orchestrator is told of, and the load."""

from __future__ import annotations

from nodeprobe.inference import InferenceError
from nodeprobe.world import Node, World
from orchestrator.messages import ENDPOINTS_MAX, Endpoint, Load

MISSES_MAX = 2  # readings of the inference server that may fail before its models count as gone


class Served:
    """
    Keeps what was last known, since one failed reading says little.

    Endpoints that the operator gave stand whatever the inference server says; of the same model, they win.
    """

    def __init__(self, node: Node, world: World) -> None:
        self._node, self._world = node, world
        self._found: tuple[str, ...] = ()
        self._misses = 0
        self._told: tuple[Endpoint, ...] | None = None
        self._complaint = ""

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is served, as it was last known."""
        return tuple(dict.fromkeys((*self._found, *(each.model for each in self._node.endpoints))))

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the models are served now."""
        self._look()
        given = {each.model for each in self._node.endpoints}
        url = self._node.public_url
        found = tuple(Endpoint(model=model, url=url) for model in self._found if url and model not in given)
        return (*self._node.endpoints, *found)[:ENDPOINTS_MAX]

    def news(self) -> tuple[Endpoint, ...] | None:
        """The same, or None where it is what the orchestrator knows already."""
        now = self.endpoints()
        return None if now == self._told else now

    def told(self, endpoints: tuple[Endpoint, ...] | None) -> None:
        """The orchestrator took these; None for none new."""
        if endpoints is None or endpoints == self._told:
            return
        self._told = endpoints
        where = ", ".join(f"{each.model} at {each.url}" for each in endpoints) or "nothing"
        self._world.tell("serving", f"Serving {where}.", endpoints=[each.model_dump() for each in endpoints])

    def forget_told(self) -> None:
        """The orchestrator no longer knows what it was told."""
        self._told = None

    def load(self) -> Load | None:
        """Running and waiting requests; None where nobody knows."""
        if self._world.inference is None:
            return None
        try:
            meters = self._world.inference.meters()
        except InferenceError:  # it is told where work is counted
            return None
        return Load(running=meters.running, waiting=meters.waiting)

    def _look(self) -> None:
        if self._world.inference is None:
            return
        try:
            self._found = self._world.inference.models()
        except InferenceError as e:
            self._misses += 1
            if self._misses >= MISSES_MAX:
                self._found = ()
            if self._complaint != e.what:
                self._complaint = e.what
                self._world.tell("inference-unreadable", f"What is served is unknown: {e}.")
        else:
            self._misses, self._complaint = 0, ""
