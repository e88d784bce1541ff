"""What training code imports.

`lethe.data.open("digits")` gives the files of a dataset of this job, `lethe.data.output("model.pt")` takes a result.
"""

from lethe.data.output import Output, output
from lethe.data.reader import EncryptedFiles
from lethe.data.reader import open_dataset as open

__all__ = ["EncryptedFiles", "Output", "open", "output"]
