"""Export of a run's model: where its weights come from, their verification, the model card.

`facts` says what is stored and `objects` fetches it; `export` writes the folder, which `iota.model.export`
lays out. `run_weights` reads the same for a run that starts from another one's base.
"""

from iota.exporting.export import Exporter, Target
from iota.exporting.facts import Facts, OrchestratorFacts, RecordedFacts
from iota.exporting.objects import FolderObjects, Objects, UrlObjects

__all__ = [
    "Exporter",
    "Facts",
    "FolderObjects",
    "Objects",
    "OrchestratorFacts",
    "RecordedFacts",
    "Target",
    "UrlObjects",
]
