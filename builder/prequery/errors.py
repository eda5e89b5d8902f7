"""Every error raised on purpose.

BuildError             something the user can act on: what happened, where, what to do
├── RecipeError        nothing was started
├── EndpointError      finished answers are kept; the same command resumes
│   └── RefusalError   the endpoint will never answer this very request
├── AcceptanceError    too few rows pass; answers are kept
├── PrefixError        this model's chat template cannot be used as it is; nothing was started
├── JournalError       the journal is kept untouched
├── DatasetError       the dataset to annotate cannot be read as it is; answers are kept
├── ColumnError        a column broke its own contract; answers are kept
├── ShardError         the output folder is left as it was
├── CardError          a README or card is broken, or says what is not so; it is left as it was
├── RebuildError       a release cannot be read or rebuilt; it is left as it is
├── ReleaseError       nothing of this release is visible; the same command carries on
├── LocalError         the embedded endpoint could not be set up or started
├── BudgetError        the run's budget is spent; the same command resumes
└── StoppedError       the user stopped the build; the same command resumes
"""


class BuildError(Exception):
    """Something went wrong that the user can act on.

    All three texts are positional, because worker processes pickle errors through
    ``Exception.args`` and keyword-only arguments do not survive that.

    Args:
        what: What happened, in one sentence, with offending values quoted by ``!r``.
        where: File and key, or address and pass.
        fix: What to do next, as a command where there is one.
    """

    exit_code = 1

    def __init__(self, what: str, where: str, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}"


class RecipeError(BuildError):
    """The recipe cannot be used. Raised before anything is asked or written."""

    exit_code = 2


class EndpointError(BuildError):
    """The endpoint does not do what the build needs. Finished answers are in the journal."""


class RefusalError(EndpointError):
    """The endpoint refuses this very request for good; others it may answer."""


class AcceptanceError(BuildError):
    """The model does not yield the rows that the recipe wants. All answers are kept."""


class PrefixError(BuildError):
    """No prefix can be derived from this model's chat template, or the endpoint disproves it."""


class JournalError(BuildError):
    """The journal belongs to other work, or cannot be written. What is in it stays."""


class DatasetError(BuildError):
    """The dataset to annotate is not there, or not as the recipe says. All answers are kept."""


class ColumnError(BuildError):
    """A quality column returned values that break its declaration."""


class ShardError(BuildError):
    """The output folder cannot take this build. What is in it stays."""


class CardError(BuildError):
    """A README or card is broken, or says what the data does not. It stays as it was."""


class RebuildError(BuildError):
    """A release cannot be read, trusted or rebuilt. It is left as it is."""


class ReleaseError(BuildError):
    """A release did not happen: its place shows what it showed before, never a mixture."""


class LocalError(BuildError):
    """The embedded endpoint could not be set up or started."""


class BudgetError(BuildError):
    """The run spent what it may. Everything that was answered is in the journal."""

    exit_code = 3


class StoppedError(BuildError):
    """The user asked to stop. Everything that was answered is in the journal."""

    exit_code = 130
