"""Protocols for tests; in a module, so that spawned processes find them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pvapy_stream.workflow.model.parameters import Boolean, Enum, Float, Form, Int, Pointer
from pvapy_stream.workflow.model.validators import Positive
from pvapy_stream.workflow.run.step_protocol import Protocol


class Count(Protocol):
    """Makes items one after another, as slowly as asked."""

    outputs = {"items": "set"}  # noqa: RUF012 - as users write it
    threads = 2

    def define_params(self, form: Form) -> None:
        form.add("n", Int(3, label="Number of items", validators=(Positive,)))
        form.add("milliseconds", Int(0))
        form.add("mode", Enum("plain", choices=("plain", "kill")))

    def insert_all_steps(self) -> None:
        for number in range(1, self.n + 1):
            self.insert_step(self.make, number)

    def make(self, number: int) -> str:
        time.sleep(self.milliseconds / 1000)
        if self.mode == "kill" and number == 4 and not self.tmp("killed").exists():
            self.tmp("killed").touch()
            # Whatever was done before this step is done; what it did itself is not.
            self.output("items").append({"number": number})
            self.output("items").flush()
            os.kill(os.getpid(), 9)
        self.output("items").append({"number": number})
        path = self.extra(f"{number}.txt")
        path.write_text(f"{time.time()}")
        return str(path)

    def summary(self) -> list[str]:
        return [f"{self.n} items"]


class Double(Protocol):
    """Takes the items of a set in batches and writes them doubled."""

    outputs = {"doubled": "set"}  # noqa: RUF012
    check_interval = 0.1
    threads = 3

    def define_params(self, form: Form) -> None:
        form.add("items", Pointer(accepts="set"))
        form.add("batch", Int(1))

    def insert_all_steps(self) -> None:
        self.steps_check()

    def steps_check(self) -> None:
        for batch in self.take("items", self.batch):
            self.insert_step(self.double, [item["number"] for item in batch], prerequisites=[])

    def double(self, numbers: list[int]) -> None:
        for number in numbers:
            self.output("doubled").append({"number": 2 * number, "batch": len(numbers)})


class InProcesses(Protocol):
    """Steps in processes; one of them may die."""

    outputs = {"pids": "set"}  # noqa: RUF012
    workers = 2

    def define_params(self, form: Form) -> None:
        form.add("deaths", Int(0))

    def insert_all_steps(self) -> None:
        for number in range(4):
            self.insert_step(self.work, number, prerequisites=[])

    def work(self, number: int) -> str:
        if number == 2 and len(list(self.tmp().glob("death*"))) < self.deaths:
            Path(self.tmp(f"death{time.time_ns()}")).touch()
            os.kill(os.getpid(), 9)
        self.output("pids").append({"pid": os.getpid(), "number": number})
        path = self.extra(str(number))
        path.touch()
        return str(path)


class Scan(Protocol):
    """Parameters that depend on others."""

    def define_params(self, form: Form) -> None:
        form.add("mode", Enum("steps", choices=("steps", "time")))
        form.add("points", Int(5, condition="mode == 'steps'", validators=(Positive,)))
        form.add("seconds", Float(1.0, condition="mode == 'time'", validators=(Positive,)))
        form.add("fine", Boolean(False, condition="mode == 'steps' and points > 3"))
        form.add("repeat", Int(condition="mode == 'steps' and fine", allows_null=True))

    def insert_all_steps(self) -> None:
        self.insert_step(self.note)

    def note(self) -> str:
        path = self.extra("note.txt")
        path.write_text(f"{self.mode} {self.points} {self.seconds} {self.fine} {self.repeat}")
        return str(path)
