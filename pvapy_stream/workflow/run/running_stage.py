"""A stage that runs: its programs, and what they have accounted for."""

from __future__ import annotations

from pvapy_stream import settings as models
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union
from pvapy_stream.launch.programs import ProgramSpec, SupervisedProgram
from pvapy_stream.launch.supervisor import Supervisor
from pvapy_stream.settings.channel_map import parse_channel_map
from pvapy_stream.settings.source_settings import SourceSettings
from pvapy_stream.settings.text_types import mode_name
from pvapy_stream.transport.registry import input_mode
from pvapy_stream.workflow.model.plan import WiredStage
from pvapy_stream.workflow.model.streaming_stage import BSREAD


class RunningStage(Supervisor[SupervisedProgram]):
    """A stage with its programs."""

    def __init__(self, wired: WiredStage, programs: list[SupervisedProgram]) -> None:
        super().__init__(programs)
        self.label = wired.node.label
        self.upstream = wired.node.upstream
        self.kind = type(wired.stage)
        self.source = wired.source
        self.ready_timeout = float(wired.stage.value("ready_timeout"))

    @property
    def is_source(self) -> bool:
        return self.kind.is_source

    @property
    def outside(self) -> str:
        """Channels of others that it monitors; "" for none.

        A monitor shows the value that is there: that nothing comes means that nobody serves it.
        """
        if self.is_source or self.upstream:
            return ""
        names: list[str] = []
        for one in self.members:
            settings = one.spec.settings
            if "channel_map" in settings:
                names += [entry.source for entry in parse_channel_map(settings["channel_map"])]
            elif input_mode(mode_name(settings.get("input_mode", "pva"))).monitors:
                names.append(str(settings.get("input_channel", "")))
        return ", ".join(dict.fromkeys(filter(None, names)))

    @property
    def waits_for_messages(self) -> bool:
        """Whether nothing comes to it before its source begins."""
        return self.source is not None and self.source.kind == BSREAD

    def ledgers(self) -> list[Ledger]:
        return [ledger for one in self.members for ledger in one.ledgers()]

    def received(self) -> IdSet:
        return union(one.received for one in self.ledgers())

    def published(self) -> IdSet:
        return union(one.published for one in self.ledgers())

    def counts(self) -> dict[str, int]:
        """Numbers for the status."""
        ledgers = self.ledgers()
        names = ("received", "processed", "filtered", "published", "missed")
        return {name: len(union(getattr(one, name) for one in ledgers)) for name in names}


def has_received(one: SupervisedProgram) -> bool:
    """Whether a program has got its first object from all its sources."""
    if not one.spec.has_ledger:
        return one.process is not None
    accounts = one.now()
    return bool(accounts) and all(a.received or a.anonymous or a.opened for a in accounts)


def hosted_names(spec: ProgramSpec) -> list[str]:
    """Names of the PVA channels that a program hosts."""
    if not spec.settings_class:
        return []
    settings = getattr(models, spec.settings_class).of(**spec.settings)
    if isinstance(settings, models.MirrorSettings):
        return [entry.mirror for entry in parse_channel_map(settings.channel_map)]
    if isinstance(settings, SourceSettings):
        return settings.hosted
    if isinstance(settings, models.StageSettings):
        kind = "collector" if isinstance(settings, models.CollectorSettings) else "consumer"
        return [name for k in settings.ids for name in settings.hosted(kind, k).values()]
    return []
