class SpaceID:
    def select_hyperslab(
        self,
        start: tuple[int, ...],
        count: tuple[int, ...],
        stride: tuple[int, ...] | None = ...,
        block: tuple[int, ...] | None = ...,
    ) -> None: ...

def create_simple(dims: tuple[int, ...]) -> SpaceID: ...
