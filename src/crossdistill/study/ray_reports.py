"""What workers on a Ray cluster tell the driver while they work: an actor between them. Imports neither torch nor Ray."""


class Reports:
    """Which trainings have started and which lines they wrote, since the driver last asked."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.lines: list[str] = []

    def start(self, label: str) -> None:
        self.started.append(label)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def end(self) -> None:
        """Answer once all that the same worker told before has come here."""

    def take(self) -> tuple[list[str], list[str]]:
        """Labels and lines that were not taken before."""
        taken = self.started, self.lines
        self.started, self.lines = [], []
        return taken
