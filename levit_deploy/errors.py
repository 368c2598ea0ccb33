"""The one error a user sees: what failed, and what to type next."""


class DeployError(Exception):
    """A failure that the user can act on.

    `message` says what failed, with the offending value in backticks; `hint` is an action or a
    command that can be typed. The command line prints both and exits with code 1.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
