"""Settings of consumers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.incumbent import at_least, warn_once
from pvapy_stream.settings.stage_settings import StageSettings
from pvapy_stream.settings.text_types import IdList, JsonObject
from pvapy_stream.transport.policy import RUNS, checked_policy, sticky_field


class ConsumerSettings(StageSettings):
    """A consumer, or several that share a stream."""

    consumer_id: Annotated[int, opt("-id --consumer-id", "Consumers", metavar="N")] = Field(
        1, description="id of the first consumer"
    )
    n_consumers: Annotated[int, opt("-nc --n-consumers", "Consumers", metavar="N")] = Field(
        1, ge=1, description="number of consumers, each in a separate process"
    )
    consumer_id_list: Annotated[
        IdList, opt("-cid --consumer-id-list", "Consumers", metavar="LIST")
    ] = Field(
        None,
        description="ids, instead of the two options above: 1,2,5 or range(first,last+1[,step])",
    )
    max_restarts: Annotated[int, opt("--max-restarts", "Consumers", metavar="N")] = Field(
        3, ge=0, description="how often a consumer process that died is restarted"
    )
    accumulate_objects: Annotated[
        int, opt("-ao --accumulate-objects", "Queues", "objects", metavar="N")
    ] = Field(
        -1,
        description=(
            "objects to collect in the receiver queue before processing starts; 0 or less: none;"
            " no effect without a receiver queue"
        ),
    )
    accumulation_timeout: Annotated[
        float,
        at_least(0, "--accumulation-timeout", "objects are not gathered"),
        opt("-at --accumulation-timeout", "Queues", "s", metavar="T"),
    ] = Field(1, ge=0, description="process collected objects after this time without a new one")
    distributor_plugin_name: Annotated[
        str, opt("-dpn --distributor-plugin-name", "Distributor", metavar="NAME")
    ] = Field("pydistributor", description="name of the server's distributor plugin")
    distributor_group: Annotated[
        str | None, opt("-dg --distributor-group", "Distributor", metavar="NAME")
    ] = Field(None, description="group of clients that share the stream")
    distributor_set: Annotated[
        str | None, opt("-ds --distributor-set", "Distributor", metavar="NAME")
    ] = Field(None, description="set in the group; all clients of a set get the same objects")
    distributor_trigger: Annotated[
        str | None, opt("-dt --distributor-trigger", "Distributor", metavar="FIELD")
    ] = Field(None, description="field whose change marks a new object, such as uniqueId")
    distributor_updates: Annotated[
        int | None,
        at_least(1, "--distributor-updates", "each object goes to the next client"),
        opt("-du --distributor-updates", "Distributor", metavar="N"),
    ] = Field(
        None,
        ge=1,
        description="successive objects for one client (or set) before the next one has its turn",
    )
    distributor_policy: Annotated[
        str,
        AfterValidator(checked_policy),
        opt("--distributor-policy", "Distributor", metavar="POLICY"),
    ] = Field(
        RUNS,
        description=(
            "how consumers of a group divide the objects: runs (in turns), least-queued (to the one"
            " with the shortest queue), or sticky:FIELD (all with the same value of an attribute to"
            " one consumer)"
        ),
    )
    n_distributor_sets: Annotated[
        int,
        at_least(1, "--n-distributor-sets", "a single set"),
        opt("-nds --n-distributor-sets", "Distributor", metavar="N"),
    ] = Field(
        1,
        ge=1,
        description=(
            "number of sets in the group, for the step of ids if sets run as separate commands"
        ),
    )

    # No options: the command that starts several consumers sets them.
    dealer: str = Field("", description="channel on which the command's dealer distributes objects")
    dealt: bool = Field(False, description="whether the command has a dealer")

    @model_validator(mode="after")
    def _queue_fits(self) -> ConsumerSettings:
        if self.accumulate_objects > 0 and self.receiver_queue_size < 0:
            warn_once(
                f"--accumulate-objects {self.accumulate_objects} has no effect without a receiver"
                " queue: objects are processed as they arrive; give --receiver-queue-size 0 or more"
            )
        if 0 < self.receiver_queue_size < self.accumulate_objects:
            raise ValueError(
                f"--accumulate-objects {self.accumulate_objects} never fits in"
                f" --receiver-queue-size {self.receiver_queue_size}; enlarge the queue"
            )
        return self

    @model_validator(mode="after")
    def _has_all_to_repair(self) -> ConsumerSettings:
        if self.repair and (self.distributed or len(self.ids) > 1):
            raise ValueError(
                "--repair is not possible for consumers that share a stream: ids do not show which"
                " of the missed objects were sent to another one"
            )
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> ConsumerSettings:
        inputs = [self.named(self.input_channel, "consumer", "input", self.ids[0])]
        self.refuse_same_names("consumer", inputs)
        if len(self.ids) > 1:
            if self.receives.hosts:
                self._needs_star("--input-channel", self.input_channel)
            if problem := self.receives.several(self.input_args):
                raise ValueError(problem)
            if not self.publishes.shared:
                self._needs_star("--output-channel", self.output_channel)
            self._needs_star("--status-channel", self.status_channel)
            self._needs_star("--control-channel", self.control_channel)
        return self

    @model_validator(mode="after")
    def _can_use_policy(self) -> ConsumerSettings:
        policy = self.distributor_policy
        if self.by_turns:
            return self
        if not self.distributed:
            raise ValueError(
                f"--distributor-policy {policy} is for consumers of a group; give"
                " --distributor-group"
            )
        # In mode auto it is not known yet who divides the objects.
        if not (self.receives.policies or (self.can_deal and self.input_mode == "pva")):
            raise ValueError(
                f"--distributor-policy {policy} cannot be used here: run all consumers of the group"
                " with one command (--n-consumers 2 or more) and --input-mode pva, or use"
                " --input-mode shm"
            )
        if sticky_field(policy) and self.sequential_updates > 1:
            raise ValueError(
                f"--distributor-policy {policy} has no runs; leave --distributor-updates out"
            )
        return self

    def _needs_star(self, option: str, channel: str) -> None:
        if channel and "*" not in channel and channel != "_":
            raise ValueError(
                f"{option} {channel}: each of the {len(self.ids)} consumers needs its own channel;"
                f" write it like {channel}:*"
            )

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all consumers of this command."""
        return self.consumer_id_list or tuple(
            range(self.consumer_id, self.consumer_id + self.n_consumers)
        )

    @property
    def distributed(self) -> bool:
        """Whether the distributor plugin is requested."""
        return any(
            (
                self.distributor_group,
                self.distributor_set,
                self.distributor_trigger,
                self.distributor_updates,
            )
        )

    @property
    def can_deal(self) -> bool:
        """Whether this command, as far as its settings show, has all consumers of the stream."""
        alone = not self.distributor_set or self.n_distributor_sets == 1
        return (
            self.distributed
            and len(self.ids) > 1
            and alone
            and self.input_mode in ("pva", "auto")
            and "*" not in self.input_channel
            and self.input_channel != "_"
        )

    @property
    def by_turns(self) -> bool:
        """Whether the ids show which objects of the stream a consumer should get."""
        return self.distributor_policy == RUNS

    @property
    def sequential_updates(self) -> int:
        """Successive objects that one consumer gets."""
        return (self.distributor_updates or 1) if self.distributed else 1

    @property
    def id_step(self) -> int:
        """Step from the last id of a run to the first of the next, given or computed."""
        if self.oid_offset > 0:
            return self.oid_offset
        if not self.distributed or not self.by_turns:
            return 1
        sharers = self.n_distributor_sets if self.distributor_set else len(self.ids)
        return (sharers - 1) * self.sequential_updates + 1


class FixedProcessorSettings(StageSettings):
    """Common part of commands that are consumers with one processor."""

    # These are not options of the command.
    processor_file: str | None = None
    processor_class: str | None = None
    processor_args: JsonObject = Field(default_factory=dict)

    processor_name: ClassVar[str]

    @model_validator(mode="after")
    def _processor_is_fixed(self) -> FixedProcessorSettings:
        if self.processor_file or self.processor_class or self.processor_args:
            raise ValueError(
                f"the processor is the {self.processor_name}; for another, use a consumer"
            )
        return self

    def consumer(self, processor_class: str, args: Mapping[str, object]) -> ConsumerSettings:
        """The settings of the consumer that the command runs.

        Args:
            processor_class: of the processor.
            args: its configuration.
        """
        own = {"processor_file", "processor_class", "processor_args"}
        given = self.model_fields_set & ConsumerSettings.model_fields.keys() - own
        return ConsumerSettings.of(
            **{name: getattr(self, name) for name in given},
            processor_class=processor_class,
            processor_args=dict(args),
        )
